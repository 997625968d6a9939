"""How far each way to update the weights parts from float64, over the steps."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.updates import RIGHT, SLIGHT
from lsviz.charts.drawing import PlotlyTrace, figure_of, scatter_trace
from lsviz.charts.theme import PALETTES, Mode, Palette, literal, panel_title, shortened
from lsviz.charts.timelines import DASHES
from lsviz.formats import Region

MAX_NAME: Final = 16
COLUMNS: Final = 2
COLUMN_GAP: Final = 0.04
PANEL_PX: Final = 210
PANEL_GAP_PX: Final = 58
LABEL_ROOM: Final = 0.42
"""Of a panel's steps once more, at its right end, for the names of its lines."""
LABEL_GAP: Final = 0.085
"""Smallest distance of two names, as a share of the axis."""
WIDTHS: Final = (6.0, 4.0, 2.0)
"""The first line is the widest, so that those that coincide are seen to lie on each other."""


def weight_error_figure(frame: pd.DataFrame, mode: Mode) -> go.Figure:
    """Draw the weight error over the steps on one logarithmic axis: a panel a group, a line a variant.

    Lines are coloured by how far they end: right, nearly right, wrong.

    Args:
        frame: `lsviz.analysis.lab.error_curve_frame`.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    groups = list(dict.fromkeys(frame["group"]))
    rows = math.ceil(len(groups) / COLUMNS) or 1
    height = rows * (PANEL_PX + PANEL_GAP_PX)
    errors = np.log10(frame["weight_error"].to_numpy(dtype=float)) if len(frame) else np.array([-6.0])
    ends = (min(-8.0, float(errors.min()) - 0.5), max(1.0, float(errors.max()) + 0.6))
    traces: list[PlotlyTrace] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    for place, group in enumerate(groups):
        number = "" if place == 0 else str(place + 1)
        left, right, bottom, top = _panel(place, rows, height)
        mine = frame[frame["group"] == group]
        last = int(mine["step"].max()) or 1
        lines, labels = _lines(mine, number, ends, last, palette)
        traces += lines
        notes += [*labels, {**panel_title(f"<b>{literal(_sentence(group))}</b>", top, palette), "x": left}]
        shapes += _background(number, ends, last, palette)
        notes += [_right_label(number, ends, palette)] if place == 0 else []
        axes |= _axes(number, (left, right), (bottom, top), ends, last, first=place % COLUMNS == 0)
    return figure_of(
        traces,
        mode,
        height=height + 20,
        margin={"l": 62, "r": 10, "t": 30, "b": 48},
        hovermode="closest",
        shapes=shapes,
        annotations=notes,
        **axes,
    )


def _panel(place: int, rows: int, height: float) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of a panel as shares of the plot."""
    width = (1 - COLUMN_GAP * (COLUMNS - 1)) / COLUMNS
    left = (place % COLUMNS) * (width + COLUMN_GAP)
    top = 1 - (place // COLUMNS) * (PANEL_PX + PANEL_GAP_PX) / (height - PANEL_GAP_PX)
    return left, left + width, max(0.0, top - PANEL_PX / (height - PANEL_GAP_PX)), top


def _lines(
    frame: pd.DataFrame, number: str, ends: tuple[float, float], last: int, palette: Palette
) -> tuple[list[PlotlyTrace], list[dict[str, Any]]]:
    """Return a panel's lines, and their names where they end, pushed apart where they meet."""
    names = list(dict.fromkeys(frame["name"]))
    by_name = {name: frame[frame["name"] == name] for name in names}
    errors = {name: float(rows["weight_error"].iloc[-1]) for name, rows in by_name.items()}
    colours = [_colour(errors[name], palette) for name in names]
    traces = [
        scatter_trace(
            x=by_name[name]["step"],
            y=by_name[name]["weight_error"],
            xaxis=f"x{number}",
            yaxis=f"y{number}",
            mode="lines" if len(by_name[name]) > 1 else "markers",
            name=literal(name),
            marker={"color": colour, "size": 9},
            line={
                "color": colour,
                "width": WIDTHS[min(colours[:i].count(colour), len(WIDTHS) - 1)],
                "dash": DASHES[colours[:i].count(colour) % len(DASHES)],
            },
            hovertemplate=f"{literal(name)}<br>step %{{x}}: %{{y:.2g}} of the way<extra></extra>",
        )
        for i, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    places = _apart(np.log10([errors[name] for name in names]), LABEL_GAP * (ends[1] - ends[0]))
    labels = []
    for name, colour, place in zip(names, colours, places, strict=True):
        short = len(by_name[name]) == 1
        at = math.log10(errors[name]) if short else place
        label = _text(literal(shortened(name, MAX_NAME)), int(by_name[name]["step"].iloc[-1]), at, colour)
        paper = {"bgcolor": palette.paper} if short else {}  # beside a point, in front of what lies there
        labels.append(
            {**label, **paper, "xref": f"x{number}", "yref": f"y{number}", "xshift": 8 if short else 5}
        )
    return traces, labels


def _apart(values: np.ndarray[Any, Any], gap: float) -> np.ndarray[Any, Any]:
    """Move values as little as it takes to have a gap between any two, keeping their order."""
    order = np.argsort(values, kind="stable")
    runs: list[list[float]] = []  # neighbours that touch move together, about their common mean
    for value in values[order] - gap * np.arange(len(values)):
        runs.append([float(value)])
        while len(runs) > 1 and np.mean(runs[-2]) > np.mean(runs[-1]):
            runs[-2:] = [runs[-2] + runs[-1]]
    places = np.empty(len(values))
    places[order] = np.repeat([np.mean(run) for run in runs], [len(run) for run in runs])
    places[order] += gap * np.arange(len(values))
    return places


def _colour(error: float, palette: Palette) -> str:
    if error <= RIGHT:
        return palette.region_text[Region.NORMAL]
    return palette.region_text[Region.SUBNORMAL if error <= SLIGHT else Region.FLUSHED]


def _axes(
    number: str,
    across: tuple[float, float],
    up: tuple[float, float],
    ends: tuple[float, float],
    last: int,
    *,
    first: bool,
) -> dict[str, Any]:
    powers = _powers(ends)
    return {
        f"xaxis{number}": {
            "domain": list(across),
            "anchor": f"y{number}",
            "range": [-0.02 * last, last * (1 + LABEL_ROOM)],
            "tickvals": _step_ticks(last),
            "tickformat": ",d",
            "showgrid": False,
            "title": {"text": "step", "standoff": 2},
        },
        f"yaxis{number}": {
            "domain": list(up),
            "anchor": f"x{number}",
            "type": "log",
            "range": list(ends),
            "tickvals": [10.0**p for p in powers],
            "ticktext": ["1" if p == 0 else f"10<sup>{p}</sup>" for p in powers],
            "showticklabels": first,
            "showgrid": False,
            "title": {"text": "off, as a share of the way" if first else "", "standoff": 4},
        },
    }


def _step_ticks(last: int) -> list[int]:
    """Return a few round steps that end about where the lines do, which leaves the names their room."""
    step = 10 ** math.floor(math.log10(last)) if last > 1 else 1
    step = next(
        (int(step * f) for f in (0.2, 0.25, 0.5, 1) if step * f >= 1 and last / (step * f) <= 5), step
    )
    return list(range(0, last + 1 + step // 4, step))


def _powers(ends: tuple[float, float]) -> range:
    return range(math.ceil(ends[0] / 3) * 3, math.floor(ends[1]) + 1, 3)


def _background(number: str, ends: tuple[float, float], last: int, palette: Palette) -> list[dict[str, Any]]:
    """Return the band of what is right, and the grid, as far as the lines go: names stand on clean ground."""
    place = {
        "layer": "below",
        "xref": f"x{number}",
        "yref": f"y{number}",
        "x0": -0.02 * last,
        "x1": last,
    }
    band = {"type": "rect", "fillcolor": palette.bands[Region.NORMAL], "line": {"width": 0}}
    grid = {"type": "line", "line": {"color": palette.grid, "width": 1}}
    return [
        {**place, **band, "y0": 10 ** ends[0], "y1": RIGHT},
        *({**place, **grid, "y0": 10.0**p, "y1": 10.0**p} for p in _powers(ends)),
    ]


def _right_label(number: str, ends: tuple[float, float], palette: Palette) -> dict[str, Any]:
    label = _text(
        "right: rounding alone", 0, math.log10(RIGHT), palette.region_text[Region.NORMAL], bold=False
    )
    return {
        **label,
        "xref": f"x{number} domain",
        "yref": f"y{number}",
        "yanchor": "top",
        "xshift": 4,
        "font": {"size": 12, "color": palette.region_text[Region.NORMAL]},
    }


def _text(text: str, x: float, y: float, colour: str, *, bold: bool = True) -> dict[str, Any]:
    return {
        "text": f"<b>{text}</b>" if bold else text,
        "x": x,
        "xanchor": "left",
        "y": y,
        "yanchor": "middle",
        "showarrow": False,
        "font": {"size": 12, "color": colour},
    }


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
