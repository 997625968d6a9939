"""Gradient exponents over a whole training: the paper's Figure 3, with the step as second axis."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.history import ZERO, below
from lsviz.charts.drawing import PlotlyTrace, bar_trace, figure_of, heatmap_trace
from lsviz.charts.regions import LEFT, RIGHT
from lsviz.charts.theme import PALETTES, REGION_LABELS, Mode, Palette, literal, panel_title
from lsviz.exponents import EXPONENTS
from lsviz.formats import FP16, FloatFormat, Region

HEIGHT: Final = 520
SMALLEST: Final = 3e-5
"""Where the logarithmic axis of shares begins."""
_TOP: Final = (0.62, 1.0)
_BOTTOM: Final = (0.0, 0.53)
_VISIBLE: Final = range(LEFT, RIGHT)


def history_figure(
    history: pd.DataFrame, loss_scale: float, mode: Mode, fmt: FloatFormat = FP16
) -> go.Figure:
    """Draw all gradient values of a training by exponent: their mean above, every recorded step below.

    The two lines are where the format's range ends; the framed band is what a loss scale brings into it.

    Args:
        history: `lsviz.analysis.history.history_frame`: FP32 gradients, S = 1.
        loss_scale: The S whose band is framed.
        mode: ``light`` or ``dark``.
        fmt: The format.
    """
    palette = PALETTES[mode]
    shares = _visible_shares(history)
    limits = math.log2(fmt.flush_limit), math.log2(fmt.overflow_limit)
    band = limits[0] - math.log2(loss_scale), limits[0]
    return figure_of(
        [_bars(shares, palette, fmt), _heat(shares, palette)],
        mode,
        height=HEIGHT,
        margin={"l": 58, "r": 16, "t": 64, "b": 52},
        bargap=0,
        hovermode="closest",
        shapes=[
            *(_line(x, y, palette.text, "dash") for x in limits for y in ("y", "y2")),
            *(_band(band, y, palette) for y in ("y", "y2")),
        ],
        annotations=[
            *_region_labels(history, limits, palette, fmt),
            panel_title("<b>Every recorded step</b>: the stronger, the more values", _BOTTOM[1], palette),
            _band_label(history, band, loss_scale, palette),
        ],
        xaxis={
            "anchor": "y2",
            "range": [LEFT, RIGHT],
            "tickvals": list(range(-40, 17, 8)),
            "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in range(-40, 17, 8)],
            "tickangle": 0,
            "title": {"text": "size of a gradient value in FP32, S = 1", "standoff": 6},
            "fixedrange": True,
        },
        yaxis={
            "domain": _TOP,
            "type": "log",
            "range": [math.log10(SMALLEST), 0],
            "tickvals": [1e-4, 1e-3, 1e-2, 1e-1, 1],
            "ticktext": ["0.01 %", "0.1 %", "1 %", "10 %", ""],
            "fixedrange": True,
        },
        yaxis2={
            "domain": _BOTTOM,
            "title": {"text": "step", "standoff": 4},
            "autorange": "reversed",
            "showgrid": False,
            "fixedrange": True,
        },
    )


def _visible_shares(history: pd.DataFrame) -> pd.DataFrame:
    """Fold what lies outside the axis into its first and last bin."""
    shares = history[[e for e in EXPONENTS if LEFT <= e < RIGHT]].copy()
    shares[LEFT] += history[[e for e in EXPONENTS if e < LEFT]].sum(axis=1)
    shares[RIGHT - 1] += history[[e for e in EXPONENTS if e >= RIGHT]].sum(axis=1)
    return shares


def _bars(shares: pd.DataFrame, palette: Palette, fmt: FloatFormat) -> PlotlyTrace:
    mean = shares.mean(axis=0) if len(shares) else pd.Series(0.0, index=list(_VISIBLE))
    return bar_trace(
        x=[e + 0.5 for e in _VISIBLE],
        y=mean.to_numpy(),
        width=0.92,
        marker={"color": [palette.regions[_region(e, fmt)] for e in _VISIBLE], "line": {"width": 0}},
        customdata=[f"2<sup>{e}</sup> to 2<sup>{e + 1}</sup>" for e in _VISIBLE],
        hovertemplate="%{customdata}<br>%{y:.2%} of the non-zero values, mean over training<extra></extra>",
    )


def _region(exponent: int, fmt: FloatFormat) -> Region:
    """The bin just under the smallest subnormal rounds up to it."""
    rounds_up = exponent == fmt.min_subnormal_exponent - 1
    return Region.SUBNORMAL if rounds_up else fmt.region_of(exponent)


def _heat(shares: pd.DataFrame, palette: Palette) -> PlotlyTrace:
    values = shares.to_numpy()
    return heatmap_trace(
        x=[e + 0.5 for e in _VISIBLE],
        y=shares.index.to_numpy(),
        z=np.log10(np.where(values > 0, values, np.nan)),
        customdata=values,
        yaxis="y2",
        colorscale=[[0.0, palette.heat[0]], [1.0, palette.heat[1]]],
        zmin=math.log10(SMALLEST),
        zmax=-0.5,
        showscale=False,
        hovertemplate="step %{y}: %{customdata:.2%} of the non-zero values<extra></extra>",
        hoverongaps=False,
    )


def _line(x: float, axis: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "yref": f"{axis} domain",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "line": {"color": colour, "width": 1.5, "dash": dash},
    }


def _band(band: tuple[float, float], axis: str, palette: Palette) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "x",
        "yref": f"{axis} domain",
        "x0": max(LEFT, band[0]),
        "x1": band[1],
        "y0": 0,
        "y1": 1,
        "line": {"color": palette.policies["constant"], "width": 2},
        "fillcolor": "rgba(0,0,0,0)",
    }


def _label(text: str, x: float, shift: int, colour: str, **more: Any) -> dict[str, Any]:
    return {
        "text": text,
        "x": x,
        "xref": "x",
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": shift,
        "showarrow": False,
        "font": {"size": 13, "color": colour},
        **more,
    }


def _region_labels(
    history: pd.DataFrame, limits: tuple[float, float], palette: Palette, fmt: FloatFormat
) -> list[dict[str, Any]]:
    lost = format_percent(below(history, limits[0]))
    zeros = format_percent(float(history[ZERO].mean())) if len(history) else "–"
    flushed, overflow = palette.region_text[Region.FLUSHED], palette.region_text[Region.OVERFLOW]
    return [
        _label(f"<b>{literal(lost)}</b> flushed", LEFT, 4, flushed, xanchor="left"),
        _label(f"and {literal(zeros)} of all are exactly 0", LEFT, 22, palette.muted, xanchor="left"),
        _label(REGION_LABELS[Region.OVERFLOW], (limits[1] + RIGHT) / 2, 4, overflow),
        *(
            _label(REGION_LABELS[region], (left + right) / 2, 4, palette.region_text[region])
            for region, left, right in (
                (Region.SUBNORMAL, limits[0], fmt.min_exponent),
                (Region.NORMAL, fmt.min_exponent, limits[1]),
            )
        ),
    ]


def _band_label(
    history: pd.DataFrame, band: tuple[float, float], loss_scale: float, palette: Palette
) -> dict[str, Any]:
    rescued = format_percent(below(history, band[1]) - below(history, band[0]))
    text = f"<b>S = {format_scale(loss_scale)}</b> brings {literal(rescued)} back"
    return _label(text, band[1], 42, palette.policies["constant"], xanchor="center")
