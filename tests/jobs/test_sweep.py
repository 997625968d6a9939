"""Sweeps with real worker processes: what is missing is trained, once, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from lsviz.jobs.manager import cancel_run
from lsviz.jobs.sweep import LOCK, SweepError, finished_runs, run_sweep
from lsviz.runs.config import RunConfig
from lsviz.runs.files import RunFolderError
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run
from tests.conftest import PATIENCE, REPOSITORY, clean_environment, train_run

LONG = 200_000


def config(seed: int = 0, **settings: object) -> RunConfig:
    values = {"steps": 6, "record_every": 0, "reference_every": 0, **settings}
    return RunConfig.build(task="digits-mlp", seed=seed, **values)


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the living workers of a process; another test's may be zombies, without a command."""
    workers = []
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            if "lsviz.jobs.worker" in child.cmdline():
                workers.append(child)
    return workers


def test_a_sweep_trains_each_config_once_and_a_second_one_nothing(tmp_path: Path) -> None:
    configs = [config(0), config(1), config(2), config(1)]
    told: list[tuple[int, bool]] = []
    first = run_sweep(
        tmp_path, configs, jobs=2, observe=lambda c, run, _: told.append((c.seed, run is not None))
    )
    assert list(first.runs) == configs[:3]
    assert (first.reused, first.failed, first.stopped) == (0, {}, False)
    assert sorted(told) == [(0, True), (1, True), (2, True)]
    assert len(folders(tmp_path)) == 3

    started: list[RunConfig] = []
    again = run_sweep(tmp_path, configs, jobs=2, started=started.append)
    assert (again.reused, started) == (3, [])
    assert {c: r.run_id for c, r in again.runs.items()} == {c: r.run_id for c, r in first.runs.items()}
    assert len(folders(tmp_path)) == 3


def test_a_run_of_a_sweep_is_the_run_trained_alone(tmp_path: Path) -> None:
    swept = run_sweep(tmp_path / "sweep", [config(3, policy="gradscaler")]).runs[
        config(3, policy="gradscaler")
    ]
    alone = train_run(tmp_path / "alone", **config(3, policy="gradscaler").model_dump())
    columns = ["step", "loss", "metric", "loss_scale", "skipped", "grad_norm"]
    assert swept.steps()[columns].equals(alone.steps()[columns])


def test_one_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    hopeless = config(0, policy="deepspeed:init_scale=2^40,min_scale=2^40,raise_at_min_scale=true", steps=40)
    done = run_sweep(tmp_path, [hopeless, config(1), config(2)], jobs=1)
    assert list(done.runs) == [config(1), config(2)]
    assert "scale" in done.failed[hopeless]
    log = next(run for run in RunStore.at(tmp_path).list_runs() if run.config == hopeless).log_tail()
    assert "PolicyStoppedError" in log


def test_a_worker_that_is_killed_costs_its_run_alone(tmp_path: Path) -> None:
    long = config(0, steps=LONG)

    others = workers_of(psutil.Process())  # what another test of this process has left running

    def kill() -> None:
        me = psutil.Process()
        wait_for(lambda: any(run.status.step for run in RunStore.at(tmp_path).list_runs()))
        for worker in workers_of(me):
            if worker not in others:
                worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    done = run_sweep(tmp_path, [long, config(1)], jobs=1)
    killer.join()
    assert "died" in done.failed[long]
    assert list(done.runs) == [config(1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_it_goes_on_where_it_was(tmp_path: Path, number: int) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.jobs.test_sweep import *;"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL);"  # which nohup, under which tests may run, ignores
        f"done = run_sweep(Path({str(tmp_path)!r}), [config(0), config(1, steps=LONG), config(2)], jobs=1);"
        "sys.exit(7 if done.stopped and list(done.runs) == [config(0)] else 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=clean_environment())
    under_way = {"running"}

    def second_is_running() -> bool:
        return any(
            run.config.seed == 1 and run.status.state in under_way and run.status.step
            for run in RunStore.at(tmp_path).list_runs()
        )

    wait_for(second_is_running)
    workers = workers_of(psutil.Process(process.pid))
    assert len(workers) == 1
    os.kill(process.pid, number)
    assert process.wait(PATIENCE) == 7
    psutil.wait_procs(workers, timeout=PATIENCE)
    assert not workers[0].is_running()
    states = {run.config.seed: run.status.state for run in RunStore.at(tmp_path).list_runs()}
    assert states == {0: "finished", 1: "cancelled"}

    before = finished_runs(tmp_path)[config(0)].run_id
    cancelled = next(r for r in RunStore.at(tmp_path).list_runs() if r.status.state == "cancelled").config
    assert cancelled not in finished_runs(tmp_path)
    began: list[RunConfig] = []

    def begin(config: RunConfig) -> None:
        began.append(config)
        if config == cancelled:
            os.kill(os.getpid(), signal.SIGTERM)

    rest = run_sweep(tmp_path, [config(0), config(2), cancelled], jobs=1, started=begin)
    assert began == [config(2), cancelled]  # a cancelled run is trained again
    assert rest.stopped
    assert rest.reused == 1
    assert rest.runs[config(0)].run_id == before


def test_workers_stop_when_the_sweep_is_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.jobs.test_sweep import *;"
        f"run_sweep(Path({str(tmp_path)!r}), [config(0, steps=LONG), config(1)], jobs=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=clean_environment())
    wait_for(lambda: any(run.status.step for run in RunStore.at(tmp_path).list_runs()))
    workers = workers_of(psutil.Process(process.pid))
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert gone
    assert not alive
    states = [run.status.state for run in RunStore.at(tmp_path).list_runs()]
    assert states == ["cancelled"]  # the run in hand; the next one never began
    assert RunStore.at(tmp_path).list_runs()[0].status.step < LONG


def test_a_sweep_killed_at_once_leaves_no_run_that_goes_on(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.jobs.test_sweep import *;"
        f"run_sweep(Path({str(tmp_path)!r}), [config(0, steps=3000)], jobs=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=clean_environment())
    wait_for(lambda: workers_of(psutil.Process(process.pid)))  # which now imports
    workers = workers_of(psutil.Process(process.pid))
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert not alive
    assert [run.status.state for run in RunStore.at(tmp_path).list_runs()] == ["queued"]


@pytest.mark.parametrize("who", ["sweep", "worker"])
def test_signals_on_each_others_heels_stop_it_too(who: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.jobs.test_sweep import *;"
        f"done = run_sweep(Path({str(tmp_path)!r}), [config(0, steps=LONG)], jobs=1);"
        "sys.exit(7 if done.stopped else 3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=clean_environment())
    wait_for(lambda: any(run.status.step for run in RunStore.at(tmp_path).list_runs()))
    (worker,) = workers_of(psutil.Process(process.pid))
    target = process.pid if who == "sweep" else worker.pid
    with contextlib.suppress(ProcessLookupError):  # it has ended, and has been waited for
        for _ in range(3000):
            os.kill(target, signal.SIGTERM)
    assert process.wait(PATIENCE) == (7 if who == "sweep" else 3)
    assert RunStore.at(tmp_path).list_runs()[0].status.state in ("cancelled", "interrupted")


def test_workers_do_not_import_what_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('the random.py of a user')")
    monkeypatch.chdir(tmp_path)
    assert list(run_sweep(tmp_path / "runs", [config()], jobs=1).runs) == [config()]


def test_a_finished_run_without_its_tables_is_trained_again(tmp_path: Path) -> None:
    first = train_run(tmp_path, **config().model_dump())
    assert list(finished_runs(tmp_path)) == [config()]
    for table in first.path.glob("*.parquet"):
        table.unlink()
    assert run_sweep(tmp_path, [config()], jobs=1).reused == 0


def test_stopped_when_nothing_is_missing_is_not_stopped(tmp_path: Path) -> None:
    def stop(config: RunConfig, run: Run | None, error: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    assert not run_sweep(tmp_path, [config()], jobs=1, observe=stop).stopped


def test_a_run_that_a_person_cancels_costs_itself_alone(tmp_path: Path) -> None:
    long = config(0, steps=LONG)

    def cancel() -> None:
        wait_for(lambda: any(run.status.step for run in RunStore.at(tmp_path).list_runs()))
        assert cancel_run(RunStore.at(tmp_path).list_runs()[0])

    canceller = threading.Thread(target=cancel)
    canceller.start()
    done = run_sweep(tmp_path, [long, config(1), config(2)], jobs=1)
    canceller.join()
    assert done.failed == {long: "cancelled"}
    assert list(done.runs) == [config(1), config(2)]


def test_a_run_whose_folder_goes_costs_itself_alone(tmp_path: Path) -> None:
    long = config(0, steps=LONG)

    def remove() -> None:
        wait_for(lambda: any(run.status.step for run in RunStore.at(tmp_path).list_runs()))
        shutil.rmtree(RunStore.at(tmp_path).list_runs()[0].path, ignore_errors=True)

    remover = threading.Thread(target=remove)
    remover.start()
    done = run_sweep(tmp_path, [long, config(1)], jobs=1)
    remover.join()
    assert list(done.failed) == [long]
    assert list(done.runs) == [config(1)]


def test_a_worker_that_can_not_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken" / "pyarrow").mkdir(parents=True)
    (tmp_path / "broken" / "pyarrow" / "__init__.py").write_text("raise ImportError('no such luck')")
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))  # workers look where this process does
    done = run_sweep(tmp_path / "runs", [config(0)], jobs=1)
    assert "ended before the run began" in done.failed[config(0)]
    (run,) = RunStore.at(tmp_path / "runs").list_runs()
    assert run.status.state == "interrupted"
    assert "no such luck" in run.log_tail()


def test_a_folder_that_can_not_be_written_any_more_ends_the_sweep(tmp_path: Path) -> None:
    root = tmp_path / "runs"

    def replace(config: RunConfig, run: Run | None, error: str) -> None:
        if root.is_dir():
            root.rename(tmp_path / "moved")  # at once: the next run may be writing in it already
            root.write_text("a file in its place")

    with pytest.raises(RunFolderError, match="can't write runs"):
        run_sweep(root, [config(seed) for seed in range(20)], jobs=1, observe=replace)


def test_a_run_that_can_not_be_read_is_trained_again(tmp_path: Path) -> None:
    first = train_run(tmp_path, **config(0, record_every=2).model_dump())
    assert list(finished_runs(tmp_path)) == [config(0, record_every=2)]
    whole = (first.path / "exponents.parquet").read_bytes()
    (first.path / "exponents.parquet").write_bytes(whole[: len(whole) // 2])
    again = run_sweep(tmp_path, [config(0, record_every=2)], jobs=1)
    assert again.reused == 0
    assert again.runs[config(0, record_every=2)].run_id != first.run_id


def test_an_error_of_its_own_ends_the_sweep_at_once(tmp_path: Path) -> None:
    def complain(config: RunConfig, run: Run | None, error: str) -> None:
        raise OSError("nobody listens")

    with pytest.raises(OSError, match="nobody listens"):
        run_sweep(tmp_path, [config(0), config(1, steps=LONG)], jobs=1, observe=complain)
    states = {run.config.seed: run.status.state for run in RunStore.at(tmp_path).list_runs()}
    assert states[0] == "finished"
    assert states.get(1, "cancelled") in ("cancelled", "queued")


def test_any_name_of_a_folder_is_run_or_refused(tmp_path: Path) -> None:
    for name in ("new\nline", "ä 漢"):
        assert list(run_sweep(tmp_path / name, [config()], jobs=1).runs) == [config()]
    with pytest.raises(RunFolderError, match="is no UTF-8"):
        run_sweep(tmp_path / os.fsdecode(b"bad\xff"), [config()], jobs=1)


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK), pytest.raises(SweepError, match="another sweep is at work"):
        run_sweep(tmp_path, [config()])


def test_what_can_not_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="jobs: 0"):
        run_sweep(tmp_path, [config()], jobs=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can't write runs"):
        run_sweep(tmp_path / "file", [config()])


def test_only_finished_runs_count(tmp_path: Path) -> None:
    assert finished_runs(tmp_path / "nothing") == {}
    finished = train_run(tmp_path, **config(0).model_dump())
    create_run(tmp_path, config(0))  # newer, and not begun
    create_run(tmp_path, config(1))
    found = finished_runs(tmp_path)
    assert {config: run.run_id for config, run in found.items()} == {config(0): finished.run_id}
