"""Layer by loss scale: where values would be flushed, where they would overflow, and the window between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.recommend import Recommendation
from lsviz.analysis.scalemap import layer_map_frame
from lsviz.charts.drawing import PlotlyTrace, bar_trace, figure_of, heatmap_trace
from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.theme import PALETTES, Mode, Palette, faded
from lsviz.formats import Region

ROW_HEIGHT: Final = 30
MOST_ROWS: Final = 40
_TICK: Final = 5


def scale_map_figure(
    frame: pd.DataFrame,
    layers: Sequence[str],
    found: Recommendation,
    mode: Mode,
    ceilings: Mapping[str, float] | None = None,
) -> go.Figure:
    """Draw each layer's flushed share over log2 S, with what overflows, and the window that is safe for all.

    A row is a layer: its output's gradient and its weights' gradients, of which the one that loses most
    counts. The window is drawn from all tensors, so that a row's own may be wider.

    Args:
        frame: `lsviz.analysis.scalemap.scale_map_frame`.
        layers: The rows, lowest layer first.
        found: The recommendation of the same run and format.
        mode: ``light`` or ``dark``.
        ceilings: Layer -> the largest S that its own gradients allow over all steps, where that is known:
            hatched from there on, even where no recorded step overflows.
    """
    palette = PALETTES[mode]
    shown = list(layers)[:MOST_ROWS]
    rows = layer_map_frame(frame, shown)
    powers = np.log2(np.array(sorted(frame["scale"].unique())))
    flushed = rows.pivot(index="layer", columns="scale", values="flushed").reindex(shown)
    overflow = rows.pivot(index="layer", columns="scale", values="overflow").reindex(shown)
    spoilt = overflow.to_numpy(np.float64) > 0
    if ceilings and spoilt.size:
        tops = [ceilings.get(str(name), math.inf) for name in flushed.index]
        spoilt |= 2.0**powers > np.array(tops)[:, None]
    names = row_names([str(name) for name in flushed.index])
    words = [
        [_words(f, o) for f, o in zip(flushed.loc[name], overflow.loc[name], strict=True)]
        for name in flushed.index
    ]
    data = [_heat(powers, names, flushed.to_numpy(), palette.regions[Region.FLUSHED], words)]
    low, high = float(powers[0]) - 0.5, float(powers[-1]) + 0.5
    ticks = range(math.ceil(low / _TICK) * _TICK, math.floor(high) + 1, _TICK)
    return figure_of(
        [*data, _overflow_bars(powers, names, spoilt, palette)],
        mode,
        height=ROW_HEIGHT * len(names) + 118,
        margin={"l": 24 + 7 * max(map(len, names), default=4), "r": 16, "t": 62, "b": 52},
        hovermode="closest",
        shapes=_shapes(found, len(names), palette),
        annotations=_labels(found, (low, high), palette),
        xaxis={
            "range": [low, high],
            "tickvals": list(ticks),
            "ticktext": [format_scale(2.0**k) for k in ticks],
            "title": {"text": "loss scale S", "standoff": 6},
            "showgrid": False,
            "fixedrange": True,
        },
        yaxis=row_axis(names),
    )


def _heat(powers: Any, names: list[str], shares: Any, colour: str, words: list[list[str]]) -> PlotlyTrace:
    return heatmap_trace(
        x=powers,
        y=list(range(len(names))),
        z=shares,
        zmin=0,
        zmax=1,
        colorscale=[[0, "rgba(0,0,0,0)"], [0.001, faded(colour, 0.12)], [1, colour]],
        showscale=False,
        xgap=0,
        ygap=3,
        hoverongaps=False,
        text=words,
        customdata=[[name] * len(powers) for name in names],
        hovertemplate="%{customdata} at S = 2<sup>%{x}</sup><br>%{text}<extra></extra>",
    )


def _overflow_bars(powers: Any, names: list[str], spoilt: Any, palette: Palette) -> PlotlyTrace:
    """From the first S at which a layer overflows on; hatched, since the flushed share is a hue beside it."""
    colour = palette.regions[Region.OVERFLOW]
    rows = [i for i, over in enumerate(spoilt) if over.any()]
    first = [float(powers[spoilt[i].argmax()]) for i in rows]
    return bar_trace(
        orientation="h",
        y=rows,
        base=[power - 0.5 for power in first],
        x=[float(powers[-1]) + 1 - power for power in first],
        width=0.88,
        marker={
            "color": faded(colour, 0.12),
            "line": {"width": 0},
            "pattern": {"shape": "/", "fgcolor": colour, "size": 7, "solidity": 0.35},
        },
        text=[
            f"{names[i]} overflows from S = {format_scale(2.0**power)} on"
            for i, power in zip(rows, first, strict=True)
        ],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )


def _words(flushed: float, overflow: float) -> str:
    lost = f"{format_percent(flushed)} flushed"
    return f"{lost}, {format_percent(overflow)} overflow" if overflow > 0 else lost


def _shapes(found: Recommendation, rows: int, palette: Palette) -> list[dict[str, Any]]:
    if found.safe is None:
        return []
    low, high = (math.log2(scale) for scale in found.safe)
    ends = {"y0": -0.5, "y1": rows - 0.5}
    frame = {"color": palette.text, "width": 2}
    window = {"type": "rect", "x0": low - 0.5, "x1": high + 0.5, **ends, "line": frame}
    shapes: list[dict[str, Any]] = [window]
    if found.best is not None:
        best = math.log2(found.best)
        line = {"color": palette.text, "width": 2, "dash": "dot"}
        shapes.append({"type": "line", "x0": best, "x1": best, **ends, "line": line})
    return shapes


def _labels(found: Recommendation, ends: tuple[float, float], palette: Palette) -> list[dict[str, Any]]:
    def label(text: str, x: float, anchor: str, colour: str, row: int = 0) -> dict[str, Any]:
        return {
            "text": text,
            "x": x,
            "xanchor": anchor,
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "yshift": 4 + 20 * row,
            "showarrow": False,
            "font": {"color": colour, "size": 13},
        }

    labels = [
        label("← flushed to zero", ends[0], "left", palette.region_text[Region.FLUSHED], 1),
        label("overflows →", ends[1], "right", palette.region_text[Region.OVERFLOW], 1),
    ]
    if found.safe is None:
        return [*labels, label("no S is safe for all layers", sum(ends) / 2, "center", palette.text)]
    low, high = (math.log2(scale) for scale in found.safe)
    words = f"<b>safe: {format_scale(found.safe[0])} to {format_scale(found.safe[1])}</b>"
    return [*labels, label(words, (low + high) / 2, "center", palette.text)]
