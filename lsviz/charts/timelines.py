"""What happened over the steps: loss, loss scale with its skips, and the flushed share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.charts.drawing import PlotlyTrace, figure_of, scatter_trace
from lsviz.charts.theme import PALETTES, Mode, Palette, literal, panel_title, shortened
from lsviz.formats import Region
from lsviz.runs.injection import Injection

MAX_POINTS: Final = 2000
MAX_LABEL: Final = 24
DASHES: Final = ("solid", "dash", "dot", "dashdot")
PANELS: Final = ([0.66, 1.0], [0.34, 0.58], [0.0, 0.25])
LOG2: Final = float(np.log10(2))
_TITLES: Final = (
    "<b>Loss</b>",
    "<b>Loss scale S</b> · × marks a skipped step",
    "<b>Flushed share</b>, all layers",
)
_FAULT_TITLE: Final = " · ▼ an injected fault"
_UNKNOWN: Final = " · not known without an FP32 reference"


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run's lines.

    Attributes:
        label: The run in a few words, written at the line's end.
        colour: The policy's colour.
        steps: The steps table (step, loss, loss_scale, skipped).
        flushed: Frame of step and flushed (`total_flushed_frame`).
        dash: Index into DASHES, to tell runs of one policy apart.
        faults: The faults that it was given.
        compared: Whether it has FP32 references, now or later.
    """

    label: str
    colour: str
    steps: pd.DataFrame
    flushed: pd.DataFrame
    dash: int = 0
    faults: Sequence[Injection] = ()
    compared: bool = True


def timeline_figure(lines: Sequence[Timeline], total_steps: int, mode: Mode) -> go.Figure:
    """Draw three panels over one axis of steps; a cross marks each skipped step, a triangle each fault.

    Args:
        lines: One to four runs.
        total_steps: Right end of the axis, fixed from the start so that a live chart does not jump.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    low, high = _scale_exponents(lines)
    every = max(4, 4 * ((high - low) // 16))
    ticks = range(low - low % every, high + 1, every)
    longest = max((len(shortened(line.label, MAX_LABEL)) for line in lines), default=0)
    top = 2.0 ** (high + 1.8)
    traces = [trace for line in lines for trace in _traces(line)]
    faults = _faults(lines, top, palette)
    loss, scale, share = _TITLES
    compared = not lines or any(line.compared for line in lines)
    titles = (loss, scale + (_FAULT_TITLE if faults else ""), share + ("" if compared else _UNKNOWN))
    return figure_of(
        [*traces, *faults],
        mode,
        height=560,
        margin={"l": 52, "r": min(200, 16 + 8 * longest), "t": 30, "b": 46},
        hovermode="closest",
        xaxis={
            "anchor": "y3",
            "range": [0, max(1, total_steps - 1)],
            "showgrid": False,
            "title": {"text": "step", "standoff": 6},
            **({"dtick": 1} if total_steps <= 10 else {}),
        },
        yaxis={"domain": PANELS[0], "rangemode": "tozero"},
        yaxis2={
            "domain": PANELS[1],
            "type": "log",
            "range": [(low - 1) * LOG2, (high + 2) * LOG2],
            "tickvals": [2.0**e for e in ticks],
            "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in ticks],
        },
        yaxis3={
            "domain": PANELS[2],
            "range": [-0.03, 1.03],
            "tickvals": [0, 0.5, 1],
            "ticktext": ["0 %", "50 %", "100 %"],
        },
        annotations=[
            *(panel_title(text, panel[1], palette) for text, panel in zip(titles, PANELS, strict=True)),
            *_end_labels(lines),
        ],
    )


def _traces(line: Timeline) -> list[PlotlyTrace]:
    style = {"color": line.colour, "width": 2, "dash": DASHES[line.dash % len(DASHES)]}
    cross = {"symbol": "x-thin", "size": 9, "line": {"color": line.colour, "width": 2}}
    name = literal(line.label)
    before = f"{name}<br>" if name else ""
    steps = _thinned(line.steps)
    mode = "lines" if len(steps) > 1 else "markers+lines"  # one point makes no line
    skipped = line.steps[line.steps["skipped"].astype(bool)]
    return [
        scatter_trace(
            x=steps["step"],
            y=steps["loss"],
            mode=mode,
            line=style,
            name=name,
            yaxis="y",
            hovertemplate=f"{before}step %{{x}}: loss %{{y:.4g}}<extra></extra>",
        ),
        scatter_trace(
            x=steps["step"],
            y=steps["loss_scale"],
            mode=mode,
            line={**style, "shape": "hv"},
            name=name,
            yaxis="y2",
            hovertemplate=f"{before}step %{{x}}: S = %{{y:,}}<extra></extra>",
        ),
        scatter_trace(
            x=skipped["step"],
            y=skipped["loss_scale"],
            mode="markers",
            name=name,
            marker=cross,
            yaxis="y2",
            hovertemplate=f"{before}step %{{x}} skipped at S = %{{y:,}}<extra></extra>",
        ),
        scatter_trace(
            x=line.flushed["step"],
            y=line.flushed["flushed"],
            mode=mode,
            line=style,
            name=name,
            yaxis="y3",
            hovertemplate=f"{before}step %{{x}}: %{{y:.1%}} flushed<extra></extra>",
        ),
    ]


def _faults(lines: Sequence[Timeline], height: float, palette: Palette) -> list[PlotlyTrace]:
    """Return a triangle over the panel of S for each step with faults, whose hover names them."""
    by_step: dict[int, dict[str, None]] = {}
    for line in lines:
        for fault in line.faults:
            by_step.setdefault(fault.step, {})[f"{fault.kind} in {literal(fault.layer)}"] = None
    if not by_step:
        return []
    return [
        scatter_trace(
            x=list(by_step),
            y=[height] * len(by_step),
            mode="markers",
            marker={"symbol": "triangle-down", "size": 9, "color": palette.region_text[Region.OVERFLOW]},
            yaxis="y2",
            cliponaxis=False,
            customdata=[", ".join(words) for words in by_step.values()],
            hovertemplate="step %{x}: %{customdata}<extra></extra>",
        )
    ]


def _thinned(steps: pd.DataFrame) -> pd.DataFrame:
    """Keep at most MAX_POINTS evenly spaced rows, the last one included."""
    if len(steps) <= MAX_POINTS:
        return steps
    return steps.iloc[np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).astype(int))]


def _end_labels(lines: Sequence[Timeline]) -> list[dict[str, Any]]:
    """Each run's name at the end of its loss line, pushed apart where lines meet."""
    drawn = [line for line in lines if len(line.steps) and line.label]
    losses = [line.steps["loss"].replace([np.inf, -np.inf], np.nan) for line in drawn]
    top = max((float(loss.max()) for loss in losses), default=1.0)
    top = top if np.isfinite(top) and top > 0 else 1.0
    ends = [float(loss.iloc[-1]) if np.isfinite(loss.iloc[-1]) else top for loss in losses]
    labels = []
    previous = -np.inf
    for index in np.argsort(ends):
        previous = max(ends[index], previous + 0.11 * top)
        labels.append(
            {
                "text": f"<b>{literal(shortened(drawn[index].label, MAX_LABEL))}</b>",
                "x": int(drawn[index].steps["step"].iloc[-1]),
                "xref": "x",
                "xanchor": "left",
                "xshift": 6,
                "y": previous,
                "yref": "y",
                "yanchor": "middle",
                "align": "left",
                "showarrow": False,
                "font": {"size": 13, "color": drawn[index].colour},
            }
        )
    return labels


def _scale_exponents(lines: Sequence[Timeline]) -> tuple[int, int]:
    """The log2 range of S to show: all scales used, and always 1 to 2^16."""
    positive = [line.steps["loss_scale"][line.steps["loss_scale"] > 0] for line in lines]
    present = [np.log2(p.to_numpy(dtype=float)) for p in positive if len(p)]
    if not present:
        return 0, 16
    low = min(0, *(int(np.floor(p.min())) for p in present))
    return low, max(16, *(int(np.ceil(p.max())) for p in present))
