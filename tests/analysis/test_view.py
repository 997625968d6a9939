from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lsviz.analysis.view import RunView, common_steps, early_step
from lsviz.runs.reader import Run, RunError, open_run


def test_a_view_holds_what_the_run_holds(unscaled_run: Run) -> None:
    view = RunView.of(unscaled_run, unscaled_run.status)
    assert view.layers == [f"layer{i}" for i in range(1, 7)] + ["output"]
    assert view.recorded_steps == [0, 10, 20, 30, 40]
    assert view.metric == view.last_metric == unscaled_run.status.metric
    assert view.flushed["step"].tolist() == view.recorded_steps
    assert (view.picture, view.original, view.problems) == (None, None, [])


def test_a_live_run_has_no_final_metric(unscaled_run: Run) -> None:
    status = unscaled_run.status.model_copy(update={"state": "running"})
    view = RunView.of(unscaled_run, status)
    assert view.metric is None
    assert view.last_metric is not None


def test_steps_without_a_reference_count_only_where_none_has_one(unscaled_run: Run) -> None:
    view = RunView.of(unscaled_run, unscaled_run.status)
    frame = view.exponents
    some = replace(view, exponents=frame[~frame["reference"] | (frame["step"] <= 10)])
    assert some.recorded_steps == [0, 10]
    assert replace(view, exponents=frame[~frame["reference"]]).recorded_steps == [0, 10, 20, 30, 40]
    assert common_steps([view, some]) == [0, 10]
    assert common_steps([]) == []


def test_layers_are_shown_early_in_the_run() -> None:
    assert early_step([0, 40, 80, 960], 1000) == 40
    assert early_step([5], 1000) == 5
    assert early_step([], 1000) == 0


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        RunView.of(open_run(tmp_path), None)  # type: ignore[arg-type]
