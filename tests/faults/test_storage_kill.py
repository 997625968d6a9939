"""What a writer has acknowledged is read back, whenever its process is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lsviz.jobs.manager import settle_run
from lsviz.runs.reader import open_run
from lsviz.runs.writer import create_run
from tests.faults.forking import Writers, wait_until, writers
from tests.faults.rows import CONFIG, cells, read_tables, surplus, write_run
from tests.faults.writing import acknowledged

ROWS = {"steps": 1, "exponents": 6, "amax": 3, "outcomes": 1, "updates": 1}
STEPS = 400

Written = dict[str, dict[tuple[Any, ...], int]]
"""Of each table every row, and its step."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """All that a writer of these tests may ever have written."""
    tables = read_tables(write_run(tmp_path_factory.mktemp("whole"), STEPS, each=50))
    return {name: dict(zip(cells(t), t["step"], strict=True)) for name, t in tables.items()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Writers]:
    with writers(tmp_path) as started:
        yield started


def check(path: Path, told: Path, written: Written) -> str:
    """Check every row, before and after the run is settled, and return the state that it was left in."""
    run = open_run(path)
    state = run.status.state
    count = acknowledged(told)
    for settled in (False, True):
        if settled and run.status.live:
            settle_run(run, "interrupted", None)
        for name, frame in read_tables(run).items():
            found = cells(frame)
            assert not surplus(found, written[name]), (name, settled)
            due = [row for row, step in written[name].items() if step < count]
            assert set(due) <= set(found), (name, settled, count)
            assert len(due) == count * ROWS[name]
        assert not run.problems
    assert not list(path.glob("*-0*.parquet"))
    assert not list(path.glob(".*.tmp"))
    return state


def kill_once(server: Writers, root: Path, chance: random.Random, written: Written, *, at_end: bool) -> str:
    """Kill a writer at some moment and return the state that its run was left in."""
    path = create_run(root / "runs", CONFIG)
    told = root / f"{path.name}.told"
    steps = 40 if at_end else STEPS
    process = server.start("write_steps", path, told, steps, chance.choice((1, 2, 5)))
    if at_end:
        wait_until(lambda: told.exists() and "ends" in told.read_text())
        time.sleep(chance.random() * 0.25)
    else:
        wait_until(lambda: acknowledged(told) > 0)
        time.sleep(chance.random() * 0.25)
    with suppress(ProcessLookupError):  # it may have ended in that quarter of a second
        os.kill(process, signal.SIGKILL)
    assert server.ended() in (-signal.SIGKILL, 0)
    return check(path, told, written)


def die_at(server: Writers, root: Path, moment: int, written: Written) -> bool:
    """Have a writer of few steps killed at its so-manyth file, and return whether it had as many."""
    path = create_run(root / "runs", CONFIG)
    told = root / f"{path.name}.told"
    server.start("write_and_die", path, told, 4, 2, moment)
    code = server.ended()
    check(path, told, written)
    return code == -signal.SIGKILL


def test_rows_that_were_acknowledged_outlive_a_kill(
    server: Writers, tmp_path: Path, written: Written
) -> None:
    chance = random.Random(9)
    states = [kill_once(server, tmp_path, chance, written, at_end=place > 1) for place in range(3)]
    assert "running" in states


def test_rows_outlive_a_kill_at_one_file_or_another(
    server: Writers, tmp_path: Path, written: Written
) -> None:
    moments = [moment for moment in range(2, 120, 9) if die_at(server, tmp_path, moment, written)]
    assert len(moments) > 5


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_rows_outlive_50_kills_at_random_moments_and_50_at_the_end(
    server: Writers, tmp_path: Path, written: Written
) -> None:
    chance = random.Random(90)
    states = [kill_once(server, tmp_path, chance, written, at_end=place >= 50) for place in range(100)]
    assert states[:50].count("running") > 40
    assert 5 <= states[50:].count("running") < 50, "the moments miss the end"


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_rows_outlive_a_kill_before_every_single_file(
    server: Writers, tmp_path: Path, written: Written
) -> None:
    moment = 1
    while die_at(server, tmp_path, moment, written):
        moment += 1
    assert moment > 50
