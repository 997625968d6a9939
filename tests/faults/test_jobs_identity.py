"""Whether a run still trains, whatever became of its process. All processes here are real, and small."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lsviz.jobs.launching import RUN_ID
from lsviz.jobs.manager import cancel_run, live_status
from lsviz.jobs.processes import carriers
from lsviz.jobs.settling import KILLED
from lsviz.runs.files import write_json
from lsviz.runs.process import boot_id, is_alive, own_mark, send_signal
from lsviz.runs.reader import Run, open_run
from lsviz.runs.schema import OWN_LOOP
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import REPOSITORY, clean_environment
from tests.faults.jobs import end_all, tiny, wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WRITER = """
import os, signal, subprocess, sys, time
from pathlib import Path
from lsviz.runs.writer import RunWriter
path, acts = Path(sys.argv[1]), sys.argv[2:]
with RunWriter(path) as writer:
    if "deaf" in acts:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "fork" in acts and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if "setsid" in acts:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    if "group" in acts:
        subprocess.Popen(["sleep", "600"], env={})
    print("ready", flush=True)
    time.sleep(600)
"""
"""Writes a run as a worker does, without torch, and does what workers may do."""


@contextmanager
def writing(run: Run, *acts: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run.path), *acts],
        cwd=REPOSITORY,
        env=clean_environment(**{RUN_ID: run.run_id}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        end_all(run.path.parent)
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(create_run(tmp_path, tiny()))


def put_mark(run: Run, **changes: object) -> None:
    status = run.status.model_copy(update={"state": "running", **own_mark(), **changes})
    write_json(run.path / "status.json", status.model_dump())


@linux
def test_a_process_under_a_used_number_is_another_one(run: Run) -> None:
    put_mark(run)
    assert live_status(run).state == "running"
    ticks = own_mark()["start_ticks"]
    # Its start by the clock on the wall is the same: only the ticks tell, as where the clock was set.
    put_mark(run, start_ticks=ticks + 1)
    assert not send_signal(run.status, signal.SIGTERM), "which would end this very test"
    assert not cancel_run(run)
    assert run.status.state == "interrupted"


@linux
def test_what_trained_before_the_machine_was_restarted_is_over(run: Run) -> None:
    put_mark(run, boot_id="00000000-0000-4000-8000-000000000000")
    assert boot_id() is not None
    assert live_status(run).state == "interrupted"


@linux
def test_a_clock_that_was_set_kills_no_run(run: Run) -> None:
    put_mark(run, process_start=12345.0)
    assert live_status(run).state == "running"


def test_a_zombie_trains_no_more(run: Run) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = {"pid": process.pid, "process_start": psutil.Process(process.pid).create_time()}
    put_mark(run, **mark, start_ticks=None)
    assert live_status(run).state == "running", "a status of an older lsviz has no ticks"
    assert process.stdin is not None
    process.stdin.close()
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert live_status(run).state == "interrupted"
    process.wait()


def test_a_vanished_process_is_over_and_one_that_is_seen_by_its_lock_is_not(run: Run) -> None:
    with writing(run) as process:
        # As where its number can't be seen from here, in a container of its own: its lock can.
        hidden = run.status.model_copy(update={"pid": 2**22 - 1})
        write_json(run.path / "status.json", hidden.model_dump())
        assert not is_alive(run.status)
        assert live_status(run).state == "running"
        process.kill()
        process.wait()
        assert live_status(run).state == "interrupted"


def test_a_forked_child_does_not_make_a_dead_run_look_alive(run: Run) -> None:
    with writing(run, "fork", "setsid") as process:
        wait_until(lambda: len(carriers(run.run_id)) == 3)
        process.kill()
        process.wait()
        assert len(carriers(run.run_id)) == 2, "they have outlived it"
        assert live_status(run).state == "interrupted"
        wait_until(lambda: not carriers(run.run_id), 10)


def test_what_ignores_being_asked_is_killed_with_all_that_it_started(run: Run) -> None:
    with writing(run, "deaf", "fork", "setsid", "group") as process:
        wait_until(lambda: len(carriers(run.run_id)) == 3)
        group = [p for p in psutil.Process(process.pid).children() if os.getpgid(p.pid) == process.pid]
        assert len(group) == 2, "one of them without the run's id"
        bystander = subprocess.Popen(["sleep", "600"], env={**os.environ, RUN_ID: "another-run"})
        asked = time.monotonic()
        assert cancel_run(run, patience=1.5)
        assert live_status(run).live
        process.wait(60)  # nobody looks: a process of its own sees to it
        assert time.monotonic() - asked >= 1.5
        wait_until(lambda: not carriers(run.run_id) and not any(p.is_running() for p in group), 30)
        wait_until(lambda: run.status.state == "cancelled", 30)
        assert run.status.error == KILLED
        assert bystander.poll() is None
        bystander.kill()
        bystander.wait()


def test_a_recorded_loop_is_never_ended(tmp_path: Path) -> None:
    run = open_run(create_run(tmp_path, tiny(), engine=OWN_LOOP))
    with writing(run, "setsid") as process:
        assert not cancel_run(run, patience=0)
        process.kill()
        process.wait()
        assert live_status(run).state == "interrupted"
        assert len(carriers(run.run_id)) == 1, "what a user's loop started is the user's"


def test_a_waiting_or_ended_run_has_nobody_to_signal(run: Run) -> None:
    assert not send_signal(run.status, signal.SIGTERM)
    with RunWriter(run.path):
        pass
    assert run.status.pid is None
    assert not cancel_run(run)
