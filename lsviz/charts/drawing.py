"""Figures from plain values: traces, and the layout that all figures share.

Plotly's Python half looks at each value of a figure in turn, which takes longer than all else that a page
does between a key and its picture. Figures are therefore put together unchecked; in tests all are checked.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.charts.theme import FONT, PALETTES, Mode

CHECKED: bool = False
"""Whether Plotly checks each value of a figure; tests set it."""

DIGITS: Final = 5
"""Decimals of a cell, or of a height in rows: more would be sent than a screen shows."""
_AXES: Final = ("xaxis", "yaxis")

PlotlyTrace = dict[str, Any]
"""What Plotly calls a trace, with its ``type``."""


def figure_of(traces: Sequence[PlotlyTrace], mode: Mode, **layout: Any) -> go.Figure:
    """Return a figure with fonts and colours that all share.

    Args:
        traces: Back to front.
        mode: ``light`` or ``dark``.
        layout: Plotly's own names, nested.
    """
    drawn_on = (trace.get(axis, axis[0]) for trace in traces for axis in _AXES)
    names = ["xaxis", "yaxis", *(f"{ref[0]}axis{ref[1:]}" for ref in drawn_on), *layout]
    without_grid = {name for trace in traces for name in _plain_axes(trace)}
    axes = {
        name: _over(
            base_axis(name, mode) | ({"showgrid": False} if name in without_grid else {}),
            layout.get(name, {}),
        )
        for name in dict.fromkeys(names)
        if name[:5] in _AXES
    }
    drawn = base_layout(mode) | layout | axes | {"datarevision": _revision(traces)}
    if "height" in drawn:
        drawn["height"] = round(drawn["height"])  # Streamlit takes whole pixels, and draws others twice
    return _Figure(data=list(traces), layout=drawn, _validate=CHECKED)


def scatter_trace(**props: Any) -> PlotlyTrace:
    """Return lines, marks or words; props as `plotly.graph_objects.Scatter` takes them, nested."""
    return {"type": "scatter", **_plain(props)}


def bar_trace(**props: Any) -> PlotlyTrace:
    """Return bars; props as `plotly.graph_objects.Bar` takes them, nested."""
    return {"type": "bar", **_plain(props)}


def heatmap_trace(**props: Any) -> PlotlyTrace:
    """Return a heat map; props as `plotly.graph_objects.Heatmap` takes them, nested.

    Tables of numbers are rounded to DIGITS decimals.
    """
    rounded = {
        name: value.round(DIGITS) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
        for name, value in props.items()
    }
    return {"type": "heatmap", **_plain(rounded)}


def base_layout(mode: Mode) -> dict[str, Any]:
    """Return what all figures share: fonts, colours, no legend, a state that survives redraws."""
    palette = PALETTES[mode]
    return {
        "font": {"family": FONT, "color": palette.text, "size": 13},
        "paper_bgcolor": palette.paper,  # a saved picture has it too
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": palette.muted, "activecolor": palette.text},
        "uirevision": "lsviz",
        "template": {},  # else Plotly's own
    }


def base_axis(name: str, mode: Mode) -> dict[str, Any]:
    """Return what all axes share.

    Args:
        name: As in a layout: ``xaxis``, ``yaxis2``.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    axis = {
        "gridcolor": palette.grid,
        "zeroline": False,
        "tickfont": {"color": palette.muted, "size": 12},
        "title": {"font": {"color": palette.muted, "size": 13}},
        "automargin": False,
    }
    # To find out whether a row's name sticks out, Plotly measures each anew; none does.
    return {**axis, "ticklabeloverflow": "allow"} if name.startswith("y") else axis


def _plain_axes(trace: PlotlyTrace) -> list[str]:
    """Return which axes have no grid for a trace's sake: those of cells, and the one that bars stand on.

    As Plotly has it for axes that say nothing of their grid (plotly.js 4.1, cartesian/layout_defaults.js).
    """
    along = {"heatmap": _AXES, "bar": _AXES[trace.get("orientation") == "h" :][:1]}
    refs = [(axis, trace.get(axis, axis[0])) for axis in along.get(trace["type"], ())]
    return [f"{axis}{ref[1:]}" for axis, ref in refs]


def _over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, nested; a figure's own before what is shared."""
    nested = {
        name: _over(value, own[name])
        for name, value in shared.items()
        if isinstance(value, dict) and isinstance(own.get(name), dict)
    }
    return {**shared, **own, **nested}


def _revision(traces: Sequence[PlotlyTrace]) -> int:
    """Return a number for what traces show: another one for another content."""
    return zlib.crc32(repr(traces).encode())


def _plain(value: Any) -> Any:
    """Return lists for arrays, and None in them for what is no number."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, pd.Series):
        value = value.to_numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not (finite := np.isfinite(value)).all():
            value = value.astype(object)
            value[~finite] = None
        value = value.tolist()
    return _Values(value) if isinstance(value, list) else value


class _Values(list[Any]):
    """A list that is never changed, and so is its own copy: Plotly copies each figure three times."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _Figure(go.Figure):  # type: ignore[misc]
    """A figure that Plotly can tell from another.

    Streamlit hands Plotly each figure twice, the second time a copy. Plotly leaves the copy undrawn if it has
    the same ``datarevision`` and no template, which is never like its copy, nor arrays in base64, which
    Plotly's Python half makes of all (and which Streamlit writes out as objects with a name for each place).
    """

    def to_dict(self) -> dict[str, Any]:
        layout = deepcopy(self._layout)
        layout.pop("template", None)
        return {"data": deepcopy(self._data), "layout": layout}
