"""The figure of thrown-away updates: what is drawn is what was skipped."""

from __future__ import annotations

import pandas as pd
import pytest

from lsviz.analysis.skips import lost_steps_frame
from lsviz.charts.skips import LostLine, lost_steps_figure
from lsviz.charts.theme import Mode


def lost(pattern: str) -> pd.DataFrame:
    steps = pd.DataFrame({"step": range(len(pattern)), "skipped": [c == "O" for c in pattern]})
    return lost_steps_frame(steps)


def test_lost_updates_add_up() -> None:
    assert lost("O..OO.")["lost"].tolist() == [1, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_lines_go_through_every_change(mode: Mode) -> None:
    lines = [
        LostLine("recorded", None, lost("O..OO....")),
        LostLine("<b>x</b>", "#112233", lost(".........")),
    ]
    figure = lost_steps_figure(lines, mode)
    recorded, other = figure.data
    drawn = dict(zip(recorded.x, recorded.y, strict=True))
    whole = lost("O..OO....")
    for step, number in zip(whole["step"] + 1, whole["lost"], strict=True):
        before = max(x for x in drawn if x <= step)
        assert drawn[before] == number
    assert set(other.y) == {0}
    assert other.line.color == "#112233"
    texts = [a.text for a in figure.layout.annotations]
    assert "<b>&lt;b&gt;x&lt;/b&gt;</b>" in texts


def test_nothing_lost_is_no_error() -> None:
    assert len(lost_steps_figure([], "light").data) == 0
