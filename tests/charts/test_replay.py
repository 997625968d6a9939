"""The replay figure: what is drawn is what was replayed."""

from __future__ import annotations

import numpy as np
import pytest

from lsviz.analysis.replay import replay
from lsviz.analysis.replayshares import replay_frame
from lsviz.analysis.series import load_series
from lsviz.analysis.shares import layer_names
from lsviz.analysis.whatif import READ_COLUMNS, Histograms
from lsviz.charts.replay import RECORDED, ReplayLine, replay_figure
from lsviz.charts.theme import Mode, policy_colour
from lsviz.formats import FP16
from lsviz.policies import parse_policy
from lsviz.runs.reader import Run


def line_of(run: Run, policy: str, mode: Mode = "light") -> ReplayLine:
    exponents = run.exponents(columns=READ_COLUMNS)
    done = replay(parse_policy(policy), load_series(run))
    frame = replay_frame(done, Histograms.of(exponents), FP16, layer_names(exponents))
    return ReplayLine(policy, policy_colour(policy, "fp16", mode), frame, done.guess_from, done.raised_at)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_lines_are_solid_while_exact_and_dotted_from_there(mode: Mode, unscaled_run: Run) -> None:
    line = line_of(unscaled_run, "constant:2^30", mode)
    assert line.guess_from is not None
    figure = replay_figure([line], unscaled_run.steps(), mode)
    drawn = [t for t in figure.data if t.name == "constant:2^30" and t.mode == "lines" and t.opacity != 0]
    assert drawn[-1].line.dash == "dot"
    assert drawn[-1].x[0] == line.guess_from
    assert all(t.line.color == line.colour for t in drawn)
    assert [s.x0 for s in figure.layout.shapes] == [line.guess_from]
    crosses = next(t for t in figure.data if t.mode == "markers" and t.marker.symbol == "x-thin")
    assert [int(x) for x in crosses.x] == line.frame.loc[line.frame["skipped"], "step"].tolist()


def test_an_exact_replay_has_no_dotted_part_and_no_border(unscaled_run: Run) -> None:
    line = line_of(unscaled_run, "gradscaler:init_scale=64")
    figure = replay_figure([line], unscaled_run.steps(), "light")
    assert not figure.layout.shapes
    heights = next(t for t in figure.data if t.name == line.label and t.mode == "lines")
    assert set(heights.y) == {6.0}
    recorded = next(t for t in figure.data if t.name == RECORDED)
    assert set(recorded.y) == {0.0}
    assert (recorded.x[0], recorded.x[-1]) == (0, 41)


def test_lines_that_would_hide_each_other_are_drawn_apart(unscaled_run: Run) -> None:
    lines = [line_of(unscaled_run, text) for text in ("constant:64", "gradscaler:init_scale=64")]
    figure = replay_figure(lines, unscaled_run.steps(), "light")
    first, second = (
        next(t for t in figure.data if t.name == one.label and t.mode == "lines") for one in lines
    )
    assert not np.isin(first.y, second.y).any()


def test_flushed_shares_are_drawn_where_there_are_references(unscaled_run: Run) -> None:
    line = line_of(unscaled_run, "none")
    figure = replay_figure([line], unscaled_run.steps(), "light")
    shares = next(t for t in figure.data if t.yaxis == "y2")
    assert list(shares.y) == line.frame["flushed"].dropna().tolist()
    assert figure.layout.yaxis2.range[1] > max(shares.y)
    bare = ReplayLine(line.label, line.colour, line.frame.assign(flushed=np.nan), None)
    without = replay_figure([bare], unscaled_run.steps(), "light")
    assert not [t for t in without.data if t.yaxis == "y2"]


def test_names_from_outside_mean_nothing_to_plotly(unscaled_run: Run) -> None:
    line = line_of(unscaled_run, "none")
    odd = ReplayLine("<b>$x$</b>", line.colour, line.frame, None, 3)
    text = replay_figure([odd], unscaled_run.steps(), "light").to_json()
    assert "<b>$x$</b>" not in text.replace("\\u003c", "<").replace("\\u003e", ">")
    assert "gives up" in text


def test_no_policy_leaves_the_recorded_line(unscaled_run: Run) -> None:
    figure = replay_figure([], unscaled_run.steps(), "light")
    assert [t.name for t in figure.data] == [RECORDED]
