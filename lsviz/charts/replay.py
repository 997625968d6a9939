"""What other policies would have done with a run's gradients: S over its steps, and where that is a guess."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.charts.drawing import PlotlyTrace, figure_of, scatter_trace
from lsviz.charts.labels import MAX_LABEL, end_labels
from lsviz.charts.theme import PALETTES, Mode, Palette, literal, panel_title, shortened
from lsviz.charts.timelines import DASHES
from lsviz.formats import Region

HEIGHT: Final = 470
APART_PX: Final = 3
"""Between lines that would hide each other."""
MAX_MARKS: Final = 1000
"""Skipped steps that are marked a line; of more, some."""
RECORDED: Final = "recorded"
_TOP, _WHOLE, _BOTTOM = [0.4, 1.0], [0.0, 1.0], [0.0, 0.25]


@dataclass(frozen=True)
class ReplayLine:
    """One policy's line.

    Attributes:
        label: The policy's string form.
        colour: The policy's colour.
        frame: `lsviz.analysis.replay.replay_frame`.
        guess_from: The first step that is a guess; None where none is.
        raised_at: The step at which the policy gives up; None if it never does.
    """

    label: str
    colour: str
    frame: pd.DataFrame
    guess_from: int | None
    raised_at: int | None = None


def replay_figure(lines: Sequence[ReplayLine], steps: pd.DataFrame, mode: Mode) -> go.Figure:
    """Draw S over the steps: broad the recorded one, a line a policy, dotted from where it is a guess.

    Below, where the run has references, the share that a cast at each policy's S would flush.

    Args:
        lines: The policies.
        steps: The recorded run's steps table.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    low, high = _range([steps["loss_scale"], *(line.frame["loss_scale"] for line in lines)])
    shares = any(line.frame["flushed"].notna().any() for line in lines)
    panel = _TOP if shares else _WHOLE
    total = int(steps["step"].max()) + 1 if len(steps) else 1
    longest = max((len(shortened(line.label, MAX_LABEL)) for line in lines), default=0)
    traces = [_recorded(steps, palette)]
    drawn = _apart(lines, APART_PX * (high - low) / ((HEIGHT - 92) * (panel[1] - panel[0])))
    for place, (line, off) in enumerate(zip(lines, drawn, strict=True)):
        dash = DASHES[[other.colour for other in lines[:place]].count(line.colour) % len(DASHES)]
        traces += _scales(line, dash, off)
        if shares:
            traces.append(_flushed(line))
    every = max(1, math.ceil((high - low) / 8))
    ticks = range(math.ceil(low / every) * every, math.floor(high) + 1, every)
    ends = {RECORDED: _end(steps)} | {
        line.label: _end(line.frame, off) for line, off in zip(lines, drawn, strict=True) if len(line.frame)
    }
    colours = {RECORDED: palette.muted} | {line.label: line.colour for line in lines}
    notes = [
        panel_title("<b>Loss scale S</b> · × skips the step · dotted: a guess", 1.0, palette),
        *end_labels(ends, colours, low=low, high=high, height=(HEIGHT - 92) * (panel[1] - panel[0])),
        *(_stop(line, palette) for line in lines if line.raised_at is not None and len(line.frame)),
    ]
    below: dict[str, Any] = {}
    if shares:
        top = max(float(line.frame["flushed"].max()) for line in lines if line.frame["flushed"].notna().any())
        most = next(share for share in (0.01, 0.1, 0.5, 1.0) if top <= share)
        below["yaxis2"] = {
            "domain": _BOTTOM,
            "range": [-0.04 * most, 1.08 * most],
            "tickvals": [0, most / 2, most],
            "ticktext": [format_percent(share) for share in (0, most / 2, most)],
        }
        words = "<b>Flushed</b> at that S, all layers, by one cast of the reference"
        notes.append(panel_title(words, 0.25, palette))
    return figure_of(
        traces,
        mode,
        height=HEIGHT,
        margin={"l": 56, "r": min(250, 24 + 8 * max(longest, len(RECORDED))), "t": 46, "b": 46},
        hovermode="closest",
        shapes=[_border(line, line.guess_from, panel) for line in lines if line.guess_from is not None],
        xaxis={
            "anchor": "y2" if shares else "y",
            "range": [0, total],
            "showgrid": False,
            "tickformat": ",d",
            "title": {"text": "step", "standoff": 6},
        },
        yaxis={
            "domain": panel,
            "range": [low, high],
            "tickvals": list(ticks),
            "ticktext": [format_scale(2.0**k) for k in ticks],
        },
        annotations=notes,
        **below,
    )


def _recorded(steps: pd.DataFrame, palette: Palette) -> PlotlyTrace:
    x, y = _corners(steps)
    line = {"color": palette.muted, "width": 8, "shape": "hv"}
    return scatter_trace(x=x, y=y, mode="lines", line=line, opacity=0.28, name=RECORDED, hoverinfo="skip")


def _apart(lines: Sequence[ReplayLine], spread: float) -> list[float]:
    """Return by how many binades to move each line, where some would hide each other."""
    scales = [dict(zip(line.frame["step"], line.frame["loss_scale"], strict=True)) for line in lines]
    steps = set().union(*scales)
    if not any(_meet([own[step] for own in scales if step in own]) for step in steps):
        return [0.0] * len(lines)
    return [spread * ((len(lines) - 1) / 2 - place) for place in range(len(lines))]


def _meet(scales: list[float]) -> bool:
    return len(set(scales)) < len(scales)


def _scales(line: ReplayLine, dash: str, off: float) -> list[PlotlyTrace]:
    frame, name = line.frame, literal(line.label)
    guessed = frame["step"] >= (math.inf if line.guess_from is None else line.guess_from)
    exact, guess = frame[~guessed], frame[guessed]
    drawn = []
    for part, style, opacity in ((exact, dash, 1.0), (guess, "dot", 0.75)):
        if len(part):
            x, y = _corners(part, off)
            pen = {"color": line.colour, "width": 2.5, "dash": style, "shape": "hv"}
            drawn.append(
                scatter_trace(x=x, y=y, mode="lines", line=pen, opacity=opacity, name=name, hoverinfo="skip")
            )
    skipped = frame[frame["skipped"]]
    skipped = skipped.iloc[:: max(1, math.ceil(len(skipped) / MAX_MARKS))]
    hover = frame.iloc[:: max(1, math.ceil(len(frame) / MAX_MARKS))]
    mark = {"symbol": "x-thin", "size": 8, "line": {"color": line.colour, "width": 1.8}}
    drawn.append(
        scatter_trace(
            x=skipped["step"] + 0.5,
            y=_log2(skipped) + off,
            mode="markers",
            marker=mark,
            name=name,
            hoverinfo="skip",
        )
    )
    drawn.append(
        scatter_trace(
            x=hover["step"] + 0.5,
            y=_log2(hover) + off,
            mode="lines",  # never seen, and one path where marks would be thousands
            opacity=0,
            line={"width": 0, "color": line.colour},
            customdata=[_words(name, row) for row in hover.to_dict("records")],
            name=name,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    return drawn


def _words(name: str, row: Any) -> str:
    words = [f"<b>{name}</b>, step {row['step']:,}: S = {format_scale(row['loss_scale'])}"]
    words += ["skipped"] if row["skipped"] else []
    words += [] if row["exact"] else ["a guess: the run went another way"]
    words += [] if math.isnan(row["flushed"]) else [f"{format_percent(row['flushed'])} flushed"]
    return "<br>".join(words)


def _flushed(line: ReplayLine) -> PlotlyTrace:
    known = line.frame[line.frame["flushed"].notna()]
    return scatter_trace(
        x=known["step"] + 0.5,
        y=known["flushed"],
        yaxis="y2",
        mode="lines+markers",
        line={"color": line.colour, "width": 1.5},
        marker={"size": 4},
        customdata=[format_percent(share) for share in known["flushed"]],
        hovertemplate=f"<b>{literal(line.label)}</b>, step %{{x:,d}}: %{{customdata}} flushed<extra></extra>",
    )


def _border(line: ReplayLine, step: int, panel: list[float]) -> dict[str, Any]:
    """Where a replay stops being exact."""
    place = {"x0": step, "x1": step, "y0": panel[0], "y1": panel[1], "yref": "paper"}
    return {"type": "line", "xref": "x", **place, "line": {"color": line.colour, "width": 1.2}}


def _stop(line: ReplayLine, palette: Palette) -> dict[str, Any]:
    x, y = _end(line.frame)
    return {
        "text": "<b>gives up</b>",
        "x": x,
        "y": y,
        "showarrow": True,
        "arrowhead": 2,
        "arrowcolor": palette.region_text[Region.OVERFLOW],
        "ax": -40,
        "ay": -30,
        "font": {"size": 13, "color": palette.region_text[Region.OVERFLOW]},
    }


def _log2(frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    scales = frame["loss_scale"].to_numpy(np.float64)
    found: npt.NDArray[np.float64] = np.full(scales.shape, np.nan)
    np.log2(scales, out=found, where=scales > 0)
    return found


def _corners(frame: pd.DataFrame, off: float = 0.0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return where S changes, and its end one step further on, so that the last step has a width too."""
    steps, heights = frame["step"].to_numpy(np.int64), _log2(frame) + off
    kept = np.ones(len(steps), bool)
    kept[1:] = heights[1:] != heights[:-1]
    x, y = steps[kept], heights[kept]
    return np.append(x, steps[-1:] + 1), np.append(y, heights[-1:])


def _end(frame: pd.DataFrame, off: float = 0.0) -> tuple[float, float]:
    if not len(frame):
        return 0.0, 0.0
    return float(frame["step"].iloc[-1]) + 1, float(_log2(frame.tail(1))[0]) + off


def _range(scales: Sequence[pd.Series[Any]]) -> tuple[float, float]:
    every = pd.concat(list(scales))
    every = every[every > 0]
    if every.empty:
        return -0.6, 16.6
    low, high = math.floor(math.log2(every.min())), math.ceil(math.log2(every.max()))
    return (low - 0.6, high + 0.6) if high - low >= 4 else (low - 2.6, high + 2.6)
