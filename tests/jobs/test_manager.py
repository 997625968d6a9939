"""Detached runs, for real: each test starts processes and watches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lsviz.jobs.manager import cancel_run, live_status, submit_run
from lsviz.runs.config import RunConfig
from lsviz.runs.files import write_json
from lsviz.runs.reader import Run, open_run
from lsviz.runs.writer import create_run
from tests.conftest import PATIENCE


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def start(root: Path, **settings: object) -> Run:
    values = {"task": "sigmoid-mlp", "steps": 20_000, "record_every": 50, "reference_every": 50, **settings}
    return submit_run(root, RunConfig.build(**values))


def wait_for_steps(run: Run) -> None:
    wait_until(lambda: live_status(run).step > 0)


def test_a_run_finishes_in_a_process_of_its_own(tmp_path: Path) -> None:
    run = start(tmp_path, task="digits-mlp", steps=30, record_every=10)
    wait_until(lambda: not live_status(run).live)
    status = live_status(run)
    assert (status.state, status.step, status.error) == ("finished", 30, None)
    assert run.recorded_steps() == [0, 10, 20]
    assert run.record.device == "cpu"
    assert run.record.metric_name == "accuracy"
    assert run.record.versions["torch"]


def test_cancel_stops_it_with_whole_rows(tmp_path: Path) -> None:
    run = start(tmp_path)
    wait_for_steps(run)
    pid = run.status.pid
    assert pid is not None
    assert psutil.Process(pid).pid == os.getsid(pid), "a session of its own"
    assert cancel_run(run)
    wait_until(lambda: not live_status(run).live)
    status = live_status(run)
    assert status.state == "cancelled"
    assert len(run.steps()) == status.step
    assert not run.problems
    assert not cancel_run(run)


def test_a_killed_run_is_recognised_and_keeps_what_it_wrote(tmp_path: Path) -> None:
    run = start(tmp_path)
    wait_for_steps(run)
    seen = len(run.steps())
    pid = run.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not live_status(run).live)
    status = open_run(run.path).status
    assert status.state == "interrupted"
    assert "died without a word" in (status.error or "")
    assert len(run.steps()) >= seen
    assert not list(run.path.glob("steps-*.parquet"))


def test_a_failure_is_told_in_status_and_log(tmp_path: Path) -> None:
    run = start(tmp_path, task="unknown-task")
    wait_until(lambda: not live_status(run).live)
    status = live_status(run)
    assert status.state == "failed"
    assert "unknown task 'unknown-task'; choose one of" in (status.error or "")
    wait_until(lambda: "Traceback" in run.log_tail(100))


def test_a_reused_pid_is_not_taken_for_the_run(tmp_path: Path) -> None:
    path = create_run(tmp_path, RunConfig.build(task="sigmoid-mlp"))
    run = open_run(path)
    me = psutil.Process()
    status = run.status.model_copy(
        update={
            "state": "running",
            "pid": me.pid,
            "process_start": me.create_time() - 1000,
            "host": os.uname().nodename,
        }
    )
    write_json(path / "status.json", status.model_dump())
    assert live_status(run).state == "interrupted"


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    path = create_run(tmp_path, RunConfig.build(task="sigmoid-mlp"))
    run = open_run(path)
    me = psutil.Process()
    values = {
        "state": "running",
        "pid": me.pid,
        "process_start": me.create_time(),
        "host": os.uname().nodename,
    }
    write_json(path / "status.json", run.status.model_copy(update=values).model_dump())
    assert live_status(run).state == "running"
    values["host"] = "another-machine"
    values["pid"] = 2**22 - 1
    write_json(path / "status.json", run.status.model_copy(update=values).model_dump())
    assert live_status(run).state == "running", "another machine's processes can't be seen from here"


def test_a_run_that_never_started_is_recognised(tmp_path: Path) -> None:
    path = create_run(tmp_path, RunConfig.build(task="sigmoid-mlp"))
    run = open_run(path)
    assert live_status(run).state == "queued"
    old = run.status.model_copy(update={"updated": time.time() - 3600})
    write_json(path / "status.json", old.model_dump())
    assert live_status(run).state == "interrupted"
    assert "never started" in (live_status(run).error or "")


def test_a_run_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lsviz.jobs.manager import submit_run;"
        "from lsviz.runs.config import RunConfig;"
        "print(submit_run(Path(sys.argv[1]), RunConfig.build(task='digits-mlp', steps=40)).path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    run = open_run(done.stdout.strip())
    wait_until(lambda: not live_status(run).live)
    assert live_status(run).state == "finished"


@pytest.mark.parametrize("module", ["lsviz.jobs.manager", "lsviz.runs.store"])
def test_the_manager_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0
