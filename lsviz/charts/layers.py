"""Map of layers: every layer's exponents at one step, a facet a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent
from lsviz.charts.exponents import LEFT, RIGHT, region_edges
from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.layerparts import (
    HUES,
    KEPT_BELOW,
    TICK,
    LayerFacet,
    exponent_ticks,
    facet_domain,
    facet_titles,
    hue_of,
    hue_scale,
    hue_value,
    note,
    region_shapes,
    visible,
)
from lsviz.charts.theme import (
    PALETTES,
    REGION_LABELS,
    SHORT_REGION_LABELS,
    Mode,
    Palette,
    base_layout,
    literal,
)
from lsviz.exponents import MIN_EXPONENT
from lsviz.formats import FloatFormat, Region

MOST_ROWS: Final = 40
LOUD: Final = 0.01
"""From this flushed share on, a row's words are loud."""
_ROW_PX: Final = (17, 34)
_ROWS_PX: Final = 560
_TOP, _BOTTOM = 66, 50
_CLEAR: Final = "rgba(0,0,0,0)"
_GAP: Final = -1.0
"""In place of a cell's hue: Plotly draws a bar without a number in grey."""


def layers_figure(
    facets: Sequence[LayerFacet], names: Sequence[str], chosen: str, mode: Mode, fmt: FloatFormat
) -> go.Figure:
    """Draw a row a layer and a cell an exponent; each row ends with what it lost, in words.

    Every place of a row is a bar whose ``customdata`` begins with the layer, so that a click anywhere on
    it tells the layer: Plotly selects bars, not the cells of its heat maps.

    Args:
        facets: One to four runs, left to right, at one step.
        names: The rows, lowest layer first, at most MOST_ROWS of them.
        chosen: The row that is framed.
        mode: ``light`` or ``dark``.
        fmt: The format whose regions are marked.
    """
    palette = PALETTES[mode]
    labels = row_names(names)
    room = 11 if len(facets) == 1 else 19  # exponents' worth of space for the words
    traces: list[Any] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    rows = row_axis(labels)
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
        cells = _row_cells(facet.layers, names, labels, RIGHT + room, palette, fmt)
        place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
        traces += [_bars(cells, palette, place), _row_words(facet.layers, names, len(facets), palette, place)]
        shapes += region_shapes(axis, "x", palette, fmt)
        notes += facet_titles(facet, left, len(facets), palette)
        notes += _region_names(axis, len(facets), palette, fmt)
        if chosen in names:
            shapes.append(_frame(axis, list(names).index(chosen), RIGHT + room, palette))
    figure = go.Figure(data=traces, layout=base_layout(mode))
    row_px = min(_ROW_PX[1], max(_ROW_PX[0], _ROWS_PX // max(1, len(names))))
    figure.update_layout(
        height=_TOP + _BOTTOM + row_px * max(2, len(names)),
        margin={"l": 20 + 7 * max(map(len, names), default=4), "r": 8, "t": _TOP, "b": _BOTTOM},
        barmode="overlay",
        bargap=0,
        hovermode="closest",
        shapes=shapes,
        annotations=[*notes, _axis_title("size of a gradient value in FP16, after scaling by S", palette)],
        **axes,
    )
    figure.layout.margin.l = min(200, figure.layout.margin.l)
    return figure


@dataclass(slots=True)
class _Cells:
    """Bars of a facet: where each begins, how long it is, its row, its colour and its words."""

    base: list[float]
    length: list[float]
    row: list[int]
    colour: list[float]
    told: list[tuple[str, str]]

    def add(self, base: float, end: float, row: int, colour: float, told: tuple[str, str]) -> None:
        self.base.append(base)
        self.length.append(end - base)
        self.row.append(row)
        self.colour.append(colour)
        self.told.append(told)


def _row_cells(
    layers: pd.DataFrame,
    names: Sequence[str],
    labels: Sequence[str],
    end: float,
    palette: Palette,
    fmt: FloatFormat,
) -> _Cells:
    """Part every row into cells with values and the gaps between them, which are clear."""
    cells = _Cells([], [], [], [], [])
    found = {str(row["tensor"]): row for row in layers.to_dict("records")}
    for place, (name, label) in enumerate(zip(names, labels, strict=True)):
        row = found.get(name)
        told = f"<b>{label}</b><br>{'not recorded in this run' if row is None else _lost_words(row, True)}"
        reached = float(LEFT)
        if row is not None:
            shares, lost = visible(row["shares"][None]), row["lost"]
            for column in np.flatnonzero(shares[0]).tolist():
                exponent = LEFT + column
                if exponent > reached:
                    cells.add(reached, exponent, place, _GAP, (name, told))
                share = float(shares[0, column])
                hue = hue_of(exponent, bool(lost[exponent - MIN_EXPONENT]), fmt)
                colour = float(hue_value(HUES.index(hue), share))
                cells.add(exponent, exponent + 1, place, colour, (name, _hover(label, exponent, share, hue)))
                reached = exponent + 1
        cells.add(reached, end, place, _GAP, (name, told))
    return cells


def _bars(cells: _Cells, palette: Palette, place: dict[str, str]) -> go.Bar:
    return go.Bar(
        orientation="h",
        base=np.array(cells.base),
        x=np.array(cells.length),
        y=np.array(cells.row),
        width=0.88,
        marker={
            "color": np.array(cells.colour),
            "cmin": _GAP,
            "cmax": len(HUES),
            "colorscale": _scale_with_gaps(palette),
            "line": {"width": 0},
        },
        unselected={"marker": {"opacity": 1}},
        customdata=cells.told,
        hovertemplate="%{customdata[1]}<extra></extra>",
        **place,
    )


def _scale_with_gaps(palette: Palette) -> list[list[Any]]:
    whole = len(HUES) - _GAP
    hues = [[(place * len(HUES) - _GAP) / whole, colour] for place, colour in hue_scale(palette)]
    return [[0, _CLEAR], [0.98 * hues[0][0], _CLEAR], *hues]


def _row_words(
    layers: pd.DataFrame, names: Sequence[str], columns: int, palette: Palette, place: dict[str, str]
) -> go.Scatter:
    found = {str(row["tensor"]): row for row in layers.to_dict("records")}
    words, colours = [], []
    for name in names:
        row = found.get(name)
        words.append("" if row is None else _lost_words(row, columns <= 2))
        colours.append(_loudness(row, palette))
    return go.Scatter(
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


def _frame(axis: str, row: int, end: float, palette: Palette) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": f"x{axis}",
        "yref": f"y{axis}",
        "x0": LEFT,
        "x1": end,
        "y0": row - 0.5,
        "y1": row + 0.5,
        "line": {"color": palette.text, "width": 1.5},
        "fillcolor": _CLEAR,
    }


def _region_names(axis: str, columns: int, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    names = REGION_LABELS if columns == 1 else SHORT_REGION_LABELS
    names = {**names, Region.SUBNORMAL: "sub."} if columns > 2 else names
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
