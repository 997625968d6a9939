"""Sweeps that a page starts, without a cluster: drivers that find none, acts, what files hold."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from lsviz.errors import UserError
from lsviz.jobs import sweeping
from lsviz.jobs.launching import RAY_ADDRESS
from lsviz.jobs.sweep import LOCK as SWEEP_LOCK
from lsviz.jobs.sweeping import (
    FOLDER,
    KEPT_SECONDS,
    KILL_SECONDS,
    MAX_UNDER_WAY,
    START_SECONDS,
    Sweep,
    SweepActError,
    cancel_sweep,
    dismiss_sweep,
    list_sweeps,
    resume_sweep,
    start_sweep,
)
from lsviz.runs.config import RunConfig
from lsviz.runs.process import mark_of, own_mark
from lsviz.runs.schema import CANCEL
from lsviz.runs.store import RunStore
from lsviz.runs.sweeps import FILE_NAME, MAX_PARTS, Part, SweepRecord, read_sweep, write_sweep
from tests.conftest import PATIENCE, train_run

SETTINGS = {"task": "sigmoid-mlp", "steps": 3, "record_every": 0, "reference_every": 0}
NOBODY_THERE = "127.0.0.1:1"

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def config(seed: int = 0, **settings: object) -> RunConfig:
    return RunConfig.build(**{**SETTINGS, "seed": seed, **settings})


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def look(root: Path) -> Sweep:
    (sweep,), broken = list_sweeps(root)
    assert broken == []
    return sweep


def put(root: Path, name: str = "20260101-000000-abcdef", **changes: object) -> Path:
    """Write a sweep's file as a driver does."""
    now = time.time()
    values = {"created": now, "updated": now, "cluster": "local", "parts": [Part(config=config())], **changes}
    path = root / FOLDER / name
    path.mkdir(parents=True)
    write_sweep(path, SweepRecord.model_validate(values))
    return path


@with_ray
def test_where_no_cluster_answers_the_sweep_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RAY_ADDRESS, NOBODY_THERE)
    there = train_run(tmp_path, **SETTINGS)
    start_sweep(tmp_path, [config(0), config(1)])
    wait_for(lambda: not look(tmp_path).record.live)
    record = look(tmp_path).record
    assert record.state == "failed"
    assert (record.error or "").startswith(f"no Ray cluster answers at '{NOBODY_THERE}'")
    assert record.landed == [there.run_id]
    assert [run.run_id for run in RunStore.at(tmp_path).list_runs()] == [there.run_id]
    assert (record.cluster, record.pid) == (NOBODY_THERE, None)


def test_what_is_there_already_needs_no_cluster(tmp_path: Path) -> None:
    there = train_run(tmp_path, **SETTINGS)
    start_sweep(tmp_path, [config(), config()])
    wait_for(lambda: not look(tmp_path).record.live)
    record = look(tmp_path).record
    assert (record.state, record.landed, record.whole) == ("finished", [there.run_id], True)
    with pytest.raises(SweepActError, match="all runs of this sweep have finished"):
        resume_sweep(look(tmp_path))
    dismiss_sweep(look(tmp_path))
    assert list_sweeps(tmp_path) == ([], [])
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_sweep_waits_for_another_one_and_can_be_cancelled_then(tmp_path: Path) -> None:
    train_run(tmp_path, **SETTINGS)
    with FileLock(tmp_path / SWEEP_LOCK):
        start_sweep(tmp_path, [config()])
        wait_for(lambda: look(tmp_path).record.state == "waiting")
        for refused in (resume_sweep, dismiss_sweep):
            with pytest.raises(SweepActError, match="this sweep is under way"):
                refused(look(tmp_path))
        cancel_sweep(look(tmp_path))
        wait_for(lambda: look(tmp_path).record.state == "cancelled")
        resume_sweep(look(tmp_path))
        wait_for(lambda: look(tmp_path).record.state == "waiting")
    wait_for(lambda: look(tmp_path).record.state == "finished")


def test_a_cancel_before_the_driver_begins_is_seen_by_it(tmp_path: Path) -> None:
    with FileLock(tmp_path / SWEEP_LOCK):
        cancel_sweep(start_sweep(tmp_path, [config()]))
        wait_for(lambda: look(tmp_path).record.state == "cancelled")
    assert not look(tmp_path).ending


def test_a_driver_that_does_not_stop_is_killed_where_it_is_asked_again_later(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(3600)"
    stubborn = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    with stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()  # it has taken the signal away
        path = put(tmp_path, state="running", **mark_of(stubborn.pid))
        for _ in range(2):
            cancel_sweep(look(tmp_path))
            assert look(tmp_path).ending
        assert stubborn.poll() is None
        long_ago = time.time() - KILL_SECONDS - 1
        os.utime(path / CANCEL, (long_ago, long_ago))
        cancel_sweep(look(tmp_path))
        assert stubborn.wait(PATIENCE) == -signal.SIGKILL
    assert (look(tmp_path).record.state, look(tmp_path).ending) == ("cancelled", False)


def test_a_driver_that_died_or_never_began_is_told(tmp_path: Path) -> None:
    mark = own_mark()
    path = put(tmp_path, state="running", **mark)
    assert look(tmp_path).record.state == "running"
    write_sweep(path, read_sweep(path).model_copy(update={"start_ticks": 1}))
    found = look(tmp_path).record
    assert (found.state, found.live) == ("interrupted", False)
    assert "died without a word" in (found.error or "")
    assert read_sweep(path).state == "running"  # looking changes nothing
    (path / CANCEL).touch()
    assert look(tmp_path).record.state == "cancelled"
    (path / CANCEL).unlink()
    write_sweep(path, read_sweep(path).model_copy(update={"host": "elsewhere"}))
    assert look(tmp_path).record.state == "running"  # who can't be looked for
    long_ago = time.time() - START_SECONDS - 1
    nobody = {"pid": None, "state": "starting", "updated": long_ago}
    write_sweep(path, read_sweep(path).model_copy(update=nobody))
    assert "never started" in (look(tmp_path).record.error or "")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"state": "finished", "parts": [Part(config=config(), state="finished", run_id="r")]}, False),
        ({"state": "cancelled"}, False),
        ({"state": "finished"}, True),  # a run of it failed
        ({"state": "failed"}, True),
        ({"state": "running"}, True),  # its driver died
    ],
)
def test_what_came_to_its_end_a_day_ago_is_past(
    changes: dict[str, object], shown: bool, tmp_path: Path
) -> None:
    path = put(tmp_path, **changes, updated=time.time() - KEPT_SECONDS - 1)
    assert len(list_sweeps(tmp_path)[0]) == shown
    sweeping._refuse_full(tmp_path)
    assert path.exists() == shown


def test_no_run_is_listed_for_a_sweeps_folder(tmp_path: Path) -> None:
    put(tmp_path)
    store = RunStore.at(tmp_path)
    assert (list(store.folders()), store.list_broken()) == ([], [])


def test_so_many_sweeps_and_runs_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ([], [config(seed) for seed in range(MAX_PARTS + 1)]):
        with pytest.raises(SweepActError, match=f"has 1 to {MAX_PARTS} runs"):
            start_sweep(tmp_path, wrong)
    monkeypatch.setenv("LSVIZ_MAX_STEPS", "2")
    with pytest.raises(UserError, match="steps: 3 are more than the 2"):
        start_sweep(tmp_path, [config()])
    monkeypatch.delenv("LSVIZ_MAX_STEPS")
    for number in range(MAX_UNDER_WAY):
        put(tmp_path, f"20260101-000000-{number:06}", state="running", **own_mark())
    before = sorted((tmp_path / FOLDER).iterdir())
    with pytest.raises(SweepActError, match=f"{MAX_UNDER_WAY} sweeps are under way already"):
        start_sweep(tmp_path, [config()])
    assert sorted((tmp_path / FOLDER).iterdir()) == before


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"parts": []}', "\xff"])
def test_a_damaged_file_is_named_and_can_be_dismissed(content: str, tmp_path: Path) -> None:
    path = put(tmp_path)
    sound = look(tmp_path)
    (path / FILE_NAME).write_bytes(content.encode("latin-1"))
    sweeps, (line,) = list_sweeps(tmp_path)
    assert sweeps == []
    assert line == f"{str(path / FILE_NAME)!r} holds no sweep: remove its folder"
    dismiss_sweep(sound)
    assert not path.exists()
