"""Sweeps on a Ray cluster of two nodes, with workers, nodes and drivers that die."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from lsviz.jobs.ray import ray_crew
from lsviz.jobs.raycluster import RayError
from lsviz.jobs.rayscratch import SCRATCH
from lsviz.jobs.sweep import LOCK as SWEEP_LOCK
from lsviz.jobs.sweep import finished_runs, run_sweep
from lsviz.runs.config import RunConfig
from lsviz.runs.exchange import export_zip
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore
from tests.conftest import PATIENCE, clean_environment, train_run
from tests.jobs.conftest import STORE
from tests.test_cli import strict

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
pytestmark = [
    # Ray leaves pipes and processes to the interpreter's end, and announces its own changes.
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray.*"),
]

LONG = 200_000
SOME = 600
"""Steps that take a while, so that one can see them under way."""


def config(seed: int = 0, **settings: object) -> RunConfig:
    values = {"steps": 6, "record_every": 0, "reference_every": 0, **settings}
    return RunConfig.build(task="digits-mlp", seed=seed, **values)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def training(seed: int) -> list[psutil.Process]:
    """Return the workers that train the run of a seed at this moment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[:1] == [f"ray::lsviz digits-mlp, none, seed {seed}"]:
                found.append(process)
    return found


def left_in_scratch() -> set[str]:
    """Return the folders in scratch; one that a killed worker left stays for a minute at least."""
    return {path.name for path in Path(os.environ["TMPDIR"]).glob(f"{SCRATCH}*")}


def told(run: Run) -> pd.DataFrame:
    """Return what a run's steps came to, without how long they took."""
    return run.steps().drop(columns=["ms", "ms_recording"])


def command(address: str, out: Path, *more: str) -> list[str]:
    """Return a sweep of digits-mlp without loss scaling as a person types it."""
    plain = ["--task", "digits-mlp", "--policies", "none", "--record-every", "0", "--reference-every", "0"]
    start = [sys.executable, "-m", "lsviz", "sweep", "--engine", "ray", "--address", address]
    return [*start, *plain, "--out", str(out), *more]


def states(root: Path) -> list[tuple[int, str]]:
    return sorted((run.config.seed, run.status.state) for run in RunStore.at(root).list_runs())


@with_ray
def test_two_nodes_train_what_this_process_would(cluster: Any, second: Any, tmp_path: Path) -> None:
    configs = [config(seed, record_every=3, policy="gradscaler") for seed in (0, 1, 2, 1)]
    started: list[RunConfig] = []
    ended: list[tuple[RunConfig, bool, str]] = []
    before = left_in_scratch()
    done = run_sweep(
        tmp_path / "swept",
        configs,
        started=started.append,
        observe=lambda c, run, error: ended.append((c, run is not None, error)),
        recruit=ray_crew(cluster.address),
    )
    assert list(done.runs) == configs[:3]
    assert (done.failed, done.reused, done.stopped) == ({}, 0, False)
    assert sorted(c.seed for c in started) == [0, 1, 2]
    assert sorted((c.seed, *rest) for c, *rest in ended) == [(0, True, ""), (1, True, ""), (2, True, "")]
    for asked, run in done.runs.items():
        alone = train_run(tmp_path / "alone", **asked.model_dump())
        assert told(run).equals(told(alone))
        pd.testing.assert_frame_equal(run.exponents(), alone.exponents())
        assert run.status.metric == alone.status.metric
        assert f"seed {asked.seed}: 6 steps" in run.log_tail()
        assert run.log_tail().rstrip().endswith("finished")
    assert left_in_scratch() == before

    again = run_sweep(tmp_path / "swept", configs, recruit=ray_crew("nowhere:1"))  # needs no cluster
    assert again.reused == 3
    assert len(states(tmp_path / "swept")) == 3


@with_ray
def test_a_node_that_goes_costs_time_alone(cluster: Any, second: Any, tmp_path: Path) -> None:
    """Each node has one CPU: two runs at once are one on each."""
    configs = [config(0, steps=SOME), config(1, steps=SOME)]
    going: set[int] = set()
    warned: list[str] = []

    def stepped(config: RunConfig, steps: int) -> None:
        going.add(config.seed)
        if second in cluster.worker_nodes and len(going) == 2:  # both import torch: seconds are left
            cluster.remove_node(second, allow_graceful=False)

    crew = ray_crew(cluster.address, stepped=stepped, warn=warned.append)
    done = run_sweep(tmp_path, configs, jobs=2, recruit=crew)
    assert (done.failed, list(done.runs)) == ({}, configs), warned
    assert second not in cluster.worker_nodes
    (line,) = warned
    assert re.fullmatch(
        r"digits-mlp, none, seed [01]: its worker or node was lost .*; it is trained once more", line
    )
    assert states(tmp_path) == [(0, "finished"), (1, "finished")]
    for asked, run in done.runs.items():
        assert len(run.steps()) == SOME
        assert asked == run.config


@pytest.mark.slow
@with_ray
def test_a_worker_that_is_killed_is_replaced_once(cluster: Any, tmp_path: Path) -> None:
    """It is killed as it imports torch or in its first steps, of which there are enough."""
    killed: dict[int, list[int]] = {1: [], 2: []}

    def stepped(config: RunConfig, steps: int) -> None:
        for worker in training(config.seed):
            if worker.pid not in killed[config.seed] and len(killed[config.seed]) < config.seed:
                killed[config.seed].append(worker.pid)
                worker.kill()

    warned: list[str] = []
    twice, once = config(2, steps=SOME), config(1, steps=SOME)
    crew = ray_crew(cluster.address, stepped=stepped, warn=warned.append)
    done = run_sweep(tmp_path, [twice, once], recruit=crew)
    assert {seed: len(pids) for seed, pids in killed.items()} == {1: 1, 2: 2}
    assert list(done.runs) == [once]
    assert done.failed[twice].startswith("it was lost 2 times: its worker or node was lost (")
    assert {line.split(":")[0] for line in warned} == {"digits-mlp, none, seed 1", "digits-mlp, none, seed 2"}
    assert len(warned) == 2
    assert states(tmp_path) == [(1, "finished")]


@pytest.mark.slow
@with_ray
def test_a_sweep_that_lost_its_driver_goes_on(cluster: Any, tmp_path: Path) -> None:
    asked = command(cluster.address, tmp_path, "--seeds", "0,1,2", "--steps", str(SOME), "--jobs", "1")
    driver = subprocess.Popen(asked, env=clean_environment())
    wait_for(lambda: finished_runs(tmp_path) and (training(1) or training(2)))
    workers = training(1) + training(2)
    driver.kill()
    driver.wait()
    psutil.wait_procs(workers, timeout=PATIENCE)
    assert not training(1) + training(2)
    before = finished_runs(tmp_path)
    assert 1 <= len(before) < 3

    done = subprocess.run([*asked, "--json"], env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = strict(done.stdout.splitlines()[-1])
    assert isinstance(document, dict)
    assert document["reused"] == len(before)
    assert states(tmp_path) == [(0, "finished"), (1, "finished"), (2, "finished")]
    after = finished_runs(tmp_path)
    assert all(after[config].run_id == run.run_id for config, run in before.items())


@pytest.mark.slow
@with_ray
def test_ctrl_c_cancels_tasks_and_keeps_what_is_finished(cluster: Any, tmp_path: Path) -> None:
    before = left_in_scratch()
    asked = command(cluster.address, tmp_path, "--seeds", "0,1,2", "--steps", str(SOME), "--jobs", "1")
    driver = subprocess.Popen(asked, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: finished_runs(tmp_path) and training(1))
    workers = training(1)
    os.kill(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130
    assert errors.splitlines()[-1] == "lsviz: stopped; the same command goes on with what is missing"
    psutil.wait_procs(workers, timeout=PATIENCE)
    assert not training(1) + training(2)
    kept = states(tmp_path)  # the second may have ended in that moment
    assert kept in ([(0, "finished")], [(0, "finished"), (1, "finished")])
    assert len(finished_runs(tmp_path)) == len(kept)
    wait_for(lambda: left_in_scratch() <= before)


@pytest.mark.slow
@with_ray
def test_ctrl_c_ends_a_run_under_way(cluster: Any, tmp_path: Path) -> None:
    """The run would take many minutes; Ctrl+C reaches all that the terminal started, as it does there."""
    before = left_in_scratch()
    asked = command(cluster.address, tmp_path, "--seeds", "1", "--steps", str(LONG))
    driver = subprocess.Popen(
        asked, env=clean_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: training(1) and left_in_scratch() - before)
    os.killpg(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130
    assert errors.splitlines() == ["lsviz: stopped; the same command goes on with what is missing"]
    wait_for(lambda: not training(1) and left_in_scratch() <= before)
    assert states(tmp_path) == []


@with_ray
def test_a_demand_that_no_node_can_meet_is_refused(cluster: Any, tmp_path: Path) -> None:
    asked = command(cluster.address, tmp_path, "--device", "cuda", "--gpus", "0.5")
    done = subprocess.run(asked, env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr == (
        "lsviz: no node of the Ray cluster has the 1 CPU and 0.5 GPU that a run takes "
        "(it has 1 CPU, 0 GPU): add a node, or train with --device cpu\n"
    )
    assert states(tmp_path) == []


@pytest.mark.slow
@with_ray
def test_a_stranger_without_the_clusters_token_is_refused(cluster: Any, tmp_path: Path) -> None:
    stranger = {**clean_environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
    asked = command(cluster.address, tmp_path, "--steps", "2")
    done = subprocess.run(asked, env=stranger, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    *rays_own, last = done.stderr.splitlines()
    assert last.startswith(f"lsviz: can't reach a Ray cluster at '{cluster.address}'")
    assert "has this machine the cluster's token" in last
    assert not any("Traceback" in line for line in rays_own)
    assert states(tmp_path) == []


@pytest.mark.slow
@with_ray
def test_a_run_at_cuda_goes_where_the_gpus_are(cluster: Any, tmp_path: Path) -> None:
    """The GPU is made up: the run is given to its node, and fails there as it would in this process."""
    node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
    try:
        asked = config(0, device="cuda")
        done = run_sweep(tmp_path, [asked], recruit=ray_crew(cluster.address, gpus=0.5))
    finally:
        cluster.remove_node(node)
    assert "device 'cuda' is absent" in done.failed[asked]
    (run,) = RunStore.at(tmp_path).list_runs()  # sent back all the same, for its log
    assert run.status.state == "failed"
    assert "DeviceError" in run.log_tail()


@pytest.mark.slow
@with_ray
def test_when_the_last_node_that_could_is_gone_the_sweep_ends(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(order: dict[str, Any], board: Any) -> None:
        board.note.remote(order["key"], 1)
        time.sleep(3600)

    monkeypatch.setattr("lsviz.jobs.ray.train_apart", hang)
    monkeypatch.setattr("lsviz.jobs.ray.UNMET_SECONDS", 0.5)
    node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)

    def stepped(config: RunConfig, steps: int) -> None:
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)

    message = "the last node of the Ray cluster that has the 1 CPU and 1 GPU that a run takes is gone"
    with pytest.raises(RayError, match=message):
        run_sweep(tmp_path, [config(0, device="cuda")], recruit=ray_crew(cluster.address, stepped=stepped))


@with_ray
def test_what_a_node_sends_is_looked_through(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = io.BytesIO()
    export_zip(train_run(tmp_path / "other", **config(7).model_dump()), other)
    sent = {0: b"no zip", 1: other.getvalue(), 2: None}

    def answer(order: dict[str, Any], board: object) -> dict[str, Any]:
        return {"state": "finished", "error": None, "node": "n1", "run": sent[order["key"]]}

    monkeypatch.setattr("lsviz.jobs.ray.train_apart", answer)
    asked = [config(0), config(1), config(2)]
    done = run_sweep(tmp_path / "runs", asked, recruit=ray_crew(cluster.address))
    assert done.runs == {}
    assert done.failed[asked[0]] == "'what n1 sent' is no exported run: it is no zip"
    assert done.failed[asked[1]] == "what n1 sent is not the whole run that it was asked for"
    assert done.failed[asked[2]] == "n1 sent no run"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [SWEEP_LOCK]


@with_ray
def test_a_node_with_another_lsviz_ends_the_sweep(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsviz.jobs.ray.__version__", "99.0")
    with pytest.raises(RayError, match=r"has lsviz .*, and 99\.0 asks: install the same there"):
        run_sweep(tmp_path, [config(0), config(1)], recruit=ray_crew(cluster.address))
    assert states(tmp_path) == []


@pytest.mark.slow
@with_ray
def test_without_an_address_a_cluster_lives_as_long_as_the_sweep(tmp_path: Path) -> None:
    code = (
        "import os, psutil, sys; from lsviz.cli import main; code = main(sys.argv[1:]);"
        "assert 'ray' in sys.modules and 'torch' not in sys.modules;"
        "assert os.environ['RAY_AUTH_MODE'] == 'token' and len(os.environ['RAY_AUTH_TOKEN']) == 64;"
        "assert not [p for p in psutil.Process().children(recursive=True) if p.name() == 'raylet'];"
        "sys.exit(code)"
    )
    words = command("local", tmp_path / "runs", "--seeds", "0", "--steps", "6")[3:]
    environment = clean_environment(HOME=str(tmp_path), RAY_AUTH_MODE="disabled")
    environment.pop("RAY_AUTH_TOKEN", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert states(tmp_path / "runs") == [(0, "finished")]
    assert not (tmp_path / ".ray").exists()  # the token is this sweep's alone


@with_ray
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("here", "is neither host:port"),
        ("here:99999", "is neither host:port"),
        ("ray://head:10001", "is none of a node"),
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
    ],
)
def test_where_no_cluster_is_one_line_says_so(address: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RayError, match=message):
        run_sweep(tmp_path, [config()], recruit=ray_crew(address))
