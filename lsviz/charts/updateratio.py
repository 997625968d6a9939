"""Updates by their size beside the weight: which of them change it as it is stored, and which do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.updates import HALF_DIGIT
from lsviz.charts.drawing import PlotlyTrace, bar_trace, figure_of
from lsviz.charts.theme import PALETTES, Mode, Palette, literal, panel_title
from lsviz.formats import Region
from lsviz.runs.updatecheck import HIGHEST_RATIO, LOWEST_RATIO

RATIO_PX: Final = 150
LEAST_SHOWN: Final = 0.004
"""Of the highest bar: what is lower than that is less than a pixel."""


def update_ratio_figure(frame: pd.DataFrame, mode: Mode) -> go.Figure:
    """Draw updates by their size beside the weight, a row a variant: those that count, those that do nothing.

    Args:
        frame: `lsviz.analysis.lab.update_ratio_frame`.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    names = list(dict.fromkeys(frame["name"]))
    height = max(1, len(names)) * RATIO_PX + 30 * len(names)
    room = 1 / max(1, len(names))
    traces: list[PlotlyTrace] = []
    notes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    highest = float(frame["share"].max()) if len(frame) else 1.0
    for place, name in enumerate(names):
        number = "" if place == 0 else str(place + 1)
        top = 1 - place * room
        mine = frame[frame["name"] == name]
        traces += _ratio_bars(mine, number, palette)
        lost = float((mine["share"] - mine["moved"]).sum())
        title = f"<b>{literal(name)}</b>: {format_percent(lost)} of the updates do nothing"
        notes.append(panel_title(title, top - 30 / height, palette))
        axes[f"yaxis{number}"] = {
            "domain": [top - room + 4 / height, top - 34 / height],
            "range": [0, highest * 1.06],
            "showticklabels": False,
            "showgrid": False,
            "fixedrange": True,
        }
    notes += _mark_labels(frame, palette) if names else []
    ticks = list(range(LOWEST_RATIO, HIGHEST_RATIO + 1, 8))
    return figure_of(
        traces,
        mode,
        height=height + 92,
        margin={"l": 12, "r": 12, "t": 40, "b": 52},
        barmode="stack",
        bargap=0.08,
        hovermode="closest",
        shapes=[_mark(palette)],
        annotations=notes,
        xaxis={
            "anchor": "free",
            "position": 0,
            "range": [LOWEST_RATIO, HIGHEST_RATIO + 1],
            "tickvals": ticks,
            "ticktext": [format_scale(2.0**e) for e in ticks],
            "title": {"text": "size of the update beside its weight", "standoff": 6},
            "showgrid": False,
            "fixedrange": True,
        },
        **axes,
    )


def _ratio_bars(frame: pd.DataFrame, number: str, palette: Palette) -> list[PlotlyTrace]:
    lost = frame["share"] - frame["moved"]
    lost = lost.where(lost > LEAST_SHOWN * frame["share"].max())  # else its outline alone would be seen
    pale = _pale(palette.regions[Region.FLUSHED])
    kinds: Sequence[tuple[Any, str, str, str]] = (
        (
            frame["moved"],
            palette.regions[Region.NORMAL],
            palette.regions[Region.NORMAL],
            "change their weight",
        ),
        (lost, pale, palette.regions[Region.FLUSHED], "leave it as it is"),
    )
    return [
        bar_trace(
            x=frame["exponent"] + 0.5,
            y=values,
            yaxis=f"y{number}",
            marker={"color": colour, "line": {"color": outline, "width": 1}},
            customdata=frame["exponent"],
            hovertemplate=f"2<sup>%{{customdata}}</sup>: %{{y:.1%}} of the updates {words}<extra></extra>",
        )
        for values, colour, outline, words in kinds
    ]


def _mark(palette: Palette) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": HALF_DIGIT,
        "x1": HALF_DIGIT,
        "y0": 0,
        "y1": 1,
        "line": {"color": palette.text, "width": 1.5, "dash": "dot"},
    }


def _mark_labels(frame: pd.DataFrame, palette: Palette) -> list[dict[str, Any]]:
    first = frame[frame["name"] == frame["name"].iloc[0]]
    below = float(first.loc[first["exponent"] < HALF_DIGIT, "share"].sum())
    power = format_scale(2.0**HALF_DIGIT)

    def label(text: str, anchor: str, shift: int) -> dict[str, Any]:
        return {
            "text": text,
            "x": HALF_DIGIT,
            "xref": "x",
            "xanchor": anchor,
            "xshift": shift,
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "yshift": 2,
            "showarrow": False,
            "font": {"size": 13, "color": palette.text},
        }

    return [
        label(f"<b>{format_percent(below)}</b> below {power}: too small for FP16 ←", "right", -6),
        label("→ large enough", "left", 6),
    ]


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"
