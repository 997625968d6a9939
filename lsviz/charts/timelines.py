"""What happened over the steps: loss, loss scale with its skips, and the flushed share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lsviz.charts.theme import PALETTES, Mode, base_layout, literal

MAX_POINTS: Final = 2000
DASHES: Final = ("solid", "dash", "dot", "dashdot")
_TITLES: Final = ("Loss", "Loss scale S", "Flushed share, all layers")


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run's lines.

    Attributes:
        label: The run in a few words, written at the line's end.
        colour: The policy's colour.
        steps: The steps table (step, loss, loss_scale, skipped).
        flushed: Frame of step and flushed (`total_flushed_frame`).
        dash: Index into DASHES, to tell runs of one policy apart.
    """

    label: str
    colour: str
    steps: pd.DataFrame
    flushed: pd.DataFrame
    dash: int = 0


def timeline_figure(lines: Sequence[Timeline], total_steps: int, mode: Mode) -> go.Figure:
    """Draw three panels over one axis of steps; a cross marks each skipped step.

    Args:
        lines: One to four runs.
        total_steps: Right end of the axis, fixed from the start so that a live chart does not jump.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[4, 3, 3])
    figure.update_layout(base_layout(mode))
    for line in lines:
        style = {"color": line.colour, "width": 2, "dash": DASHES[line.dash % len(DASHES)]}
        name = literal(line.label)
        steps = _thinned(line.steps)
        figure.add_trace(
            go.Scatter(
                x=steps["step"], y=steps["loss"], mode="lines", line=style, name=name,
                hovertemplate=f"{name}<br>step %{{x}}: loss %{{y:.4g}}<extra></extra>",
            ),
            row=1, col=1,
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=steps["step"], y=steps["loss_scale"], mode="lines", line={**style, "shape": "hv"}, name=name,
                hovertemplate=f"{name}<br>step %{{x}}: S = %{{y:,}}<extra></extra>",
            ),
            row=2, col=1,
        )  # fmt: skip
        skipped = line.steps[line.steps["skipped"].astype(bool)]
        figure.add_trace(
            go.Scatter(
                x=skipped["step"], y=skipped["loss_scale"], mode="markers", name=name,
                marker={"symbol": "x-thin", "size": 9, "line": {"color": line.colour, "width": 2}},
                hovertemplate=f"{name}<br>step %{{x}} skipped at S = %{{y:,}}<extra></extra>",
            ),
            row=2, col=1,
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=line.flushed["step"], y=line.flushed["flushed"], mode="lines", line=style, name=name,
                hovertemplate=f"{name}<br>step %{{x}}: %{{y:.1%}} flushed<extra></extra>",
            ),
            row=3, col=1,
        )  # fmt: skip
    _label_ends(figure, lines)
    for row, title in enumerate(_TITLES, start=1):
        axis = figure.layout["yaxis" if row == 1 else f"yaxis{row}"]
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=axis.domain[1], yref="paper", yanchor="bottom",
            text=f"<b>{title}</b>" + (" · × marks a skipped step" if row == 2 else ""),
            font={"size": 13, "color": palette.text}, showarrow=False,
        )  # fmt: skip
    figure.update_xaxes(range=[0, max(1, total_steps - 1)], showgrid=False)
    figure.update_xaxes(title={"text": "step", "standoff": 6}, row=3, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_yaxes(type="log", dtick=_scale_ticks(lines), exponentformat="power", row=2, col=1)
    figure.update_yaxes(range=_scale_range(lines), row=2, col=1)
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%", tickvals=[0, 0.5, 1], row=3, col=1)
    longest = max((len(line.label) for line in lines), default=0)
    figure.update_layout(
        height=560, margin={"l": 58, "r": min(200, 24 + 7 * longest), "t": 30, "b": 46}, hovermode="closest"
    )
    return figure


def _thinned(steps: pd.DataFrame) -> pd.DataFrame:
    """Keep at most MAX_POINTS evenly spaced rows, the last one included."""
    if len(steps) <= MAX_POINTS:
        return steps
    return steps.iloc[np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).astype(int))]


def _label_ends(figure: go.Figure, lines: Sequence[Timeline]) -> None:
    """Write each run's name at the end of its loss line, pushed apart where lines meet."""
    drawn = [line for line in lines if len(line.steps)]
    values = [float(line.steps["loss"].iloc[-1]) for line in drawn]
    order = np.argsort([v if np.isfinite(v) else np.inf for v in values])
    top = max((float(line.steps["loss"].replace([np.inf], np.nan).max()) for line in drawn), default=1.0)
    least = 0.13 * top if top > 0 else 0.1
    previous = -np.inf
    for index in order:
        value = values[index] if np.isfinite(values[index]) else top
        y = max(value, previous + least)
        previous = y
        figure.add_annotation(
            x=1, xref="paper", xanchor="left", xshift=6, y=y, yref="y", yanchor="middle",
            text=f"<b>{literal(drawn[index].label)}</b>", align="left",
            font={"size": 13, "color": drawn[index].colour}, showarrow=False,
        )  # fmt: skip


def _scale_exponents(lines: Sequence[Timeline]) -> tuple[int, int]:
    positive = [line.steps["loss_scale"][line.steps["loss_scale"] > 0] for line in lines]
    present = [np.log2(p.to_numpy(dtype=float)) for p in positive if len(p)]
    if not present:
        return 0, 16
    return int(np.floor(min(p.min() for p in present))), int(np.ceil(max(p.max() for p in present)))


def _scale_range(lines: Sequence[Timeline]) -> list[float]:
    low, high = _scale_exponents(lines)
    return [(min(low, 0) - 1) * np.log10(2), (max(high, 16) + 1) * np.log10(2)]


def _scale_ticks(lines: Sequence[Timeline]) -> float:
    low, high = _scale_exponents(lines)
    return float(np.log10(2) * max(4, 4 * ((high - low) // 16)))
