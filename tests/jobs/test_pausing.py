"""Pausing, for real: each test starts processes and watches them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from lsviz.jobs.manager import cancel_run, live_status, settle_run
from lsviz.jobs.pausing import is_pausing, pause_run, resume_run
from lsviz.jobs.worker import StopFlag, execute_run
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import open_run
from lsviz.runs.schema import OWN_LOOP, PAUSE, RunStatus
from lsviz.runs.writer import RunWriter, create_run
from tests.jobs.test_manager import start, wait_for_steps, wait_until


def test_a_paused_run_waits_and_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    run = start(tmp_path / "paused", task="digits-mlp", steps=60)
    assert pause_run(run), "also before it has begun"
    wait_until(lambda: live_status(run).paused)
    status = live_status(run)
    assert (status.state, status.live) == ("running", True)
    assert len(run.steps()) == status.step > 0, "what was done is on the disk"
    time.sleep(1.0)
    assert live_status(run).step == status.step
    resume_run(run)
    wait_until(lambda: not live_status(run).live)
    assert (live_status(run).state, live_status(run).paused) == ("finished", False)
    assert run.steps()["ms"].max() < 1000, "waiting is no part of a step's time"

    path = create_run(tmp_path / "straight", run.config)
    execute_run(path, StopFlag())
    np.testing.assert_array_equal(run.steps()["loss"], open_run(path).steps()["loss"])


def test_a_paused_run_can_be_cancelled(tmp_path: Path) -> None:
    run = start(tmp_path)
    wait_for_steps(run)
    assert pause_run(run)
    wait_until(lambda: live_status(run).paused)
    assert cancel_run(run)
    wait_until(lambda: not live_status(run).live)
    status = live_status(run)
    assert (status.state, status.paused) == ("cancelled", False)
    assert len(run.steps()) == status.step
    assert not is_pausing(run), "nothing is left behind"
    assert not pause_run(run), "what has ended does not wait"


def test_a_dead_run_is_not_paused(tmp_path: Path) -> None:
    run = open_run(create_run(tmp_path, RunConfig.build(task="sigmoid-mlp")))
    assert pause_run(run)
    assert not settle_run(run, "interrupted", "gone").paused
    assert not is_pausing(run)


def test_a_recorded_loop_is_neither_cancelled_nor_paused(tmp_path: Path) -> None:
    path = create_run(tmp_path, RunConfig.build(task="sigmoid-mlp"))
    with RunWriter(path, open_ended=True) as writer:
        writer.describe(
            versions={}, device="cpu", device_name="", engine=OWN_LOOP, metric_name=None, whole=True
        )
        run = open_run(path)
        assert live_status(run).live
        assert not cancel_run(run), "the process is its user's: this one, here"
        assert not pause_run(run)
        assert not (path / PAUSE).exists()


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(create_run(tmp_path, RunConfig.build(task="sigmoid-mlp")))
    (run.path / PAUSE).mkdir()
    with pytest.raises(Exception, match="can't resume"):
        resume_run(run)


def test_an_old_status_is_not_paused() -> None:
    assert not RunStatus.model_validate({"state": "running", "steps": 3}).paused


def test_the_log_tells_how_a_run_went(tmp_path: Path) -> None:
    run = start(tmp_path, task="digits-mlp", policy="constant:2^40", steps=40, record_every=0)
    wait_until(lambda: not live_status(run).live)
    lines = run.log_tail(100)
    assert "digits-mlp, constant:2^40, fp16, seed 0: 40 steps" in lines.replace("1099511627776", "2^40")
    assert "step 0 is the first to be skipped: Inf or NaN" in lines
    assert "step 40 of 40: metric 0" in lines
    assert "40 skipped" in lines
    wait_until(lambda: run.log_tail(100).rstrip().endswith("finished"))  # written after the status
