"""The slider's figure: every place of it holds what a figure drawn for that S would show."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pytest
import torch

from lsviz.analysis.window import WINDOW_SCALES, layer_outputs, unscaled_frame, window_frame
from lsviz.charts.theme import PALETTES
from lsviz.charts.window import LEFT, RIGHT, window_figure
from lsviz.formats import FP16, FloatFormat, Region, parse_format
from tests.analysis.test_recommend import rows_of

LAYERS = ["low<b>", "high"]


def figure_at(scale: float, fmt: FloatFormat = FP16) -> go.Figure:
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "low<b>": [torch.randn(4000, generator=generator) * 2.0**-24],
        "high": [torch.randn(500, generator=generator) * 2.0**-3],
    }
    outputs = layer_outputs(rows_of(tensors, "activation_grad"), LAYERS)
    spectrum, shares = unscaled_frame(outputs, LAYERS), window_frame(outputs, LAYERS, fmt)
    return window_figure(spectrum, shares, LAYERS, fmt, scale, "light")


def moved(figure: go.Figure, scale: float) -> dict[str, Any]:
    """What the slider sets at one S."""
    return dict(figure.layout.sliders[0].steps[WINDOW_SCALES.index(scale)].args[0])


def look_up(layout: Any, path: str) -> Any:
    for part in path.replace("[", ".").replace("]", "").split("."):
        layout = layout[int(part)] if part.isdigit() else layout[part]
    return layout


@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**7, 2.0**40])
def test_a_place_of_the_slider_is_the_figure_drawn_for_that_scale(scale: float) -> None:
    drawn = figure_at(scale).layout
    change = moved(figure_at(1024.0), scale)
    assert all(look_up(drawn, path) == value for path, value in change.items())
    assert len(change) >= 2 + 8 + 1 + 8 + 4


@pytest.mark.parametrize("name", ["fp16", "bf16", "e4m3", "e5m2"])
@pytest.mark.parametrize("scale", [1.0, 2.0**12])
def test_regions_end_where_the_format_s_limits_are_over_s(name: str, scale: float) -> None:
    fmt = parse_format(name)
    shapes = figure_at(scale, fmt).layout.shapes
    for edge, left, right in zip(
        (fmt.flush_limit, 2.0**fmt.min_exponent, fmt.overflow_limit), shapes, shapes[1:], strict=False
    ):
        assert left.x1 == right.x0
        assert left.x1 == pytest.approx(min(max(math.log2(edge / scale), LEFT), RIGHT))


@pytest.mark.parametrize("scale", [1.0, 2.0**12, 2.0**30])
def test_a_bar_has_its_region_s_colour(scale: float) -> None:
    figure = figure_at(scale)
    axis, palette = figure.layout.coloraxis, PALETTES["light"]
    for exponent in range(-50, 20):
        place = (exponent + 0.5 - axis.cmin) / (axis.cmax - axis.cmin)
        colour = [colour for at, colour in axis.colorscale if at <= place][-1]
        value = 1.25 * 2.0**exponent * scale
        half = float(torch.tensor(value, dtype=torch.float64).half())
        expected = (
            Region.OVERFLOW
            if math.isinf(half)
            else Region.FLUSHED
            if half == 0
            else Region.SUBNORMAL
            if value < 2.0**-14
            else Region.NORMAL
        )
        assert colour == palette.regions[expected], exponent


def test_names_are_literal_and_shares_stand_beside_their_rows() -> None:
    figure = figure_at(1.0)
    assert figure.layout.yaxis.ticktext == ("low&lt;b&gt;", "high")
    low, high = figure.layout.annotations[-2:]
    assert low.text.endswith("flushed")
    assert high.text == "0 %"
    assert low.y < high.y
    assert figure.layout.sliders[0].active == WINDOW_SCALES.index(1.0)
