"""Maps of layers: every layer's exponents at one step, and one layer's over the steps, a facet a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent
from lsviz.charts.exponents import LEFT, RIGHT
from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.theme import (
    PALETTES,
    REGION_LABELS,
    SHORT_REGION_LABELS,
    Mode,
    Palette,
    base_layout,
    faded,
    literal,
    shortened,
)
from lsviz.exponents import MIN_EXPONENT
from lsviz.formats import FloatFormat, Region

MOST_ROWS: Final = 40
SMALLEST: Final = 1e-5
"""Shares below this one, one value in 100,000, are as pale as it."""
PALEST: Final = 0.16
LOUD: Final = 0.01
"""From this flushed share on, a row's words are loud."""
_ROW_PX: Final = (17, 34)
_ROWS_PX: Final = 560
_TOP, _BOTTOM = 66, 50
_GAP: Final = 0.02
_TICK: Final = 8
_HISTORY_HEIGHT: Final = 380
_VISIBLE: Final = range(LEFT, RIGHT)
_CLEAR: Final = "rgba(0,0,0,0)"


@dataclass(frozen=True, slots=True)
class LayerFacet:
    """One run's part of a map.

    Attributes:
        title: The run in a few words.
        caption: S, and what is shown, in a few more.
        colour: The policy's colour.
        layers: `lsviz.analysis.layers.layers_frame`, of one step or of one tensor.
    """

    title: str
    caption: str
    colour: str
    layers: pd.DataFrame


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
    room = 11 if len(facets) == 1 else 17  # exponents' worth of space for the words
    traces: list[Any] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    rows = row_axis(labels)
    for index, facet in enumerate(facets):
        axis = "" if index == 0 else str(index + 1)
        left, right = _domain(index, len(facets))
        axes[f"xaxis{axis}"] = {
            "domain": [left, right],
            "anchor": f"y{axis}",
            "range": [LEFT, RIGHT + room],
            **_exponent_ticks(2 * _TICK if len(facets) > 2 else _TICK),
        }
        more = {} if index == 0 else {"matches": "y", "showticklabels": False}
        axes[f"yaxis{axis}"] = {**rows, "anchor": f"x{axis}", **more}
        cells = _row_cells(facet.layers, names, labels, RIGHT + room, palette, fmt)
        place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
        traces += [_bars(cells, place), _row_words(facet.layers, names, len(facets), palette, place)]
        shapes += _regions(axis, "x", palette, fmt)
        notes += _titles(facet, left, len(facets), palette)
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


def layer_history_figure(facets: Sequence[LayerFacet], step: int, mode: Mode, fmt: FloatFormat) -> go.Figure:
    """Draw one layer's exponents over the recorded steps, with the format's edges and the step shown.

    Args:
        facets: One to four runs, left to right, each with `layers_frame` of the one tensor.
        step: Where the other figure stands.
        mode: ``light`` or ``dark``.
        fmt: The format whose edges are drawn.
    """
    palette = PALETTES[mode]
    traces: list[Any] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    for index, facet in enumerate(facets):
        axis = "" if index == 0 else str(index + 1)
        left, right = _domain(index, len(facets))
        axes[f"xaxis{axis}"] = {
            "domain": [left, right],
            "anchor": f"y{axis}",
            "title": {"text": "step", "standoff": 4},
            "tickformat": ",d",
            "nticks": 6 if len(facets) <= 2 else 4,
            "showgrid": False,
        }
        axes[f"yaxis{axis}"] = {
            "anchor": f"x{axis}",
            "range": [LEFT, RIGHT],
            "showgrid": False,
            **_exponent_ticks(_TICK),
            **({} if index == 0 else {"matches": "y", "showticklabels": False}),
        }
        traces.append(_history_cells(facet.layers, palette, fmt, {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}))
        shapes += [*_regions(axis, "y", palette, fmt), _step_line(axis, step, palette)]
        notes += _titles(facet, left, len(facets), palette, shift=6)
    notes += _region_names_beside("" if len(facets) == 1 else str(len(facets)), palette, fmt)
    figure = go.Figure(data=traces, layout=base_layout(mode))
    figure.update_layout(
        height=_HISTORY_HEIGHT,
        margin={"l": 52, "r": 84, "t": 32, "b": 46},
        hovermode="closest",
        shapes=shapes,
        annotations=notes,
        **axes,
    )
    return figure


@dataclass(slots=True)
class _Cells:
    """Bars of a facet: where each begins, how long it is, its row, its colour and its words."""

    base: list[float]
    length: list[float]
    row: list[int]
    colour: list[str]
    told: list[tuple[str, str]]

    def add(self, base: float, end: float, row: int, colour: str, told: tuple[str, str]) -> None:
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
                    cells.add(reached, exponent, place, _CLEAR, (name, told))
                share = float(shares[0, column])
                hue = _hue(exponent, bool(lost[exponent - MIN_EXPONENT]), fmt)
                colour = faded(_hue_colour(hue, palette), float(strength(share)))
                cells.add(exponent, exponent + 1, place, colour, (name, _hover(label, exponent, share, hue)))
                reached = exponent + 1
        cells.add(reached, end, place, _CLEAR, (name, told))
    return cells


def _bars(cells: _Cells, place: dict[str, str]) -> go.Bar:
    return go.Bar(
        orientation="h",
        base=cells.base,
        x=cells.length,
        y=cells.row,
        width=0.88,
        marker={"color": cells.colour, "line": {"width": 0}},
        unselected={"marker": {"opacity": 1}},
        customdata=cells.told,
        hovertemplate="%{customdata[1]}<extra></extra>",
        **place,
    )


def visible(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fold what lies outside the axis into its first and last bin; of shape (n, 128), gives (n, 63)."""
    low, high = LEFT - MIN_EXPONENT, RIGHT - MIN_EXPONENT
    inside = shares[:, low:high].copy()
    inside[:, 0] += shares[:, :low].sum(axis=1)
    inside[:, -1] += shares[:, high:].sum(axis=1)
    return inside


def strength(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return how strong a share is drawn, from PALEST to 1, by its logarithm."""
    power = np.log10(np.maximum(share, SMALLEST)) / -math.log10(SMALLEST) + 1
    return np.asarray(PALEST + (1 - PALEST) * np.clip(power, 0, 1))


_KEPT_BELOW: Final = "too small for FP16, kept"
_HUES: Final = (*Region, _KEPT_BELOW)
"""What a cell's hue tells; the last is of values that were not in FP16."""


def _hue(exponent: int, lost: bool, fmt: FloatFormat) -> str:
    if lost:
        return Region.FLUSHED
    if exponent == fmt.min_subnormal_exponent - 1:
        return Region.SUBNORMAL  # it rounds up
    region = fmt.region_of(exponent)
    return _KEPT_BELOW if region is Region.FLUSHED else region


def _hue_colour(hue: str, palette: Palette) -> str:
    return palette.neutral if hue == _KEPT_BELOW else palette.regions[Region(hue)]


def _history_cells(
    layers: pd.DataFrame, palette: Palette, fmt: FloatFormat, place: dict[str, str]
) -> go.Heatmap:
    """Return cells of one colour scale for all hues: a hue's part of it begins at its number."""
    steps = layers["step"].to_numpy(np.int64)
    shape = (len(layers), len(_VISIBLE))
    shares = (
        visible(np.array(layers["shares"].to_list(), np.float64).reshape(len(layers), -1))
        if len(layers)
        else np.zeros(shape)
    )
    kept = np.array([_HUES.index(_hue(e, False, fmt)) for e in _VISIBLE])
    lost = np.array([row[LEFT - MIN_EXPONENT : RIGHT - MIN_EXPONENT] for row in layers["lost"]], bool)
    hue = np.where(lost.reshape(shape), _HUES.index(Region.FLUSHED), kept[None])
    level = (strength(shares) - PALEST) / (1 - PALEST)
    scale = []
    for i, name in enumerate(_HUES):
        colour, most = _hue_colour(name, palette), len(_HUES)
        scale += [[i / most, faded(colour, PALEST)], [(i + 0.98) / most, colour], [(i + 1) / most, colour]]
    return go.Heatmap(
        x=steps,
        y=[e + 0.5 for e in _VISIBLE],
        z=np.where(shares > 0, hue + 0.98 * level, np.nan).T,
        zmin=0,
        zmax=len(_HUES),
        colorscale=scale,
        showscale=False,
        hoverongaps=False,
        customdata=shares.T,
        hovertemplate="step %{x:,}, 2<sup>%{y:.0f}</sup><br>%{customdata:.2%} of the values<extra></extra>",
        **place,
    )


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
    words = hue if hue == _KEPT_BELOW else REGION_LABELS[Region(hue)]
    return f"<b>{label}</b>, {where}<br>{literal(format_percent(share))} of the values, {words}"


def _domain(index: int, columns: int) -> tuple[float, float]:
    width = (1 - _GAP * (columns - 1)) / columns
    return index * (width + _GAP), index * (width + _GAP) + width


def _exponent_ticks(every: int) -> dict[str, Any]:
    ticks = range(-40, 17, every)
    return {
        "tickvals": list(ticks),
        "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in ticks],
        "tickangle": 0,
        "fixedrange": True,
        "showgrid": False,
    }


def region_edges(fmt: FloatFormat) -> list[tuple[Region, float, float]]:
    """Return each region's ends: half the smallest subnormal still rounds up to it."""
    edges = [LEFT, math.log2(fmt.flush_limit), fmt.min_exponent, math.log2(fmt.overflow_limit), RIGHT]
    return list(zip(Region, edges, edges[1:], strict=False))


def _regions(axis: str, along: str, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    """Return the bands behind the cells, and a line at each edge before them."""
    across = "y" if along == "x" else "x"
    place = {f"{along}ref": f"{along}{axis}", f"{across}ref": f"{across}{axis} domain"}
    ends = {f"{across}0": 0, f"{across}1": 1}
    shapes = []
    for region, low, high in region_edges(fmt):
        band = {f"{along}0": low, f"{along}1": high, **ends, **place}
        shapes.append(
            {"type": "rect", "layer": "below", "fillcolor": palette.bands[region], "line": {"width": 0}}
            | band
        )
        if low > LEFT:
            dash = "dot" if region is Region.NORMAL else "solid"
            line = {"color": palette.text, "width": 1, "dash": dash}
            shapes.append({"type": "line", "line": line} | band | {f"{along}1": low})
    return shapes


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


def _step_line(axis: str, step: int, palette: Palette) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": f"x{axis}",
        "yref": f"y{axis} domain",
        "x0": step,
        "x1": step,
        "y0": 0,
        "y1": 1,
        "line": {"color": palette.text, "width": 2, "dash": "dash"},
    }


def _note(text: str, size: int, colour: str, **place: Any) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"size": size, "color": colour}, **place}


def _titles(
    facet: LayerFacet, left: float, columns: int, palette: Palette, shift: int = 24
) -> list[dict[str, Any]]:
    limit = 92 // columns
    title = f"<b>{literal(shortened(facet.title, limit))}</b>"
    caption = shortened(facet.caption, max(0, limit - len(facet.title))) if columns <= 2 else ""
    words = f"{title}  <span style='color:{palette.muted}'>{literal(caption)}</span>"
    corner = {"x": left, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom"}
    return [_note(words, 14, facet.colour, yshift=shift, **corner)]


def _region_names(axis: str, columns: int, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    names = REGION_LABELS if columns == 1 else SHORT_REGION_LABELS
    names = {**names, Region.SUBNORMAL: "sub."} if columns > 2 else names
    return [
        _note(
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


def _region_names_beside(axis: str, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    return [
        _note(
            REGION_LABELS[region],
            12,
            palette.region_text[region],
            x=1,
            xref=f"x{axis} domain",
            xanchor="left",
            xshift=4,
            y=(low + high) / 2,
            yref=f"y{axis}",
        )
        for region, low, high in region_edges(fmt)
    ]


def _axis_title(text: str, palette: Palette) -> dict[str, Any]:
    corner = {"x": 0.5, "xref": "paper", "y": 0, "yref": "paper", "yanchor": "top", "yshift": -26}
    return _note(text, 13, palette.muted, **corner)
