"""The map of layers and loss scales."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lsviz.analysis.ceiling import Ceiling
from lsviz.analysis.findings import format_percent
from lsviz.analysis.recommend import recommend
from lsviz.analysis.scalemap import scale_map_frame
from lsviz.charts.scalemap import scale_map_figure
from lsviz.formats import FP16
from tests.analysis.test_recommend import CASES, rows_of


def test_rows_are_layers_and_show_what_loses_most() -> None:
    tensors = {"a": CASES["two layers apart"]["high"], "a.weight": CASES["two layers apart"]["low"]}
    rows = rows_of({**tensors, "b<b>": [torch.tensor([1.0])]})
    figure = scale_map_figure(scale_map_frame(rows, FP16), ["a", "b<b>"], recommend(rows), "light")
    heat = figure.data[0]
    assert figure.layout.yaxis.ticktext == ("a", "b&lt;b&gt;")
    assert list(heat.x) == list(range(-10, 41))
    frame = scale_map_frame(rows, FP16)
    worst = frame[frame["tensor"].isin(["a", "a.weight"])].groupby("scale")["flushed"].max()
    np.testing.assert_allclose(np.asarray(heat.z)[0], worst.to_numpy(), atol=1e-5)
    assert heat.text[0][10] == f"{format_percent(worst[1.0])} flushed"


def test_overflow_begins_where_a_cast_overflows() -> None:
    rows = rows_of({"x": [torch.tensor([1.0, 3.0])], "small": [torch.tensor([2.0**-30])]})
    figure = scale_map_figure(scale_map_frame(rows, FP16), ["x", "small"], recommend(rows), "dark")
    bars = figure.data[1]
    first = next(k for k in range(-10, 41) if not torch.isfinite((torch.tensor(3.0) * 2.0**k).half()))
    assert (list(bars.y), list(bars.base)) == ([0], [first - 0.5])
    assert "x overflows from S = 2" in bars.text[0]


def test_steps_that_were_not_recorded_count_in_hatching_and_frame() -> None:
    rows = rows_of({"x": [torch.tensor([1.0, 3.0])], "small": [torch.tensor([2.0**-30])]})
    found = recommend(rows, ceiling=Ceiling(2.0**10, "x", 3, 50.0, None, 9))
    figure = scale_map_figure(
        scale_map_frame(rows, FP16), ["x", "small"], found, "light", {"x": 2.0**10, "small": 2.0**60}
    )
    assert (list(figure.data[1].y), list(figure.data[1].base)) == ([0], [10.5])
    assert figure.layout.shapes[0].x1 == 10.5


@pytest.mark.parametrize("case", CASES)
def test_the_window_is_framed_where_there_is_one(case: str) -> None:
    rows = rows_of(CASES[case])
    found = recommend(rows)
    figure = scale_map_figure(scale_map_frame(rows, FP16), list(CASES[case]), found, "light")
    texts = " ".join(note.text for note in figure.layout.annotations)
    if found.window is None:
        assert not figure.layout.shapes
        assert "no S is safe for all layers" in texts
        return
    frame, best = figure.layout.shapes
    low, high = (math.log2(scale) for scale in found.window)
    assert (frame.x0, frame.x1) == (low - 0.5, high + 0.5)
    assert found.best is not None
    assert best.x0 == best.x1 == math.log2(found.best)
    assert "safe: " in texts


def test_nothing_recorded_is_an_empty_figure() -> None:
    rows = rows_of({"x": [torch.ones(2)]})
    figure = scale_map_figure(scale_map_frame(rows, FP16), [], recommend(rows), "light")
    assert len(figure.data[1].y) == 0
