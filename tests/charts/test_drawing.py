from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from lsviz.analysis.view import RunView
from lsviz.charts import drawing
from lsviz.charts.drawing import bar_trace, figure_of, heatmap_trace, scatter_trace
from lsviz.charts.theme import PALETTES
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
    assert "template" not in json.loads(unchecked[0].to_json())["layout"]


def test_a_figures_revision_is_its_contents() -> None:
    def revision(values: Sequence[float], colour: str = "#111111") -> int:
        bars = bar_trace(x=np.arange(3000), y=np.array(values), marker={"color": colour})
        number: int = figure_of([bars], "light").layout.datarevision
        return number

    values = [0.5] * 3000
    other = [*values[:1500], 0.25, *values[1501:]]
    assert revision(values) == revision(values)
    assert len({revision(values), revision(other), revision(values, "#222222")}) == 3


def test_a_browser_gets_lists_with_nothing_for_what_is_no_number() -> None:
    line = scatter_trace(
        x=pd.Series([1, 2, 3]), y=np.array([0.5, np.nan, np.inf]), text=np.array(["a", "b", "c"])
    )
    cells = heatmap_trace(z=np.array([[1.0, np.nan]]), customdata=np.array([[1, 2]]))
    drawn = json.loads(figure_of([line, cells], "light").to_json())["data"]
    assert drawn[0] == {"type": "scatter", "x": [1, 2, 3], "y": [0.5, None, None], "text": ["a", "b", "c"]}
    assert drawn[1] == {"type": "heatmap", "z": [[1, None]], "customdata": [[1, 2]]}


def test_every_axis_has_what_all_share_under_its_own() -> None:
    lines = [scatter_trace(x=[1], y=[1]), scatter_trace(x=[1], y=[1], xaxis="x2", yaxis="y3")]
    layout = figure_of(lines, "dark", yaxis3={"title": {"text": "S"}, "tickfont": {"size": 9}}).layout
    grid = PALETTES["dark"].grid
    assert {layout[name].gridcolor for name in ("xaxis", "yaxis", "xaxis2", "yaxis3")} == {grid}
    assert (layout.yaxis3.title.text, layout.yaxis3.title.font.size) == ("S", 13)
    assert (layout.yaxis3.tickfont.size, layout.yaxis3.tickfont.color) == (9, PALETTES["dark"].muted)
    assert layout.yaxis3.ticklabeloverflow == "allow"
    assert layout.xaxis2.ticklabeloverflow is None


def test_in_tests_plotly_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="colour"):
        figure_of([bar_trace(x=[1], marker={"colour": "red"})], "light")


def test_bars_and_cells_have_no_grid_behind_them_unless_the_figure_says_so() -> None:
    upright, lying = bar_trace(x=[1], y=[1]), bar_trace(x=[1], y=[1], orientation="h", xaxis="x2", yaxis="y2")
    cells = heatmap_trace(z=np.ones((1, 1)), xaxis="x3", yaxis="y3")
    layout = figure_of([upright, lying, cells], "light", yaxis3={"showgrid": True}).layout
    grids = {name: layout[f"{name[0]}axis{name[1:]}"].showgrid for name in ("x", "y", "x2", "y2", "x3", "y3")}
    assert grids == {"x": False, "y": None, "x2": None, "y2": False, "x3": False, "y3": True}
