from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lsviz.analysis.curves import metric_frame, scale_curve_frame
from lsviz.charts.curves import MetricLine, metric_figure, scale_curve_figure
from lsviz.charts.theme import PALETTES, Mode
from tests.analysis.test_curves import FP32, U, line

HOSTILE = "<b>x</b> $y$ <a href='javascript:1'>"


def lines(*variants: tuple[str, list[float]]) -> list[MetricLine]:
    frame = metric_frame([line(v, metrics, seed) for v, metrics in variants for seed in (0, 1)])
    return [MetricLine(v, "#00795a", frame[frame["variant"] == v]) for v, _ in variants]


def drawn_lines(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.line.width]


def test_each_variant_is_a_line_with_its_name_at_the_end() -> None:
    figure = metric_figure(lines(("fp32", FP32), ("none", [0.1] * 5)), "accuracy", "light")
    assert [trace.name for trace in drawn_lines(figure)] == ["fp32", "none"]
    np.testing.assert_allclose(drawn_lines(figure)[0].y, FP32)
    assert [a.text for a in figure.layout.annotations] == ["<b>fp32</b>", "<b>none</b>"]
    assert {a.x for a in figure.layout.annotations} == {499}


def test_lines_that_coincide_are_all_to_be_seen() -> None:
    figure = metric_figure(lines(("a", FP32), ("b", FP32), ("c", FP32)), "accuracy", "light")
    widths = [trace.line.width for trace in drawn_lines(figure)]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 3
    places = sorted(a.y for a in figure.layout.annotations)
    assert min(np.diff(places)) > 0.05 * (0.95 - 0.5)
    assert max(places) <= 0.95 + 0.1 * (0.95 - 0.5)


def test_where_a_run_falls_behind_is_marked() -> None:
    figure = metric_figure(lines(("fp32", FP32)), "accuracy", "light", since=299)
    assert [shape.x0 for shape in figure.layout.shapes] == [299]
    assert "behind from step 299" in [a.text for a in figure.layout.annotations]
    assert not metric_figure(lines(("fp32", FP32)), "accuracy", "light").layout.shapes


def test_names_mean_nothing_to_the_figure() -> None:
    frame = metric_frame([line("fp32", FP32)])
    figure = metric_figure([MetricLine(HOSTILE, "#00795a", frame)], HOSTILE, "light")
    written = [a.text for a in figure.layout.annotations] + [figure.layout.yaxis.title.text]
    assert not any("<a" in text or "$" in text for text in written)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_u_curve_has_a_panel_each_over_log2_s(mode: Mode) -> None:
    curve = scale_curve_frame(U)
    figure = scale_curve_figure(curve, "accuracy", mode, window=(16, 4096))
    metric, flushed, skipped = figure.data
    assert list(metric.x) == [0, 4, 12, 16]
    np.testing.assert_allclose(metric.y[:3], [0.1, 0.95, 0.96])
    assert list(flushed.y) == [1.0, 0.3, 0.0, 0.0]
    assert list(skipped.y) == [0, 0, 0, 1]
    assert len({trace.yaxis for trace in figure.data}) == 3
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(3.5, 12.5)]
    assert metric.line.color == PALETTES[mode].policies["constant"]


def test_nothing_to_draw_is_an_empty_figure() -> None:
    assert metric_figure([], "accuracy", "light").layout.annotations == ()
    empty = scale_curve_figure(scale_curve_frame([]), "accuracy", "light")
    assert all(len(trace.x) == 0 for trace in empty.data)
    assert isinstance(scale_curve_frame([]), pd.DataFrame)
