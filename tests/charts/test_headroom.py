"""The headroom figure and the pairs of shares: what is drawn is what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lsviz.analysis.blame import blame_frame, headroom_frame
from lsviz.charts.headroom import MOST_COLUMNS, headroom_figure
from lsviz.charts.pairs import LayerPair, pairs_figure
from lsviz.charts.theme import Mode
from tests.analysis.test_limits import sample
from tests.conftest import train_run


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_cells_hold_the_headroom_and_crosses_the_blamed_layers(mode: Mode, tmp_path: Path) -> None:
    run = train_run(tmp_path, task="digits-mlp", policy="gradscaler:init_scale=2^24", steps=12)
    amax = run.amax()
    headroom = headroom_frame(amax, precision="fp16")
    blame = blame_frame(run.steps(), run.outcomes(), amax, precision="fp16")
    assert len(blame) >= 3
    figure = headroom_figure(headroom, blame, mode)
    heat, _, crosses = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["layer1", "layer2", "output"]
    for row in headroom.to_dict("records"):
        place = ["layer1", "layer2", "output"].index(row["layer"])
        assert heat.z[place][row["step"]] == row["headroom"]
    assert list(crosses.x) == blame["step"].tolist()
    assert set(crosses.y) == {2}
    assert "Inf began in" in crosses.customdata[0]
    assert not figure.layout.shapes


def test_colours_span_the_runs_own_headroom_and_the_bottleneck_is_framed() -> None:
    layer = pd.Categorical(["top", "low", "top", "low"], categories=["top", "low"])
    headroom = pd.DataFrame({"step": [0, 0, 1, 1], "layer": layer, "headroom": [18, 30, -3, 29]})
    blame = pd.DataFrame({"step": [1], "layer": ["top"], "tensor": ["top"], "found": ["Inf"]})
    figure = headroom_figure(headroom, blame.assign(cause="injected", injected="1:top:huge"), "light", "top")
    heat, _, crosses = figure.data
    assert (heat.zmin, heat.zmax) == (18, 30)  # without the step that was spoilt on purpose
    assert list(heat.colorbar.ticktext) == ["18", "30"]
    (frame,) = figure.layout.shapes
    assert (frame.y0, frame.y1) == (0.5, 1.5)
    assert crosses.customdata[0].endswith("injected on purpose")
    flat = headroom_figure(headroom.assign(headroom=20), blame.head(0), "dark").data[0]
    assert (flat.zmin, flat.zmax) == (20, 28)


def test_a_long_run_is_drawn_in_columns_of_the_least(tmp_path: Path) -> None:
    run = train_run(
        tmp_path, task="digits-mlp", policy="constant:1024", steps=MOST_COLUMNS + 60, record_every=100
    )
    headroom = headroom_frame(run.amax(), precision="fp16")
    (heat,) = headroom_figure(headroom, headroom.head(0).assign(layer=[]), "light").data
    assert np.shape(heat.z)[1] == MOST_COLUMNS // 2 + 30
    first_two = headroom[(headroom["layer"] == "output") & (headroom["step"] < 2)]["headroom"]
    assert heat.z[2][0] == first_two.min()
    assert "steps 0 to 1" in heat.text[0][0]


def test_pairs_are_drawn_a_row_each() -> None:
    pairs = [LayerPair("low", 0.2, 0.9, "a < b"), LayerPair("high", 0.0, 0.0, "nothing")]
    figure = pairs_figure(pairs, ring="could be", dot="is", mode="dark")
    ring, dot = figure.data
    assert list(ring.x) == [0.2, 0.0]
    assert list(dot.x) == [0.9, 0.0]
    assert ring.customdata[0] == "a &lt; b"
    assert list(figure.layout.yaxis.ticktext) == ["low", "high"]
    texts = [a.text for a in figure.layout.annotations]
    assert "<b>90 %</b>" in texts
    assert any("could be" in text and "is" in text for text in texts)
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(0.2, 0.9), (0.0, 0.0)]


def test_cells_without_headroom_are_grey_and_no_layer_lacks_its_row() -> None:
    run = sample(task="sigmoid-mlp", policy="none", precision="fp16")
    headroom = headroom_frame(run.amax(), precision="fp16")
    figure = headroom_figure(headroom, headroom.head(0).assign(injected=None, tensor=None), "light")
    grey, heat = figure.data
    assert figure.layout.yaxis.ticktext[0] == "layer1"
    missing = np.array(grey.z) == 1
    assert missing[0].all(), "it received nothing"
    assert not missing[-1].any()
    assert np.array_equal(missing, np.isnan(np.array(heat.z, float)))
    assert "grey: all zero, or not known" in figure.layout.annotations[0].text
