from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import pytest

from lsviz.analysis.history import history_frame
from lsviz.analysis.shares import layer_names
from lsviz.charts.history import history_figure
from lsviz.charts.regions import LEFT, RIGHT
from lsviz.charts.theme import PALETTES, Mode
from lsviz.formats import Region
from lsviz.runs.reader import Run


@pytest.fixture(scope="module")
def drawn(unscaled_run: Run) -> tuple[go.Figure, object]:
    exponents = unscaled_run.exponents()
    history = history_frame(exponents, layer_names(exponents))
    return history_figure(history, 8.0, "light"), history


def test_bars_are_the_mean_and_the_map_every_step(drawn: tuple[go.Figure, object]) -> None:
    figure, history = drawn
    bars, heat = figure.data
    mean = history.mean(axis=0)  # type: ignore[attr-defined]
    at = {x - 0.5: y for x, y in zip(bars.x, bars.y, strict=True)}
    assert at[-20] == pytest.approx(mean[-20])
    assert sum(at.values()) == pytest.approx(1.0)  # what lies outside is folded into the ends
    assert list(heat.y) == [0, 10, 20, 30, 40]
    shares = np.asarray(heat.customdata)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-4)
    shown = np.asarray(heat.z, float)
    np.testing.assert_allclose(10 ** shown[~np.isnan(shown)], shares[shares > 0], atol=1e-5)


def test_the_frame_is_what_s_brings_in_and_the_lines_are_the_formats(
    drawn: tuple[go.Figure, object],
) -> None:
    figure, _ = drawn
    lines = {s.x0 for s in figure.layout.shapes if s.type == "line"}
    assert lines == {-25.0, math.log2(65520)}
    frames = {(s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect"}
    assert frames == {(-28.0, -25.0)}
    green = {s.line.color for s in figure.layout.shapes if s.type == "rect"}
    assert green == {PALETTES["light"].policies["constant"]}


def test_a_huge_scale_frames_no_more_than_the_axis(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents()
    figure = history_figure(history_frame(exponents, layer_names(exponents)), 2.0**60, "light")
    assert {s.x0 for s in figure.layout.shapes if s.type == "rect"} == {LEFT}


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_bars_have_their_regions_colour(unscaled_run: Run, mode: Mode) -> None:
    exponents = unscaled_run.exponents()
    bars = history_figure(history_frame(exponents, layer_names(exponents)), 8.0, mode).data[0]
    colour = {x - 0.5: c for x, c in zip(bars.x, bars.marker.color, strict=True)}
    regions = PALETTES[mode].regions
    assert set(colour) == set(range(LEFT, RIGHT))
    assert colour[-26] == regions[Region.FLUSHED]
    assert colour[-25] == regions[Region.SUBNORMAL]  # above 2^-25 it rounds up to 2^-24
    assert colour[-14] == regions[Region.NORMAL]
    assert colour[16] == regions[Region.OVERFLOW]


def test_nothing_recorded_draws_an_empty_figure(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents()
    bare = history_frame(exponents[~exponents["reference"]], layer_names(exponents))
    assert sum(history_figure(bare, 8.0, "light").data[0].y) == 0
