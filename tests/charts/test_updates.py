"""The two figures of checked updates: what is drawn, where names stand, and what colours mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lsviz.analysis.lab import error_curve_frame, update_ratio_frame
from lsviz.charts.theme import PALETTES, Mode
from lsviz.charts.updateratio import update_ratio_figure
from lsviz.charts.updates import LABEL_GAP, weight_error_figure
from lsviz.formats import Region
from lsviz.runs.lab import load_lab
from lsviz.runs.updatecheck import LOWEST_RATIO, RATIO_BINS
from tests.analysis.test_lab import variant
from tests.conftest import SAMPLES

HOSTILE = "<b>x</b> $y$ <a href='javascript:1'>"


def errors(*lines: tuple[str, str, list[float]]) -> pd.DataFrame:
    rows = [(group, name, step, e) for group, name, values in lines for step, e in enumerate(values)]
    return pd.DataFrame(rows, columns=["group", "name", "step", "weight_error"])


def names_of(figure: go.Figure) -> dict[str, float]:
    return {a.text: a.y for a in figure.layout.annotations if a.xref != "paper" and "<b>" in a.text}


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_line_is_coloured_by_where_it_ends(mode: Mode) -> None:
    frame = errors(("a", "right", [1e-6, 2e-6]), ("a", "nearly", [0.005, 0.004]), ("a", "wrong", [1e-6, 0.3]))
    figure = weight_error_figure(frame, mode)
    text = PALETTES[mode].region_text
    colours = {trace.name: trace.line.color for trace in figure.data}
    assert colours == {
        "right": text[Region.NORMAL],
        "nearly": text[Region.SUBNORMAL],
        "wrong": text[Region.FLUSHED],
    }
    for trace in figure.data:
        np.testing.assert_array_equal(trace.y, frame[frame["name"] == trace.name]["weight_error"])


def test_a_group_is_a_panel_and_all_share_one_axis() -> None:
    frame = errors(("a", "one", [1.0, 5000.0]), ("b", "two", [1e-9, 1e-9]), ("c", "three", [1.0, 1.0]))
    layout = weight_error_figure(frame, "light").layout
    axes = [layout.yaxis, layout.yaxis2, layout.yaxis3]
    assert {axis.type for axis in axes} == {"log"}
    assert len({tuple(axis.range) for axis in axes}) == 1
    assert axes[0].range[0] < -9
    assert axes[0].range[1] > np.log10(5000)
    domains = [
        (*x.domain, *y.domain)
        for x, y in zip((layout.xaxis, layout.xaxis2, layout.xaxis3), axes, strict=True)
    ]
    assert domains[0][1] < domains[1][0]
    assert domains[0][2] > domains[2][3]
    assert all(0 <= end <= 1 for domain in domains for end in domain)


def test_names_of_lines_that_meet_stand_apart_and_about_where_they_end() -> None:
    frame = errors(("a", "one", [1e-6] * 2), ("a", "two", [1e-6] * 2), ("a", "far", [1.0] * 2))
    figure = weight_error_figure(frame, "light")
    low, high = figure.layout.yaxis.range
    places = names_of(figure)
    assert places["<b>far</b>"] == pytest.approx(0)
    both = sorted([places["<b>one</b>"], places["<b>two</b>"]])
    assert both[1] - both[0] == pytest.approx(LABEL_GAP * (high - low))
    assert np.mean(both) == pytest.approx(-6)


def test_a_single_step_is_a_point() -> None:
    figure = weight_error_figure(errors(("a", "blown", [1024.0]), ("a", "fine", [1e-7] * 9)), "light")
    assert {trace.name: trace.mode for trace in figure.data} == {"blown": "markers", "fine": "lines"}


def test_bars_are_updates_that_count_and_updates_that_do_nothing() -> None:
    counts, moved = [0] * RATIO_BINS, [0] * RATIO_BINS
    counts[-9 - LOWEST_RATIO], moved[-9 - LOWEST_RATIO] = 25, 25
    counts[-12 - LOWEST_RATIO], moved[-12 - LOWEST_RATIO] = 75, 15
    frame = update_ratio_frame([variant(name, counts=counts, moved=moved) for name in ("one", "two")])
    figure = update_ratio_figure(frame, "light")
    kept, lost = figure.data[:2]
    at = list(kept.x).index(-11.5)
    assert (kept.y[at], lost.y[at]) == (pytest.approx(0.15), pytest.approx(0.6))
    assert kept.y[list(kept.x).index(-8.5)] == pytest.approx(0.25)
    assert len({trace.yaxis for trace in figure.data}) == 2
    (mark,) = figure.layout.shapes
    assert (mark.x0, mark.x1) == (-11, -11)
    said = [a.text for a in figure.layout.annotations]
    assert "<b>one</b>: 60 % of the updates do nothing" in said
    assert any(text.startswith("<b>75 %</b> below 2⁻¹¹") for text in said)


def test_names_mean_nothing_to_the_figures() -> None:
    counts = [1] * RATIO_BINS
    frame = update_ratio_frame([variant(HOSTILE, counts=counts, moved=counts)])
    for figure in (
        weight_error_figure(errors((HOSTILE, HOSTILE, [0.1, 0.2])), "light"),
        update_ratio_figure(frame, "light"),
    ):
        written = [a.text for a in figure.layout.annotations] + [
            str(trace.hovertemplate) for trace in figure.data
        ]
        assert not any("<a" in text or "$" in text for text in written)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_shipped_lab_is_drawn(mode: Mode) -> None:
    document = load_lab(SAMPLES / "lab.json")
    assert document is not None
    figure = weight_error_figure(error_curve_frame(document), mode)
    assert {trace.name for trace in figure.data} == {result.name for result in document.variants}
    ratios = update_ratio_frame([r for r in document.variants if r.group == "weights"])
    assert len(update_ratio_figure(ratios, mode).data) == 4


def test_nothing_to_draw_is_an_empty_figure() -> None:
    assert not weight_error_figure(errors(), "light").data
    assert not update_ratio_figure(update_ratio_frame([]), "light").data
