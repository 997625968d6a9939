"""Two shares for every layer on one line each: how far the second lies from the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent
from lsviz.charts.drawing import figure_of, scatter_trace
from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.theme import PALETTES, Mode, Palette, literal, panel_title
from lsviz.formats import Region

ROW_HEIGHT: Final = 28
MOST_ROWS: Final = 40


@dataclass(frozen=True, slots=True)
class LayerPair:
    """Two shares of one layer, from 0 to 1.

    Attributes:
        layer: Its name.
        open: Drawn as a ring: what could be.
        filled: Drawn as a dot: what is.
        words: What the reader sees as the pointer rests on either; plain text.
    """

    layer: str
    open: float
    filled: float
    words: str


def pairs_figure(pairs: Sequence[LayerPair], *, ring: str, dot: str, mode: Mode) -> go.Figure:
    """Draw a row a layer, lowest at the bottom: a ring, a dot and what lies between.

    Of many layers those stay whose two shares lie furthest apart.

    Args:
        pairs: Lowest layer first.
        ring: What the ring is, in a few plain words.
        dot: What the dot is.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    widest = sorted(range(len(pairs)), key=lambda i: -abs(pairs[i].filled - pairs[i].open))[:MOST_ROWS]
    shown = [pairs[i] for i in sorted(widest)]
    colour = palette.regions[Region.FLUSHED]
    names = row_names([pair.layer for pair in shown])
    rows = list(range(len(shown)))
    words = [literal(pair.words) for pair in shown]
    marker = {"size": 12, "line": {"color": colour, "width": 2}}
    traces = [
        scatter_trace(
            x=[pair.open for pair in shown],
            y=rows,
            mode="markers",
            marker={**marker, "color": palette.paper},
            customdata=words,
            hovertemplate="%{customdata}<extra></extra>",
        ),
        scatter_trace(
            x=[pair.filled for pair in shown],
            y=rows,
            mode="markers",
            marker={**marker, "size": 9, "color": colour},
            customdata=words,
            hovertemplate="%{customdata}<extra></extra>",
        ),
    ]
    return figure_of(
        traces,
        mode,
        height=ROW_HEIGHT * len(names) + 108,
        margin={"l": 24 + 7 * max(map(len, names), default=4), "r": 76, "t": 44, "b": 48},
        hovermode="closest",
        shapes=[_between(i, pair, colour) for i, pair in enumerate(shown)],
        annotations=[_key(ring, dot, palette), *(_number(i, pair, palette) for i, pair in enumerate(shown))],
        xaxis={
            "range": [-0.02, 1.02],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "ticktext": ["0 %", "25 %", "50 %", "75 %", "100 %"],
            "title": {"text": "flushed to zero", "standoff": 6},
            "fixedrange": True,
        },
        yaxis=row_axis(names),
    )


def _between(row: int, pair: LayerPair, colour: str) -> dict[str, Any]:
    ends = {"x0": pair.open, "x1": pair.filled, "y0": row, "y1": row}
    return {"type": "line", "layer": "below", **ends, "line": {"color": colour, "width": 3}}


def _number(row: int, pair: LayerPair, palette: Palette) -> dict[str, Any]:
    return {
        "text": f"<b>{format_percent(pair.filled)}</b>",
        "x": 1,
        "xref": "paper",
        "xanchor": "left",
        "xshift": 6,
        "y": row,
        "showarrow": False,
        "font": {"size": 13, "color": palette.region_text[Region.FLUSHED]},
    }


def _key(ring: str, dot: str, palette: Palette) -> dict[str, Any]:
    words = f"<b>○</b> {literal(ring)}   <b>●</b> {literal(dot)}"
    return {**panel_title(words, 1.0, palette), "yshift": 6}
