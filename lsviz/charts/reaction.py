"""S of several runs around a fault that all of them were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.reaction import ReactingRun
from lsviz.analysis.traces import TRACE_COLUMNS
from lsviz.charts.theme import PALETTES, Mode, literal, policy_colour, shortened
from lsviz.charts.traces import trace_figure
from lsviz.formats import Region
from lsviz.policies import Trace
from lsviz.runs.injection import Injection

BEFORE: Final = 5
AFTER: Final = 30
"""How many steps are shown around the fault: enough to see who is back soon."""
_WORDS: Final = {"inf": "Inf", "nan": "NaN", "huge": "huge values"}


def reaction_figure(
    runs: Sequence[ReactingRun], labels: Sequence[str], fault: Injection, mode: Mode
) -> go.Figure:
    """Draw S at the faulty layer over the steps around a fault, a line a run, the fault marked.

    Args:
        runs: Each with this fault; those that ended before it are left out.
        labels: A few words for each, all different.
        fault: The one to show.
        mode: ``light`` or ``dark``.
    """
    start = max(0, fault.step - BEFORE)
    shown = [
        (run, label) for run, label in zip(runs, labels, strict=True) if (run.steps["step"] >= start).any()
    ]
    frames = [_window(run, label, fault, start) for run, label in shown]
    frame = pd.concat(frames) if frames else pd.DataFrame(columns=TRACE_COLUMNS)
    traces = {label: Trace([], []) for _, label in shown}
    colours = {label: policy_colour(run.config.policy, run.config.precision, mode) for run, label in shown}
    last = int(frame["step"].max()) if len(frame) else fault.step
    figure = trace_figure(frame, traces, colours, last + 1 - start, mode, first=start)
    colour = PALETTES[mode].region_text[Region.OVERFLOW]
    figure.add_shape(
        type="line",
        x0=fault.step + 0.5,
        x1=fault.step + 0.5,
        xref="x",
        y0=0,
        y1=1,
        yref="paper",
        layer="below",
        line={"color": colour, "width": 1.5, "dash": "dot"},
    )
    layer = literal(shortened(fault.layer, 24, keep_end=True))
    words = f"<b>Loss scale S</b> · × marks a skipped step · dotted: {_WORDS[fault.kind]} in {layer}"
    figure.update_annotations(text=words, selector={"text": figure.layout.annotations[0].text})
    return figure


def _window(run: ReactingRun, label: str, fault: Injection, start: int) -> pd.DataFrame:
    scales = run.scales(fault.layer)
    after = scales.shift(-1).fillna(scales)
    steps = run.steps.set_index("step")
    steps = steps[(steps.index >= start) & (steps.index <= fault.step + AFTER)]
    columns = (label, steps.index, scales.reindex(steps.index), steps["skipped"].astype(bool))
    rows = dict(zip(TRACE_COLUMNS, (*columns, after.reindex(steps.index), ""), strict=True))
    return pd.DataFrame(rows).reset_index(drop=True)
