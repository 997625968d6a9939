"""Drivers of sweeps that a page starts, on a Ray cluster of two nodes: to the end, cancelled, and killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from lsviz.jobs.sweep import finished_runs
from lsviz.jobs.sweeping import Sweep, cancel_sweep, list_sweeps, resume_sweep, start_sweep
from lsviz.runs.process import send_signal
from tests.conftest import PATIENCE
from tests.jobs.test_ray import LONG, SOME, config, left_in_scratch, states, training, wait_for, with_ray

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray.*"),
]


@pytest.fixture
def address(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The cluster as this machine's owner names it for all pages."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return str(cluster.address)


def look(root: Path) -> Sweep:
    (sweep,), broken = list_sweeps(root)
    assert broken == []
    return sweep


@with_ray
def test_a_driver_trains_all_and_tells_how_far_it_is(address: str, second: Any, tmp_path: Path) -> None:
    asked = [config(0, steps=SOME), config(1, steps=SOME), config(2), config(1, steps=SOME)]
    assert start_sweep(tmp_path, asked).record.live
    seen: set[tuple[str, bool]] = set()

    def over() -> bool:
        sweep = look(tmp_path)
        seen.update((part.state, 0 < part.step < SOME) for part in sweep.record.parts[:2])
        return not sweep.record.live

    wait_for(over)
    record = look(tmp_path).record
    assert (record.state, record.error, record.notes, record.cluster) == ("finished", None, [], address)
    assert {("running", True), ("finished", False)} <= seen
    assert [part.config for part in record.parts] == asked[:3]
    assert record.whole
    assert {run.config: run.run_id for run in finished_runs(tmp_path).values()} == {
        part.config: part.run_id for part in record.parts
    }
    assert states(tmp_path) == [(0, "finished"), (1, "finished"), (2, "finished")]
    assert record.pid is None


@pytest.mark.slow
@with_ray
def test_cancel_ends_what_is_under_way_and_leaves_nothing(address: str, tmp_path: Path) -> None:
    before = left_in_scratch()
    start_sweep(tmp_path, [config(1, steps=LONG)])
    wait_for(lambda: training(1) and left_in_scratch() - before)
    cancel_sweep(look(tmp_path))
    wait_for(lambda: not look(tmp_path).record.live)
    record = look(tmp_path).record
    assert (record.state, record.error, record.landed) == ("cancelled", None, [])
    wait_for(lambda: not training(1) and left_in_scratch() <= before)
    assert states(tmp_path) == []


@pytest.mark.slow
@with_ray
def test_a_sweep_whose_driver_was_killed_goes_on(address: str, tmp_path: Path) -> None:
    before = left_in_scratch()
    asked = [config(seed, steps=SOME) for seed in (0, 1, 2)]
    start_sweep(tmp_path, asked)
    wait_for(lambda: look(tmp_path).record.landed and (training(1) or training(2)))
    workers = training(1) + training(2)
    assert send_signal(look(tmp_path).record, signal.SIGKILL)
    wait_for(lambda: look(tmp_path).record.state == "interrupted")
    psutil.wait_procs(workers, timeout=PATIENCE)
    wait_for(lambda: left_in_scratch() <= before)  # nobody trains there now, and all is gone
    kept = {run.run_id for run in finished_runs(tmp_path).values()}
    assert 1 <= len(kept) < 3

    resume_sweep(look(tmp_path))
    wait_for(lambda: not look(tmp_path).record.live)
    record = look(tmp_path).record
    assert (record.state, record.error, record.whole) == ("finished", None, True)
    assert kept <= set(record.landed)
    assert states(tmp_path) == [(0, "finished"), (1, "finished"), (2, "finished")]
