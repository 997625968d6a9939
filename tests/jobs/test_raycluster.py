"""What can be said of sweeps on Ray without a cluster: what is asked wrongly, room on nodes, scratch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from lsviz.cli import main
from lsviz.jobs.raycluster import Demand, room
from lsviz.jobs.rayscratch import LOCK, SCRATCH, scratch
from lsviz.runs.config import RunConfig
from tests.conftest import PATIENCE


def at(device: str) -> RunConfig:
    return RunConfig.build(task="digits-mlp", device=device)


def test_without_ray_one_line_tells_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from lsviz.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["sweep", "--engine", "ray", "--task", "digits-mlp", "--policies", "none", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "lsviz: the engine ray needs Ray, which is not installed: pip install 'lsviz[ray]'\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "slurm"], "engine: 'slurm' is unknown; choose local or ray"),
        (["--address", "auto"], "address: it is a Ray cluster's; give --engine ray too"),
        (["--engine", "ray", "--gpus", "0"], "gpus: 0 is no share of a GPU"),
        (["--engine", "ray", "--gpus", "2"], "gpus: 2 is no share of a GPU"),
    ],
)
def test_a_wrong_engine_is_one_line_and_exit_2(
    words: list[str], message: str, runs_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--task", "digits-mlp", "--policies", "none", *words]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1


def test_a_node_has_room_for_whole_runs() -> None:
    on_cpu = Demand.of(at("auto"), 0.4)
    shared, whole = (Demand.of(at("cuda"), share) for share in (0.4, 1.0))
    assert (on_cpu, shared.gpus) == (Demand(0.0), 0.4)
    small, large = {"CPU": 2.0, "memory": 1e9}, {"CPU": 64.0, "GPU": 2.0}
    assert [on_cpu.fitting(node) for node in (small, large, {})] == [2, 64, 0]
    assert [shared.fitting(node) for node in (small, large)] == [0, 4]  # two on each GPU, not five on both
    assert Demand(0.1).fitting(large) == 20
    assert whole.fitting({"CPU": 1.0, "GPU": 8.0}) == 1
    assert room([small, large], [on_cpu, whole]) == 66


def test_scratch_that_a_killed_worker_left_goes_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, held, fresh = (tmp_path / f"{SCRATCH}{name}" for name in ("old", "held", "fresh"))
    for folder in (old, held, fresh):
        (folder / "run").mkdir(parents=True)
    (tmp_path / f"{SCRATCH}link").symlink_to(fresh)
    with FileLock(held / LOCK):
        for folder in (old, held):
            os.utime(folder, (1, 1))
        with scratch() as mine:
            assert {path.name.removeprefix(SCRATCH) for path in tmp_path.iterdir()} == {
                *("held", "fresh", "link"),
                mine.name.removeprefix(SCRATCH),
            }
            assert mine.stat().st_mode & 0o77 == 0
    assert not mine.exists()
    assert held.exists()


def test_scratch_goes_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    """It trained in two folders, one after the other; the first went with its run."""
    code = """
import os, signal
from lsviz.jobs.rayscratch import scratch
with scratch() as first:
    (first / "run").mkdir()
with scratch() as second:
    (second / "run").mkdir()
    assert not first.exists() and second.exists()
    print(second.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "other").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.startswith(SCRATCH)
    end = time.monotonic() + PATIENCE
    while [path.name for path in tmp_path.iterdir()] != ["other"]:
        assert time.monotonic() < end
        time.sleep(0.05)
