from __future__ import annotations

import json

import pytest

from lsviz.analysis.view import RunView
from lsviz.charts import drawing
from lsviz.charts.drawing import bar_trace, figure_of
from lsviz.charts.views import spectra_figure, timelines_figure, view_shares
from lsviz.runs.reader import Run


def test_a_figure_that_nobody_checked_is_the_same_figure(
    unscaled_run: Run, scaled_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [RunView.of(run, run.status) for run in (unscaled_run, scaled_run)]
    shares = view_shares(views, 40)
    checked = [spectra_figure(views, shares, 40, "light"), timelines_figure(views, "dark")]
    monkeypatch.setattr(drawing, "CHECKED", False)
    unchecked = [spectra_figure(views, shares, 40, "light"), timelines_figure(views, "dark")]
    assert [json.loads(f.to_json()) for f in unchecked] == [json.loads(f.to_json()) for f in checked]


def test_in_tests_plotly_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="colour"):
        figure_of([bar_trace(x=[1], marker={"colour": "red"})], "light")
