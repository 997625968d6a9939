"""Updates thrown away over the steps: how far a learning-rate schedule runs ahead of the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.charts.drawing import PlotlyTrace, figure_of, scatter_trace
from lsviz.charts.labels import MAX_LABEL, end_labels
from lsviz.charts.theme import PALETTES, Mode, literal, panel_title, shortened

HEIGHT: Final = 260


@dataclass(frozen=True)
class LostLine:
    """One policy's line.

    Attributes:
        label: What is written at its end.
        colour: Its colour; None for the recorded run's.
        lost: `lsviz.analysis.skips.lost_steps_frame`.
    """

    label: str
    colour: str | None
    lost: pd.DataFrame


def lost_steps_figure(lines: Sequence[LostLine], mode: Mode) -> go.Figure:
    """Draw the number of thrown-away updates over the steps, a line a policy.

    Args:
        lines: In the order in which they cover each other.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    colours = {line.label: line.colour or palette.muted for line in lines}
    most = max((int(line.lost["lost"].max()) for line in lines if len(line.lost)), default=0)
    last = max((int(line.lost["step"].max()) + 1 for line in lines if len(line.lost)), default=1)
    longest = max((len(shortened(line.label, MAX_LABEL)) for line in lines), default=0)
    low, high = -0.04 * max(most, 1), 1.12 * max(most, 1)
    ends = {
        line.label: (float(line.lost["step"].iloc[-1]) + 1, float(line.lost["lost"].iloc[-1]))
        for line in lines
        if len(line.lost)
    }
    return figure_of(
        [_line(line, colours[line.label]) for line in lines],
        mode,
        height=HEIGHT,
        margin={"l": 56, "r": min(250, 24 + 8 * longest), "t": 36, "b": 46},
        hovermode="closest",
        xaxis={
            "range": [0, last],
            "showgrid": False,
            "tickformat": ",d",
            "title": {"text": "step", "standoff": 6},
        },
        yaxis={"range": [low, high], "tickformat": ",d", "nticks": 5, "rangemode": "tozero"},
        annotations=[
            panel_title("<b>Updates thrown away</b> so far: a schedule is so many steps ahead", 1.0, palette),
            *end_labels(ends, colours, low=low, high=high, height=HEIGHT - 82),
        ],
    )


def _line(line: LostLine, colour: str) -> PlotlyTrace:
    steps, lost = line.lost["step"].to_numpy(np.int64), line.lost["lost"].to_numpy(np.int64)
    kept = np.ones(len(steps), bool)
    kept[1:-1] = (lost[1:-1] != lost[:-2]) | (lost[1:-1] != lost[2:])
    recorded = line.colour is None
    return scatter_trace(
        x=steps[kept] + 1,
        y=lost[kept],
        mode="lines",
        name=literal(line.label),
        opacity=0.4 if recorded else 1.0,
        line={"color": colour, "width": 7 if recorded else 2.5, "shape": "hv"},
        hovertemplate=f"<b>{literal(line.label)}</b>: %{{y:,d}} thrown away by step %{{x:,d}}<extra></extra>",
    )
