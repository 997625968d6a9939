"""The map that fills in while a run lives."""

from __future__ import annotations

import numpy as np
import pytest

from lsviz.analysis.view import RunView
from lsviz.charts.theme import PALETTES
from lsviz.charts.views import flushed_map_views, flushed_maps_figure
from lsviz.formats import Region
from lsviz.runs.reader import Run


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_panel_a_run_over_one_axis(mode: str, unscaled_run: Run, scaled_run: Run) -> None:
    views = [RunView.of(run, run.status) for run in (unscaled_run, scaled_run)]
    figure = flushed_maps_figure(views, flushed_map_views(views), mode)  # type: ignore[arg-type]
    first, second = (trace for trace in figure.data if trace.type == "heatmap")
    assert (first.yaxis, second.yaxis) == ("y", "y2")
    assert figure.layout.xaxis.range == (-0.5, 40.5), "all steps, from the start on"
    assert np.nanmax(first.z) == 1.0
    assert np.nanmax(second.z) < 0.1
    assert first.colorscale[-1][1] == PALETTES[mode].regions[Region.FLUSHED]  # type: ignore[index]
    titles = [note.text for note in figure.layout.annotations]
    assert "no scaling" in titles[0]
    assert "100 % flushed at step 40" in titles[0]
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1], "top to bottom, without overlap"


def test_columns_reach_to_the_next_record(unscaled_run: Run) -> None:
    view = RunView.of(unscaled_run, unscaled_run.status)
    (heat,) = flushed_maps_figure([view], flushed_map_views([view]), "light").data
    assert list(heat.x) == [-0.5, 9.5, 19.5, 29.5, 39.5, 49.5]
    assert np.shape(heat.z) == (7, 5)
    assert "layer1, 100 % flushed" in heat.text[0]


def test_a_cross_marks_inf(unscaled_run: Run) -> None:
    view = RunView.of(unscaled_run, unscaled_run.status)
    view.by_layer.loc[(view.by_layer["tensor"] == "layer3") & (view.by_layer["step"] == 10), "overflow"] = 1.0
    crosses = flushed_maps_figure([view], flushed_map_views([view]), "light").data[1]
    assert list(crosses.x) == [10]
    assert list(crosses.y) == [2]


def test_names_from_outside_are_text(unscaled_run: Run) -> None:
    view = RunView.of(unscaled_run, unscaled_run.status)
    view.layers[0] = "<b>x"
    view.by_layer["tensor"] = view.by_layer["tensor"].replace("layer1", "<b>x")
    figure = flushed_maps_figure([view], flushed_map_views([view]), "light")
    assert "&lt;b&gt;x" in figure.layout.yaxis.ticktext
    assert "&lt;b&gt;x loses most" in figure.layout.annotations[0].text
