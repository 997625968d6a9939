from __future__ import annotations

import pandas as pd
import pytest

from lsviz.analysis.reaction import ReactingRun
from lsviz.charts.reaction import AFTER, BEFORE, reaction_figure
from lsviz.charts.theme import Mode, policy_colour
from lsviz.runs.config import RunConfig


def run(policy: str, steps: int = 100, layer: str = "layer3") -> ReactingRun:
    frame = pd.DataFrame(
        {"step": range(steps), "loss_scale": [64.0] * 41 + [32.0] * (steps - 41), "skipped": [False] * steps}
    )
    frame.loc[40, "skipped"] = True
    config = RunConfig.build(task="t", policy=policy, steps=100, inject=f"40:{layer}:inf")
    return ReactingRun("id", config, frame, pd.DataFrame(), pd.DataFrame())


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_s_is_drawn_around_the_fault_in_each_policys_colour(mode: Mode) -> None:
    runs = [run("gradscaler"), run("patent")]
    figure = reaction_figure(runs, ["gradscaler", "patent"], runs[0].config.injections[0], mode)
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.opacity != 0]
    assert [line.line.color for line in lines] == [
        policy_colour(name, "fp16", mode) for name in ("gradscaler", "patent")
    ]
    for line in lines:
        assert (line.x[0], line.x[-1]) == (40 - BEFORE, 40 + AFTER + 1)
        assert line.y[BEFORE] - line.y[BEFORE + 1] == 1
    assert tuple(figure.layout.xaxis.range) == (40 - BEFORE, 40 + AFTER + 1)
    assert "40" in figure.layout.xaxis.ticktext
    (dotted,) = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert dotted.x0 == dotted.x1 == 40.5
    words = [note.text for note in figure.layout.annotations]
    assert any("dotted: Inf in layer3" in text for text in words)
    assert not figure.layout.showlegend


def test_a_layers_name_is_shown_as_it_stands() -> None:
    one = run("none", layer="<b>$x$")
    figure = reaction_figure([one], ["none"], one.config.injections[0], "light")
    assert any("&lt;b&gt;&#36;x&#36;" in note.text for note in figure.layout.annotations)
