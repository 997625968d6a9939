"""Map of layers: every layer's exponents at one step, a facet a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent
from lsviz.charts.drawing import PlotlyTrace, figure_of, heatmap_trace, scatter_trace
from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.layerparts import (
    HUES,
    KEPT_BELOW,
    TICK,
    VISIBLE,
    LayerFacet,
    cell_hues,
    exponent_ticks,
    facet_domain,
    facet_titles,
    hue_scale,
    hue_value,
    note,
    region_shapes,
    visible,
)
from lsviz.charts.regions import LEFT, RIGHT, region_edges
from lsviz.charts.theme import (
    PALETTES,
    REGION_LABELS,
    SHORT_REGION_LABELS,
    Mode,
    Palette,
    literal,
)
from lsviz.formats import FloatFormat, Region

MOST_ROWS: Final = 40
LOUD: Final = 0.01
"""From this flushed share on, a row's words are loud."""
_ROW_PX: Final = (17, 34)
_ROWS_PX: Final = 560
_TOP, _BOTTOM = 66, 50


def layers_figure(
    facets: Sequence[LayerFacet], names: Sequence[str], mode: Mode, fmt: FloatFormat
) -> go.Figure:
    """Draw a row a layer and a cell an exponent; each row ends with what it lost, in words.

    The cells are one picture, which a browser draws at once: as a bar each they took it half a second.

    Args:
        facets: One to four runs, left to right, at one step.
        names: The rows, lowest layer first, at most MOST_ROWS of them.
        mode: ``light`` or ``dark``.
        fmt: The format whose regions are marked.
    """
    palette = PALETTES[mode]
    room = _room(len(facets))
    row_px = min(_ROW_PX[1], max(_ROW_PX[0], _ROWS_PX // max(1, len(names))))
    traces: list[Any] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    rows = row_axis(row_names(names))
    for index, facet in enumerate(facets):
        axis = "" if index == 0 else str(index + 1)
        left, right = facet_domain(index, len(facets))
        axes[f"xaxis{axis}"] = {
            "domain": [left, right],
            "anchor": f"y{axis}",
            "range": [LEFT, RIGHT + room],
            **exponent_ticks(2 * TICK if len(facets) > 2 else TICK),
        }
        more = {} if index == 0 else {"matches": "y", "showticklabels": False}
        axes[f"yaxis{axis}"] = {**rows, "anchor": f"x{axis}", **more}
        place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
        cells = _cells(facet.layers, names, RIGHT + room, fmt)
        traces += [
            heatmap_trace(**cells, colorscale=hue_scale(palette), showscale=False, ygap=row_px // 8, **place),
            _row_words(facet.layers, names, len(facets), palette, place),
        ]
        shapes += region_shapes(axis, "x", palette, fmt)
        notes += facet_titles(facet, left, len(facets), palette)
        notes += _region_names(axis, len(facets), palette, fmt)
    return figure_of(
        traces,
        mode,
        height=_TOP + _BOTTOM + row_px * max(2, len(names)),
        margin={"l": min(200, 20 + 7 * max(map(len, names), default=4)), "r": 8, "t": _TOP, "b": _BOTTOM},
        hovermode="closest",
        shapes=shapes,
        annotations=[*notes, _axis_title("size of a gradient value in FP16, after scaling by S", palette)],
        **axes,
    )


def row_frames(facets: int, row: int, mode: Mode) -> list[dict[str, Any]]:
    """Return a frame around a row in each facet, to be drawn over the figure."""
    end = RIGHT + _room(facets)
    sides = {"x0": LEFT, "x1": end, "y0": row - 0.5, "y1": row + 0.5}
    line = {"color": PALETTES[mode].text, "width": 1.5}
    return [
        {"type": "rect", "xref": f"x{axis}", "yref": f"y{axis}", **sides, "line": line}
        for axis in ("", *map(str, range(2, facets + 1)))
    ]


def _room(facets: int) -> int:
    """Return how many exponents' worth of space the words have."""
    return 11 if facets == 1 else 19


def _cells(layers: pd.DataFrame, names: Sequence[str], end: float, fmt: FloatFormat) -> dict[str, Any]:
    """Return what a heat map is drawn from: a column an exponent, and a last one behind the rows' words.

    Where a row has no values its cell is clear, and tells of the whole row.
    """
    z = np.full((len(names), len(VISIBLE) + 1), np.nan)
    told: list[list[str]] = []
    found = {str(row["tensor"]): row for row in layers.to_dict("records")}
    for at, (name, label) in enumerate(zip(names, row_names(names), strict=True)):
        row = found.get(name)
        words = "not recorded in this run" if row is None else _lost_words(row, True)
        told.append([f"<b>{label}</b><br>{words}"] * z.shape[1])
        if row is None:
            continue
        shares, hues = visible(row["shares"][None])[0], cell_hues(row["lost"][None], fmt)[0]
        z[at, :-1] = np.where(shares > 0, hue_value(hues, shares), np.nan)
        for place in np.flatnonzero(shares).tolist():
            told[at][place] = _hover(label, LEFT + place, float(shares[place]), HUES[hues[place]])
    return {
        "x": [*range(LEFT, RIGHT + 1), end],
        "y": list(range(len(names))),
        "z": z,
        "zmin": 0,
        "zmax": len(HUES),
        "text": told,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _row_words(
    layers: pd.DataFrame, names: Sequence[str], columns: int, palette: Palette, place: dict[str, str]
) -> PlotlyTrace:
    found = {str(row["tensor"]): row for row in layers.to_dict("records")}
    words, colours = [], []
    for name in names:
        row = found.get(name)
        words.append("" if row is None else _lost_words(row, columns <= 2))
        colours.append(_loudness(row, palette))
    return scatter_trace(
        x=[RIGHT + 0.6] * len(names),
        y=list(range(len(names))),
        mode="text",
        text=words,
        textposition="middle right",
        textfont={"size": 12, "color": colours},
        cliponaxis=False,
        hoverinfo="skip",
        **place,
    )


def _lost_words(row: Any, whole: bool) -> str:
    if row["overflow"] > 0:
        return f"<b>{literal(format_percent(row['overflow']))}</b>{' Inf or NaN' if whole else ' Inf'}"
    if not row["compared"]:
        return "no reference" if whole else "–"
    share = literal(format_percent(row["flushed"]))
    share = f"<b>{share}</b>" if row["flushed"] >= LOUD else share
    return f"{share} flushed" if whole else share


def _loudness(row: Any, palette: Palette) -> str:
    if row is None:
        return palette.muted
    if row["overflow"] > 0:
        return palette.region_text[Region.OVERFLOW]
    return palette.region_text[Region.FLUSHED] if row["flushed"] >= LOUD else palette.muted


def _hover(label: str, exponent: int, share: float, hue: str) -> str:
    where = f"2<sup>{exponent}</sup> to 2<sup>{exponent + 1}</sup>"
    if exponent == LEFT:
        where = f"below 2<sup>{LEFT + 1}</sup>"
    if exponent == RIGHT - 1:
        where = f"2<sup>{exponent}</sup> and above, Inf or NaN"
    words = hue if hue == KEPT_BELOW else REGION_LABELS[Region(hue)]
    return f"<b>{label}</b>, {where}<br>{literal(format_percent(share))} of the values, {words}"


def _region_names(axis: str, columns: int, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    names = REGION_LABELS if columns == 1 else SHORT_REGION_LABELS
    return [
        note(
            names[region],
            12 if columns <= 2 else 10,
            palette.region_text[region],
            x=(low + high) / 2,
            xref=f"x{axis}",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=3,
        )
        for region, low, high in region_edges(fmt)
    ]


def _axis_title(text: str, palette: Palette) -> dict[str, Any]:
    corner = {"x": 0.5, "xref": "paper", "y": 0, "yref": "paper", "yanchor": "top", "yshift": -26}
    return note(text, 13, palette.muted, **corner)
