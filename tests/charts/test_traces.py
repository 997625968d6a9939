from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import pytest

from lsviz.analysis.traces import traces_frame
from lsviz.charts.theme import Mode, policy_colour
from lsviz.charts.traces import trace_figure
from lsviz.policies import POLICIES, parse_policy, trace_amax, trace_overflows


def figure_of(
    texts: list[str], pattern: str = "", amax: list[float] | None = None, mode: Mode = "light"
) -> go.Figure:
    policies = {text: parse_policy(text) for text in texts}
    traces = {
        text: trace_overflows(policy, pattern) if amax is None else trace_amax(policy, amax)
        for text, policy in policies.items()
    }
    colours = {text: policy_colour(text, "fp16", mode) for text in texts}
    steps = len(pattern) if amax is None else len(amax)
    return trace_figure(traces_frame(policies, traces), traces, colours, steps, mode, amax)


def lines(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.mode == "lines" and trace.opacity != 0}


def test_a_line_shows_s_in_force_and_its_name_stands_at_its_end() -> None:
    figure = figure_of(["gradscaler:growth_interval=2"], "O..")
    (line,) = lines(figure).values()
    assert list(line.x) == [0, 1, 2, 3]
    assert list(line.y) == [16, 15, 15, 15]
    names = [a.text for a in figure.layout.annotations]
    assert any("gradscaler:growth_interval=2" in name for name in names)
    assert not figure.layout.showlegend


def test_lines_that_meet_are_drawn_apart_and_the_hover_tells_the_truth() -> None:
    figure = figure_of(["keras", "tf"], "....")
    a, b = lines(figure).values()
    assert 0.01 < abs(a.y[0] - b.y[0]) < 0.2
    hovers = [text for trace in figure.data if trace.customdata is not None for text in trace.customdata]
    assert sum("S = 2¹⁵" in text for text in hovers) == 8
    alone = figure_of(["keras", "none"], "....")
    assert [line.y[0] for line in lines(alone).values()] == [15, 0]


def test_steps_at_which_all_overflow_are_shaded() -> None:
    shapes = figure_of(["keras", "tf"], ".O..O").layout.shapes
    assert [(shape.x0, shape.x1) for shape in shapes] == [(1, 2), (4, 5)]


def test_where_policies_differ_each_one_has_its_cross() -> None:
    figure = figure_of(["constant:2^20", "none"], amax=[0.5, 0.001, math.inf])
    crosses = {t.name: list(t.x) for t in figure.data if t.mode == "markers" and t.marker.symbol == "x-thin"}
    assert crosses == {"constant:2^20": [0.5], "none": []}
    assert [shape.x0 for shape in figure.layout.shapes] == [2]
    below = figure.data[-1]
    assert below.yaxis == "y2"
    assert below.text[2] == "∞"


def test_giving_up_and_a_scale_that_can_not_be_undone_are_pointed_at() -> None:
    words = [a.text for a in figure_of(["deepspeed:init_scale=2", "tf"], "OOOO").layout.annotations]
    assert "<b>gives up</b>" in words
    words = [a.text for a in figure_of(["gradscaler:init_scale=2^-126"], "OO.").layout.annotations]
    assert "<b>1/S = ∞</b>" in words


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_all_policies_at_once_have_labels_that_do_not_touch(mode: Mode) -> None:
    figure = figure_of(list(POLICIES), "OO....O.........O.O....." * 2, mode=mode)
    ends = [a for a in figure.layout.annotations if a.xanchor == "left" and a.yref == "y" and a.xshift == 6]
    assert len(ends) == len(POLICIES)
    heights = np.sort([a.y for a in ends])
    low, high = figure.layout.yaxis.range
    pixel = (high - low) / (figure.layout.height - 76)
    assert np.diff(heights).min() >= 14 * pixel


@pytest.mark.parametrize("texts", [[], ["none"]])
def test_nothing_to_draw_draws_nothing(texts: list[str]) -> None:
    assert figure_of(texts, "").layout.height > 100


def test_names_are_shown_literally() -> None:
    policies = {"<b>x</b>$": parse_policy("none")}
    traces = {"<b>x</b>$": trace_overflows(policies["<b>x</b>$"], "..")}
    figure = trace_figure(traces_frame(policies, traces), traces, {"<b>x</b>$": "#000"}, 2, "light")
    assert "<b>x" not in figure.to_json().replace("<b>&lt;b", "")
