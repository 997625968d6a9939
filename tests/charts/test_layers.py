"""The maps of layers: rows, facets, and edges at the format's true limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lsviz.analysis.layers import layers_frame
from lsviz.charts.layerhistory import layer_history_figure, step_lines
from lsviz.charts.layerparts import HUES, LayerFacet, hue_value
from lsviz.charts.layers import layers_figure, row_frames
from lsviz.charts.regions import LEFT, RIGHT
from lsviz.charts.theme import Mode
from lsviz.formats import FP16, Region
from lsviz.runs.reader import Run

NAMES = ["layer1", "layer2", "layer3"]
LIMITS = {-25.0, -14, math.log2(65520)}


def facet(run: Run, *, tensor: str | None = None, expected: bool = True) -> LayerFacet:
    rows = run.exponents(tensor=tensor, steps=None if tensor else [20])
    return LayerFacet(
        "<b>mine", "S = 1", "#123456", layers_frame(rows, "activation_grad", FP16, expected=expected)
    )


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_place_of_every_row_tells_its_layer(unscaled_run: Run, scaled_run: Run, mode: Mode) -> None:
    figure = layers_figure([facet(unscaled_run), facet(scaled_run)], NAMES, mode, FP16)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [trace.xaxis for trace in maps] == ["x", "x2"]
    for trace in maps:
        assert trace.hoverongaps is not False, "a click beside the cells counts too"
        assert list(trace.y) == [0, 1, 2]
        assert list(trace.x[:-1]) == list(range(LEFT, RIGHT + 1))
        assert trace.x[-1] == figure.layout.xaxis.range[1]
        for place, name in enumerate(NAMES):
            assert all(text.startswith(f"<b>{name}</b>") for text in trace.text[place])
    assert list(figure.layout.yaxis.ticktext) == NAMES
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    assert "&lt;b&gt;mine" in str(figure.layout.annotations)


def test_what_is_marked_lies_on_the_figures_axes(unscaled_run: Run, scaled_run: Run) -> None:
    figure = layers_figure([facet(unscaled_run), facet(scaled_run)], NAMES, "light", FP16)
    frames = row_frames(2, 1, "light")
    assert [(frame["xref"], frame["yref"]) for frame in frames] == [("x", "y"), ("x2", "y2")]
    assert {(frame["y0"], frame["y1"]) for frame in frames} == {(0.5, 1.5)}
    assert {frame["x1"] for frame in frames} == {figure.layout.xaxis.range[1]}
    lines = step_lines(2, 20, "light")
    assert [(line["xref"], line["yref"]) for line in lines] == [("x", "y domain"), ("x2", "y2 domain")]
    assert {(line["x0"], line["x1"]) for line in lines} == {(20, 20)}


def test_edges_are_the_formats_true_limits(unscaled_run: Run) -> None:
    figure = layers_figure([facet(unscaled_run)], NAMES, "light", FP16)
    assert {s.x0 for s in figure.layout.shapes if s.type == "line"} == LIMITS
    history = layer_history_figure([facet(unscaled_run, tensor="layer1")], "light", FP16)
    assert {s.y0 for s in history.layout.shapes if s.type == "line"} == LIMITS


def test_cells_are_the_shares_and_their_hue_what_became_of_them(unscaled_run: Run) -> None:
    shown = facet(unscaled_run)
    (cells, words) = layers_figure([shown], NAMES, "light", FP16).data
    shares = dict(zip(shown.layers["tensor"], shown.layers["shares"], strict=True))["layer3"]
    row = np.asarray(cells.z, float)[2]
    drawn = {exponent: value for exponent, value in zip(cells.x, row, strict=False) if np.isfinite(value)}
    assert set(drawn) == {e for e in range(LEFT, RIGHT) if shares[e + 80] > 0 or (e == LEFT and e in drawn)}
    at_26 = hue_value(HUES.index(Region.FLUSHED), shares[-26 + 80])
    assert drawn[-26] == pytest.approx(float(at_26), abs=1e-5)
    assert "flushed" in cells.text[2][-26 - LEFT]
    assert all("flushed" in text for text in words.text)
    strength = hue_value(0, [1e-9, 1e-5, 1e-3, 1.0])
    np.testing.assert_allclose(strength, [0, 0, 0.392, 0.98])


def test_a_layer_that_a_run_lacks_is_told(unscaled_run: Run) -> None:
    cells, words = layers_figure([facet(unscaled_run)], ["elsewhere"], "light", FP16).data
    assert "not recorded in this run" in cells.text[0][0]
    assert not np.isfinite(np.asarray(cells.z, float)).any()
    assert list(words.text) == [""]


def test_the_history_has_a_column_a_step(unscaled_run: Run) -> None:
    (heat,) = layer_history_figure([facet(unscaled_run, tensor="layer1")], "light", FP16).data
    assert list(heat.x) == [0, 10, 20, 30, 40]
    np.testing.assert_allclose(np.asarray(heat.customdata).sum(axis=0), 1.0, atol=1e-4)
    empty = LayerFacet("a", "", "#123456", facet(unscaled_run).layers.head(0))
    assert len(layer_history_figure([empty], "light", FP16).data[0].x) == 0
