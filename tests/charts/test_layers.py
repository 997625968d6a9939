"""The maps of layers: rows, facets, and edges at the format's true limits."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from lsviz.analysis.layers import layers_frame
from lsviz.charts.exponents import LEFT, RIGHT
from lsviz.charts.layerhistory import layer_history_figure
from lsviz.charts.layerparts import HUES, LayerFacet, hue_value
from lsviz.charts.layers import layers_figure
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
    facets = [facet(unscaled_run), facet(scaled_run)]
    figure = layers_figure(facets, NAMES, "layer2", mode, FP16)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [trace.xaxis for trace in bars] == ["x", "x2"]
    for trace in bars:
        for place, name in enumerate(NAMES):
            of_row = [i for i, y in enumerate(trace.y) if y == place]
            assert {trace.customdata[i][0] for i in of_row} == {name}
            ends = [(trace.base[i], trace.base[i] + trace.x[i]) for i in of_row]
            assert ends[0][0] == LEFT
            assert ends[-1][1] > RIGHT
            assert all(a[1] == b[0] for a, b in pairwise(ends))
    assert list(figure.layout.yaxis.ticktext) == NAMES
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    frames = [s for s in figure.layout.shapes if s.y0 == 0.5 and s.y1 == 1.5]
    assert len(frames) == 2
    assert "&lt;b&gt;mine" in str(figure.layout.annotations)


def test_edges_are_the_formats_true_limits(unscaled_run: Run) -> None:
    figure = layers_figure([facet(unscaled_run)], NAMES, "", "light", FP16)
    assert {s.x0 for s in figure.layout.shapes if s.type == "line"} == LIMITS
    history = layer_history_figure([facet(unscaled_run, tensor="layer1")], 20, "light", FP16)
    assert {s.y0 for s in history.layout.shapes if s.type == "line" and s.y0 == s.y1} == LIMITS
    assert [s.x0 for s in history.layout.shapes if s.type == "line" and s.x0 == s.x1] == [20]


def test_cells_are_the_shares_and_their_hue_what_became_of_them(unscaled_run: Run) -> None:
    shown = facet(unscaled_run)
    (bars, words) = layers_figure([shown], NAMES, "", "light", FP16).data
    shares = dict(zip(shown.layers["tensor"], shown.layers["shares"], strict=True))["layer3"]
    cells = {b: c for b, y, c in zip(bars.base, bars.y, bars.marker.color, strict=True) if y == 2}
    drawn = {e: c for e, c in cells.items() if c >= 0}
    assert set(drawn) == {e for e in range(LEFT, RIGHT) if shares[e + 80] > 0 or (e == LEFT and e in drawn)}
    scale = bars.marker.colorscale
    assert bars.marker.cmin == min(cells.values()) == -1
    assert [colour for place, colour in scale if place < 0.16] == ["rgba(0,0,0,0)"] * 1
    at_26 = hue_value(HUES.index(Region.FLUSHED), shares[-26 + 80])
    assert drawn[-26] == pytest.approx(float(at_26))
    assert all("flushed" in text for text in words.text)
    strength = hue_value(0, [1e-9, 1e-5, 1e-3, 1.0])
    np.testing.assert_allclose(strength, [0, 0, 0.392, 0.98])


def test_a_layer_that_a_run_lacks_is_told(unscaled_run: Run) -> None:
    bars, words = layers_figure([facet(unscaled_run)], ["elsewhere"], "", "light", FP16).data
    assert "not recorded in this run" in bars.customdata[0][1]
    assert list(words.text) == [""]


def test_the_history_has_a_column_a_step(unscaled_run: Run) -> None:
    (heat,) = layer_history_figure([facet(unscaled_run, tensor="layer1")], 20, "light", FP16).data
    assert list(heat.x) == [0, 10, 20, 30, 40]
    np.testing.assert_allclose(np.asarray(heat.customdata).sum(axis=0), 1.0)
    empty = LayerFacet("a", "", "#123456", facet(unscaled_run).layers.head(0))
    assert layer_history_figure([empty], 20, "light", FP16).data[0].x.size == 0
