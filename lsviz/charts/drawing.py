"""Figures from plain values: traces, and the layout that all figures share.

Plotly's Python half looks at each value of a figure in turn, which takes longer than all else that a page
does between a key and its picture. Figures are therefore put together unchecked; in tests all are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from lsviz.charts.theme import FONT, PALETTES, Mode

CHECKED: bool = False
"""Whether Plotly checks each value of a figure; tests set it."""

PlotlyTrace = dict[str, Any]
"""What Plotly calls a trace, with its ``type``."""


def figure_of(traces: Sequence[PlotlyTrace], mode: Mode, **layout: Any) -> go.Figure:
    """Return a figure with fonts and colours that all share.

    Args:
        traces: Back to front.
        mode: ``light`` or ``dark``.
        layout: Plotly's own names, nested.
    """
    return go.Figure(data=list(traces), layout=base_layout(mode) | layout, _validate=CHECKED)


def scatter_trace(**props: Any) -> PlotlyTrace:
    """Return lines, marks or words; props as `plotly.graph_objects.Scatter` takes them, nested."""
    return {"type": "scatter", **_arrays(props)}


def bar_trace(**props: Any) -> PlotlyTrace:
    """Return bars; props as `plotly.graph_objects.Bar` takes them, nested."""
    return {"type": "bar", **_arrays(props)}


def heatmap_trace(**props: Any) -> PlotlyTrace:
    """Return a heat map; props as `plotly.graph_objects.Heatmap` takes them, nested."""
    return {"type": "heatmap", **_arrays(props)}


def base_layout(mode: Mode) -> dict[str, Any]:
    """Return what all figures share: fonts, colours, no legend, a state that survives redraws."""
    palette = PALETTES[mode]
    axis = {
        "gridcolor": palette.grid,
        "linecolor": palette.grid,
        "zeroline": False,
        "tickfont": {"color": palette.muted, "size": 12},
        "title": {"font": {"color": palette.muted, "size": 13}},
        "automargin": False,
    }
    return {
        "font": {"family": FONT, "color": palette.text, "size": 13},
        "paper_bgcolor": palette.paper,  # a saved picture has it too
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": palette.muted, "activecolor": palette.text},
        "uirevision": "lsviz",
        # To find out whether a row's name sticks out, Plotly measures each anew; none does.
        "template": {"layout": {"xaxis": axis, "yaxis": {**axis, "ticklabeloverflow": "allow"}}},
    }


def _arrays(props: dict[str, Any]) -> dict[str, Any]:
    return {name: v.to_numpy() if isinstance(v, pd.Series) else v for name, v in props.items()}
