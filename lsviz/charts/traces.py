"""What policies would do with S over one series of steps, on one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_scale
from lsviz.charts.drawing import PlotlyTrace, figure_of, scatter_trace
from lsviz.charts.labels import LABEL_PX, MAX_LABEL, end_labels
from lsviz.charts.theme import PALETTES, Mode, Palette, literal, panel_title, shortened
from lsviz.charts.timelines import DASHES
from lsviz.formats import Region
from lsviz.policies import Trace

HEIGHT: Final = 440
MAX_HEIGHT: Final = 640
SPREAD: Final = 0.09
"""Binades between lines that would hide each other."""


def trace_figure(
    frame: pd.DataFrame,
    traces: Mapping[str, Trace],
    colours: Mapping[str, str],
    steps: int,
    mode: Mode,
    amax: Sequence[float] | None = None,
    first: int = 0,
) -> go.Figure:
    """Draw S over the steps, a line a policy, named at its end.

    Lines that would lie upon each other are drawn a little apart, and a colour used twice is dashed.
    Steps at which every policy overflows are shaded; where policies differ, a cross marks each one's.

    Args:
        frame: `lsviz.analysis.traces.traces_frame`.
        traces: Label -> trace, in the frame's order.
        colours: Label -> colour.
        steps: Length of the series.
        mode: ``light`` or ``dark``.
        amax: Largest unscaled magnitude of each step, where policies were driven by it: drawn below.
        first: Number of the first step.
    """
    palette = PALETTES[mode]
    shared = _shared_overflows(frame, list(traces))
    low, high = _range(frame)
    every = next(n for n in (1, 2, 4, 8, 16, 32, 64) if (high - low) / n <= 8 or n == 64)
    ticks = list(range(low + -low % every, high + 1, every))
    longest = max((len(shortened(label, MAX_LABEL)) for label in traces), default=0)
    top_panel = [0.36, 1.0] if amax is not None else [0.0, 1.0]
    height = min(MAX_HEIGHT, max(HEIGHT, 120 + LABEL_PX * len(traces)) + (140 if amax is not None else 0))
    drawn = _lines(frame, traces, colours, shared)
    notes = [
        panel_title("<b>Loss scale S</b> in force at each step", 1.0, palette),
        *_end_labels(frame, traces, colours, low, high, height * (top_panel[1] - top_panel[0])),
        *_ends(traces, frame, palette),
    ]
    below: dict[str, Any] = {}
    if amax is not None:
        drawn.append(_amax_line(amax, palette))
        exponents = [int(np.floor(np.log2(a))) for a in amax if 0 < a < np.inf]
        bottom, top = (min(exponents), max(exponents) + 1) if exponents else (-10, 0)
        some = sorted({bottom, (bottom + top) // 2, top})
        below["yaxis2"] = {
            "domain": [0.0, 0.24],
            "range": [bottom - 0.8, top + 0.8],
            "tickvals": some,
            "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in some],
        }
        words = "<b>Largest gradient</b>, unscaled · ∞ marks an Inf or NaN"
        notes.append(panel_title(words, 0.24, palette))
    return figure_of(
        drawn,
        mode,
        height=height,
        margin={"l": 56, "r": min(250, 24 + 8 * longest), "t": 30, "b": 46},
        hovermode="closest",
        xaxis={
            "anchor": "y2" if amax is not None else "y",
            "range": [first, first + max(1, steps)],
            "showgrid": False,
            "title": {"text": "step", "standoff": 6},
            "tickvals": [step + 0.5 for step in _step_ticks(first, steps)],
            "ticktext": [f"{step:,}" for step in _step_ticks(first, steps)],
        },
        yaxis={
            "domain": top_panel,
            "range": [low - 0.6, high + 0.6],
            "tickvals": ticks,
            "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in ticks],
        },
        shapes=_bands(shared, palette),
        annotations=notes,
        **below,
    )


def _lines(
    frame: pd.DataFrame, traces: Mapping[str, Trace], colours: Mapping[str, str], shared: Sequence[int]
) -> list[PlotlyTrace]:
    lines: list[PlotlyTrace] = []
    seen: list[str] = []
    offsets = _offsets(frame, list(traces))
    for label in traces:
        own = frame[frame["policy"] == label]
        colour = colours[label]
        style = {
            "color": colour,
            "width": 2.5,
            "dash": DASHES[seen.count(colour) % len(DASHES)],
            "shape": "hv",
        }
        seen.append(colour)
        name = literal(label)
        scales = own["loss_scale"].to_numpy(dtype=float)
        heights = np.log2(scales, out=np.full(scales.shape, np.nan), where=scales > 0) + offsets[label]
        steps = own["step"].to_numpy(dtype=int)
        hover = [_hover(name, row) for row in own.to_dict("records")]
        # The last step ends one further on, so that it has a width too.
        x = np.append(steps, steps[-1:] + 1)
        y = np.append(heights, heights[-1:])
        lines.append(scatter_trace(x=x, y=y, mode="lines", line=style, name=name, hoverinfo="skip"))
        lines.append(
            scatter_trace(
                x=steps + 0.5,
                y=heights,
                mode="lines",  # never seen, and one path where marks would be hundreds
                opacity=0,
                line={"width": 0, "color": colour},
                customdata=hover,
                name=name,
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
        crossed = own["overflow"].to_numpy(dtype=bool) & ~np.isin(steps, list(shared))
        lines.append(
            scatter_trace(
                x=steps[crossed] + 0.5,
                y=heights[crossed],
                mode="markers",
                marker={"symbol": "x-thin", "size": 9, "line": {"color": colour, "width": 2}},
                name=name,
                hoverinfo="skip",
            )
        )
    return lines


def _hover(name: str, row: Mapping[Any, Any]) -> str:
    lines = [
        f"<b>{name}</b>, step {row['step']}: S = {format_scale(row['loss_scale'])}"
        f"{', overflow' if row['overflow'] else ''}",
        f"after it S = {format_scale(row['after'])}",
        literal(row["remembers"]),
    ]
    return "<br>".join(line for line in lines if line)


def _amax_line(amax: Sequence[float], palette: Palette) -> PlotlyTrace:
    values = np.array(amax, dtype=float)
    finite = np.isfinite(values) & (values > 0)
    heights = np.full(values.shape, np.nan)
    heights[finite] = np.log2(values[finite])
    top = float(np.nanmax(heights)) if finite.any() else 0.0
    odd = ~np.isfinite(values)
    return scatter_trace(
        x=np.arange(len(values)) + 0.5,
        y=np.where(odd, top + 0.3, heights),
        mode="lines+markers+text",
        line={"color": palette.neutral, "width": 1.5},
        marker={"size": [1 if o else 4 for o in odd], "color": palette.neutral},
        text=["∞" if o else "" for o in odd],
        textfont={"color": palette.region_text[Region.OVERFLOW], "size": 15},
        textposition="middle center",
        yaxis="y2",
        customdata=[f"{value:.4g}" for value in values],
        hovertemplate="step %{pointNumber}: largest |g| %{customdata}<extra></extra>",
        connectgaps=False,
    )


def _shared_overflows(frame: pd.DataFrame, labels: Sequence[str]) -> list[int]:
    """Steps at which every policy that is still there overflows."""
    if not labels:
        return []
    by_step = frame.groupby("step")["overflow"].all()
    return [int(step) for step in by_step.index[by_step.to_numpy(dtype=bool)]]


def _offsets(frame: pd.DataFrame, labels: Sequence[str]) -> dict[str, float]:
    """Move lines a little apart, in order, where any two share a scale at some step."""
    wide = frame.pivot(index="step", columns="policy", values="loss_scale")
    meet = len(labels) > 1 and bool((wide.nunique(axis=1) < wide.notna().sum(axis=1)).any())
    spread = min(SPREAD, 0.5 / len(labels)) if meet else 0.0
    return {label: spread * ((len(labels) - 1) / 2 - place) for place, label in enumerate(labels)}


def _range(frame: pd.DataFrame) -> tuple[int, int]:
    positive = frame["loss_scale"][frame["loss_scale"] > 0]
    if positive.empty:
        return 0, 16
    low, high = int(np.floor(np.log2(positive.min()))), int(np.ceil(np.log2(positive.max())))
    return (low, high) if high - low >= 4 else (low - 2, high + 2)


def _step_ticks(first: int, steps: int) -> list[int]:
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if steps / n <= 25)
    return list(range(first + -first % every, first + steps, every))


def _bands(overflows: Sequence[int], palette: Palette) -> list[dict[str, Any]]:
    return [
        {
            "type": "rect",
            "layer": "below",
            "xref": "x",
            "yref": "paper",
            "x0": step,
            "x1": step + 1,
            "y0": 0,
            "y1": 1,
            "fillcolor": palette.bands[Region.OVERFLOW],
            "line": {"width": 0},
        }
        for step in overflows
    ]


def _end_labels(
    frame: pd.DataFrame,
    traces: Mapping[str, Trace],
    colours: Mapping[str, str],
    low: int,
    high: int,
    height: float,
) -> list[dict[str, Any]]:
    """Each policy's name at its line's end."""
    offsets = _offsets(frame, list(traces))
    ends = {}
    for label in traces:
        own = frame[(frame["policy"] == label) & (frame["loss_scale"] > 0)]
        if len(own):
            last = float(np.log2(own["loss_scale"].iloc[-1])) + offsets[label]
            ends[label] = (float(own["step"].iloc[-1]) + 1, last)
    return end_labels(ends, colours, low=low - 0.6, high=high + 0.6, height=height - 76)


def _ends(traces: Mapping[str, Trace], frame: pd.DataFrame, palette: Palette) -> list[dict[str, Any]]:
    """Where a policy gave up, and where its S can no longer be undone."""
    notes = []
    for label, trace in traces.items():
        own = frame[frame["policy"] == label]
        for step, words in ((trace.raised_at, "gives up"), (trace.unsafe_at, "1/S = ∞")):
            if step is None or own.empty:
                continue
            here = own[own["step"] <= step].iloc[-1]
            if here["loss_scale"] <= 0:
                continue
            notes.append(
                {
                    "text": f"<b>{words}</b>",
                    "x": min(step, int(own["step"].iloc[-1])) + 0.5,
                    "y": float(np.log2(here["loss_scale"])),
                    "showarrow": True,
                    "arrowhead": 2,
                    "arrowcolor": palette.region_text[Region.OVERFLOW],
                    "ax": -40,
                    "ay": -30,
                    "font": {"size": 13, "color": palette.region_text[Region.OVERFLOW]},
                }
            )
    return notes
