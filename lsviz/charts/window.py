"""The what-if slider: gradients stay where they are, and the format's window slides over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.window import ALL, WINDOW_SCALES, cast_words
from lsviz.charts.drawing import PlotlyTrace, bar_trace, figure_of
from lsviz.charts.labels import row_names
from lsviz.charts.regions import band, region_edges
from lsviz.charts.theme import PALETTES, REGION_LABELS, Mode, Palette
from lsviz.formats import FloatFormat, Region

LEFT, RIGHT = -60, 22
"""One fixed axis of unscaled exponents; what lies outside is drawn in the end bins."""
ROW_PX: Final = 38
MIN_ROW_PX: Final = 22
MAX_ROWS_PX: Final = 760
MOST_ROWS: Final = 40
BAR_HEIGHT: Final = 0.8
HEADER_PX: Final = 58
FOOTER_PX: Final = 132
FAR: Final = 400
"""How far the outermost colours reach beyond a format's ends, in binades."""
MIN_LABEL: Final = 6.0
"""A region's name stands over it where it is at least so wide, in binades."""

Shares = Mapping[tuple[str, float], tuple[float, float]]
"""Layer and S -> share flushed, share that overflows."""


def window_figure(
    spectrum: pd.DataFrame,
    shares: pd.DataFrame,
    layers: Sequence[str],
    fmt: FloatFormat,
    first: float,
    mode: Mode,
) -> go.Figure:
    """Draw a fixed histogram a layer under a window that Plotly's own slider moves, with shares beside.

    The slider needs no server: each of its places holds where the regions lie and what the shares are, and
    bars take their colour from an axis of colours that moves with the window.

    Args:
        spectrum: `lsviz.analysis.window.unscaled_frame`.
        shares: `lsviz.analysis.window.window_frame` of the same layers.
        layers: The rows, lowest layer first; of more than MOST_ROWS the lowest are drawn.
        fmt: The format cast to.
        first: The S shown first, one of WINDOW_SCALES.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    rows = [layer for layer in layers if layer in set(spectrum["layer"])][:MOST_ROWS]
    row_px = max(MIN_ROW_PX, min(ROW_PX, MAX_ROWS_PX // max(1, len(rows))))
    told = _shares(shares)
    places = [_place(told, rows, fmt, scale, palette) for scale in WINDOW_SCALES]
    start = WINDOW_SCALES.index(first)
    names = row_names(rows)
    return figure_of(
        [_bars(spectrum, rows)],
        mode,
        height=HEADER_PX + FOOTER_PX + row_px * max(1, len(rows)),
        margin={"l": 24 + 7 * max(map(len, names), default=4), "r": 132, "t": HEADER_PX, "b": FOOTER_PX},
        bargap=0,
        barmode="overlay",
        hovermode="closest",
        xaxis={
            "range": [LEFT, RIGHT],
            "tickvals": list(range(-56, RIGHT, 8)),
            "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in range(-56, RIGHT, 8)],
            "title": {"text": "size of a gradient value, unscaled", "standoff": 4},
            "fixedrange": True,
            "showgrid": False,
        },
        yaxis={
            "range": [-0.08, max(1, len(rows))],
            "tickvals": [row + 0.35 for row in range(len(rows))],
            "ticktext": names,
            "tickfont": {"color": palette.text, "size": 13 if row_px > 30 else 11},
            "showgrid": False,
            "fixedrange": True,
        },
        coloraxis={
            "colorscale": _colour_steps(fmt, palette),
            "showscale": False,
            "cmin": _colour_ends(fmt, first)[0],
            "cmax": _colour_ends(fmt, first)[1],
        },
        shapes=places[start]["shapes"],
        annotations=places[start]["annotations"],
        sliders=[_slider(places, fmt, start, palette)],
    )


def _bars(spectrum: pd.DataFrame, rows: Sequence[str]) -> PlotlyTrace:
    x, y, base, words = [], [], [], []
    layers = spectrum["layer"].to_numpy()
    places = spectrum["exponent"].clip(LEFT, RIGHT - 1).to_numpy() - LEFT
    shares = spectrum["share"].to_numpy()
    for row, layer in enumerate(rows):
        own = layers == layer
        folded = np.bincount(places[own], weights=shares[own])
        for place in np.flatnonzero(folded):
            exponent, share = int(place) + LEFT, float(folded[place])
            x.append(exponent + 0.5)
            y.append(share / float(folded.max()) * BAR_HEIGHT)
            base.append(row)
            words.append(f"2<sup>{exponent}</sup> to 2<sup>{exponent + 1}</sup>: {format_percent(share)}")
    return bar_trace(
        x=x,
        y=y,
        base=base,
        width=0.9,
        customdata=words,
        hovertemplate="%{customdata}<extra></extra>",
        marker={"color": x, "coloraxis": "coloraxis", "line": {"width": 0}},
    )


def _colour_ends(fmt: FloatFormat, scale: float) -> tuple[float, float]:
    shift = math.log2(scale)
    return math.log2(fmt.flush_limit) - FAR - shift, fmt.max_exponent + 1 + FAR - shift


def _colour_steps(fmt: FloatFormat, palette: Palette) -> list[tuple[float, str]]:
    """Return the regions' colours as a scale with steps at the format's limits."""
    low, high = _colour_ends(fmt, 1.0)
    edges = (low, math.log2(fmt.flush_limit), fmt.min_exponent, fmt.max_exponent + 1, high)
    steps = []
    for region, left, right in zip(Region, edges, edges[1:], strict=False):
        steps += [((edge - low) / (high - low), palette.regions[region]) for edge in (left, right)]
    return steps


def _shares(frame: pd.DataFrame) -> Shares:
    keys = zip(frame["layer"].tolist(), frame["scale"].tolist(), strict=True)
    shares = zip(frame["flushed"].tolist(), frame["overflow"].tolist(), strict=True)
    return dict(zip(keys, shares, strict=True))


def _place(
    shares: Shares, rows: Sequence[str], fmt: FloatFormat, scale: float, palette: Palette
) -> dict[str, Any]:
    """What moves: regions, their names, each row's share and the sentence, at one S."""
    edges = region_edges(fmt, left=LEFT, right=RIGHT, shift=math.log2(scale))
    shapes = [
        band(region, palette, xref="x", yref="paper", x0=left, x1=right, y0=0, y1=1)
        for region, left, right in edges
    ]
    names = [
        {
            "text": REGION_LABELS[region] if right - left >= MIN_LABEL else "",
            "x": (left + right) / 2,
            "xref": "x",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "yshift": 2,
            "showarrow": False,
            "font": {"size": 12, "color": palette.region_text[region]},
        }
        for region, left, right in edges
    ]
    labels = [
        _share(row, *shares[layer, scale], palette)
        for row, layer in enumerate(rows)
        if (layer, scale) in shares
    ]
    together = shares.get((ALL, scale))
    sentence = {
        "text": f"<b>{cast_words(*together, scale, fmt)}</b>" if together else "",
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": 24,
        "showarrow": False,
        "font": {"size": 15, "color": palette.text},
    }
    return {"shapes": shapes, "annotations": [sentence, *names, *labels]}


def _share(row: int, flushed: float, overflow: float, palette: Palette) -> dict[str, Any]:
    """One row's share at its right end: what overflows first, else what is flushed."""
    colour = palette.muted
    if overflow > 0:
        text, colour = f"<b>{format_percent(overflow)}</b> Inf", palette.region_text[Region.OVERFLOW]
    else:
        text = format_percent(flushed)
        if flushed >= 0.01:
            text, colour = f"<b>{text}</b> flushed", palette.region_text[Region.FLUSHED]
    return {
        "text": text,
        "x": 1,
        "xref": "paper",
        "xanchor": "left",
        "xshift": 8,
        "y": row + 0.35,
        "yref": "y",
        "yanchor": "middle",
        "showarrow": False,
        "font": {"size": 13, "color": colour},
    }


def _slider(
    places: Sequence[dict[str, Any]], fmt: FloatFormat, start: int, palette: Palette
) -> dict[str, Any]:
    steps = []
    for scale, place in zip(WINDOW_SCALES, places, strict=True):
        low, high = _colour_ends(fmt, scale)
        change: dict[str, Any] = {"coloraxis.cmin": low, "coloraxis.cmax": high}
        for number, shape in enumerate(place["shapes"]):
            change |= {f"shapes[{number}].{end}": shape[end] for end in ("x0", "x1")}
        for number, note in enumerate(place["annotations"]):
            change[f"annotations[{number}].text"] = note["text"]
            if note["xref"] == "x":
                change[f"annotations[{number}].x"] = note["x"]
            elif note["yref"] == "y":
                change[f"annotations[{number}].font.color"] = note["font"]["color"]
        steps.append({"method": "relayout", "args": [change], "label": format_scale(scale)})
    return {
        "active": start,
        "steps": steps,
        "x": 0,
        "len": 1,
        "y": 0,
        "yanchor": "top",
        "pad": {"t": 52, "b": 4},
        "currentvalue": {"prefix": "Loss scale S = ", "font": {"size": 15, "color": palette.text}},
        "font": {"size": 11, "color": palette.muted},
        "bgcolor": palette.grid,
        "activebgcolor": palette.muted,
        "bordercolor": palette.muted,
        "tickcolor": palette.muted,
        "transition": {"duration": 0},
    }
