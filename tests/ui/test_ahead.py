"""Runs beside the chosen one are read before anybody asks for them."""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import pytest

from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore
from lsviz.ui import ahead, blaming, drawing, layering, replaying
from lsviz.ui.ahead import Reader, read_neighbours
from tests.conftest import PATIENCE, SAMPLES
from tests.ui.opening import open_page


def test_it_does_all_that_was_asked_last_and_goes_on_after_a_fault() -> None:
    reader, done, begun, go_on = Reader(after=0), list[int](), threading.Event(), threading.Event()

    def first() -> None:
        done.append(1)
        begun.set()
        go_on.wait(PATIENCE)

    reader.ask([first, lambda: done.append(2)])
    assert begun.wait(PATIENCE)
    reader.ask([lambda: 1 // 0, lambda: done.append(3), lambda: done.append(4)])
    go_on.set()
    assert reader.rest(PATIENCE)
    assert done == [1, 3, 4]
    reader.ask([lambda: done.append(5)])
    assert reader.rest(PATIENCE)
    assert done[-1] == 5


def test_it_reads_what_stands_beside_the_chosen_one_and_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, read = Reader(after=0), list[Run]()
    monkeypatch.setattr(ahead, "READER", reader)
    runs = RunStore.at(SAMPLES).list_runs()[:5]
    read_neighbours(runs, runs[2], read.append)
    assert reader.rest(PATIENCE)
    assert read == [runs[3], runs[1]]
    read_neighbours(runs, runs[4], read.append)
    assert reader.rest(PATIENCE)
    assert read[2:] == [runs[3]]
    monkeypatch.setattr(Run, "small", False)
    read_neighbours(runs, runs[2], read.append)
    assert reader.rest(PATIENCE)
    assert len(read) == 3


@pytest.mark.parametrize(
    ("page", "module", "reading"),
    [("replay", replaying, "load_series"), ("replay", replaying, "replay"), ("blame", blaming, "judge_run")],
)
def test_the_next_run_of_a_list_is_there_already(
    page: str, module: object, reading: str, runs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page(page)
    assert ahead.READER.rest(PATIENCE)
    monkeypatch.setattr(module, reading, None)
    before = app.header[0].value
    run = app.selectbox(key="seen")
    app.selectbox(key="seen").select_index((run.index or 0) + 1).run()
    assert not app.exception
    assert app.header[0].value != before


def test_a_small_runs_steps_are_those_that_a_read_of_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunStore.at(SAMPLES).list_runs()[0]
    step = run.recorded_steps()[2]
    kept = layering._at_step("here", 0.0, step, run)
    monkeypatch.setattr(Run, "small", False)
    pd.testing.assert_frame_equal(kept, layering._at_step("there", 0.0, step, run))
    assert len(kept)


@pytest.mark.parametrize("page", ["explore", "compare"])
def test_the_next_step_is_drawn_already(page: str, runs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(page)
    assert ahead.READER.rest(PATIENCE)
    monkeypatch.setattr(drawing, "spectra_figure", None)
    monkeypatch.setattr(drawing, "view_shares", None)
    said = app.caption[0].value
    places = app.select_slider(key="step")
    places.set_value(places.options[places.options.index(str(places.value)) + 1]).run()
    assert not app.exception
    assert app.caption[0].value != said
