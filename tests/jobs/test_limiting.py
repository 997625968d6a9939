"""What a run may take: each limit ends or cuts a real one, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsviz.jobs.limiting import LimitError, LimitWatch
from lsviz.jobs.manager import cancel_run, live_status, submit_run
from lsviz.jobs.worker import StopFlag, execute_run
from lsviz.runs.limits import RunLimits
from lsviz.runs.reader import open_run
from lsviz.runs.writer import create_run
from tests.commands import forked
from tests.faults.jobs import tiny, wait_until


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (RunLimits(hours=0.0001), "and 0 s is the longest that it may (LSVIZ_MAX_HOURS, or --max-hours)"),
        (RunLimits(memory_gib=0.01), "GiB of memory, and 0.01 GiB is the most that it may"),
    ],
)
def test_a_run_that_takes_too_much_fails_in_one_sentence(
    limits: RunLimits, told: str, tmp_path: Path
) -> None:
    path = create_run(tmp_path, tiny(steps=100_000, record_every=10), limits=limits)
    with pytest.raises(LimitError):
        execute_run(path, StopFlag())
    run = open_run(path)
    assert run.status.state == "failed"
    assert told in (run.status.error or "")
    assert "LimitError" not in (run.status.error or "")
    assert len(run.steps()) == run.status.step > 0, "what was recorded is kept"


def test_a_limit_is_an_option(tmp_path: Path) -> None:
    arguments = ["run", "--task", "digits-mlp", "--steps", "100000", "--record-every", "0"]
    done = forked(*arguments, "--max-hours", "0.0001", cwd=tmp_path)
    assert done.returncode == 2
    assert "is the longest that it may" in done.stderr.splitlines()[-1]
    (folder,) = (tmp_path / "runs").glob("2*")
    assert json.loads((folder / "run.json").read_text())["limits"]["hours"] == 0.0001
    wrong = forked(*arguments, "--max-memory", "0", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "memory_gib: should be greater than 0" in wrong.stderr


def test_a_log_that_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    limits = RunLimits(log_mib=1 / 1024, hours=1)
    run = submit_run(tmp_path, tiny(steps=20_000, reference_every=0), limits=limits)
    log = run.path / "log.txt"
    wait_until(lambda: run.status.step)
    with log.open("ab") as file:  # as a child of it might
        file.write(b"x" * 5000)
    wait_until(lambda: b"nothing more is written to it" in log.read_bytes())
    assert 1024 < log.stat().st_size < 1300
    with log.open("ab") as file:
        file.write(b"y" * 5000)
    wait_until(lambda: log.stat().st_size < 1300)
    assert log.read_bytes().endswith(b"nothing more is written to it\n")
    assert run.status.state == "running", "training goes on"
    assert cancel_run(run)
    wait_until(lambda: not live_status(run).live)


def test_a_look_costs_nothing_most_of_the_time(tmp_path: Path) -> None:
    watch = LimitWatch(RunLimits(memory_gib=0.001), tmp_path / "log.txt")
    for _ in range(1000):
        watch.check()  # it has not come to look yet
