"""One layer's exponents over the steps, a facet a run, with the format's edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.charts.drawing import PlotlyTrace, figure_of, heatmap_trace
from lsviz.charts.layerparts import (
    HUES,
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
from lsviz.charts.theme import PALETTES, REGION_LABELS, Mode, Palette
from lsviz.formats import FloatFormat

_HEIGHT: Final = 380


def layer_history_figure(facets: Sequence[LayerFacet], mode: Mode, fmt: FloatFormat) -> go.Figure:
    """Draw one layer's exponents over the recorded steps, with the format's edges.

    Args:
        facets: One to four runs, left to right, each with `layers_frame` of the one tensor.
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
        left, right = facet_domain(index, len(facets))
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
            **exponent_ticks(TICK),
            **({} if index == 0 else {"matches": "y", "showticklabels": False}),
        }
        traces.append(_history_cells(facet.layers, palette, fmt, {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}))
        shapes += region_shapes(axis, "y", palette, fmt)
        notes += facet_titles(facet, left, len(facets), palette, shift=6)
    notes += _region_names_beside("" if len(facets) == 1 else str(len(facets)), palette, fmt)
    return figure_of(
        traces,
        mode,
        height=_HEIGHT,
        margin={"l": 52, "r": 84, "t": 32, "b": 46},
        hovermode="closest",
        shapes=shapes,
        annotations=notes,
        **axes,
    )


def step_lines(facets: int, step: int, mode: Mode) -> list[dict[str, Any]]:
    """Return the dashed line at a step in each facet, to be drawn over the figure."""
    line = {"color": PALETTES[mode].text, "width": 2, "dash": "dash"}
    ends = {"x0": step, "x1": step, "y0": 0, "y1": 1}
    return [
        {"type": "line", "xref": f"x{axis}", "yref": f"y{axis} domain", **ends, "line": line}
        for axis in ("", *map(str, range(2, facets + 1)))
    ]


def _history_cells(
    layers: pd.DataFrame, palette: Palette, fmt: FloatFormat, place: dict[str, str]
) -> PlotlyTrace:
    """Return cells of one colour scale for all hues: a hue's part of it begins at its number."""
    steps = layers["step"].to_numpy(np.int64)
    shape = (len(layers), len(VISIBLE))
    shares = (
        visible(np.array(layers["shares"].to_list(), np.float64).reshape(len(layers), -1))
        if len(layers)
        else np.zeros(shape)
    )
    hue = cell_hues(np.array(layers["lost"].to_list(), bool), fmt) if len(layers) else np.zeros(shape)
    return heatmap_trace(
        x=steps,
        y=[e + 0.5 for e in VISIBLE],
        z=np.where(shares > 0, hue_value(hue, shares), np.nan).T,
        zmin=0,
        zmax=len(HUES),
        colorscale=hue_scale(palette),
        showscale=False,
        hoverongaps=False,
        customdata=shares.T,
        hovertemplate="step %{x:,}, 2<sup>%{y:.0f}</sup><br>%{customdata:.2%} of the values<extra></extra>",
        **place,
    )


def _region_names_beside(axis: str, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    return [
        note(
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
