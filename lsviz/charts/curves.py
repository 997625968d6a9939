"""Metrics over the steps, seeds together, and over S: the U-curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_scale
from lsviz.charts.drawing import PlotlyTrace, figure_of, scatter_trace
from lsviz.charts.theme import PALETTES, Mode, Palette, literal, panel_title, shortened
from lsviz.charts.timelines import DASHES, MAX_LABEL
from lsviz.formats import Region

HEIGHT: Final = 380
GAP: Final = 0.075
"""Smallest distance of two labels, as a share of the axis."""
WIDTHS: Final = (6.0, 4.5, 3.0, 1.5)
"""The first line is the widest, so that those that coincide are seen to lie on each other."""
CURVE_HEIGHT: Final = 520
_PANELS: Final = ((0.62, 1.0), (0.31, 0.54), (0.0, 0.23))


@dataclass(frozen=True, slots=True)
class MetricLine:
    """One variant's metric over the steps.

    Attributes:
        label: In a few words, written at the line's end.
        colour: The policy's colour.
        frame: Columns step, mean, low, high (`lsviz.analysis.curves.metric_frame`).
        dash: Index into DASHES.
    """

    label: str
    colour: str
    frame: pd.DataFrame
    dash: int = 0


def metric_figure(
    lines: Sequence[MetricLine],
    metric_name: str,
    mode: Mode,
    since: int | None = None,
    axis: str = "step",
) -> go.Figure:
    """Draw the metric over the steps: a line a variant, its seeds' range as a pale band.

    Args:
        lines: One to five variants over the same steps.
        metric_name: Title of the axis.
        mode: ``light`` or ``dark``.
        since: The step from which one falls behind, marked; None for none.
        axis: What the lines run over.
    """
    palette = PALETTES[mode]
    longest = max((len(shortened(line.label, MAX_LABEL)) for line in lines), default=0)
    widths = [WIDTHS[min(i, len(WIDTHS) - 1)] for i in range(len(lines))]
    # All bands lie below all lines.
    traces = [trace for line in lines for trace in _band_traces(line)]
    traces += [_line_trace(line, width) for line, width in zip(lines, widths, strict=True)]
    shapes = [] if since is None else [_mark(since, palette)]
    notes = [] if since is None else [_mark_label(since, palette)]
    return figure_of(
        traces,
        mode,
        height=HEIGHT,
        margin={"l": 58, "r": min(210, 20 + 8 * longest), "t": 28, "b": 46},
        hovermode="closest",
        shapes=shapes,
        annotations=[*_end_labels(lines), *notes],
        xaxis={"title": {"text": literal(axis), "standoff": 6}, "showgrid": False, "rangemode": "tozero"},
        yaxis={"title": {"text": literal(metric_name), "standoff": 4}},
    )


def scale_curve_figure(
    curve: pd.DataFrame, metric_name: str, mode: Mode, window: tuple[float, float] | None = None
) -> go.Figure:
    """Draw metric, flushed and skipped share over log2 S.

    Args:
        curve: `lsviz.analysis.curves.scale_curve_frame`.
        metric_name: What the metric is.
        mode: ``light`` or ``dark``.
        window: Smallest and largest S that train as FP32 does, shaded; None for none.
    """
    palette = PALETTES[mode]
    powers = np.log2(curve["loss_scale"].to_numpy(dtype=float))
    rows = (
        ("metric", palette.policies["constant"], f"<b>{literal(metric_name)}</b> at the end", "%{y:.4g}"),
        (
            "worst_flushed",
            palette.region_text[Region.FLUSHED],
            "<b>Flushed</b> in the layer that loses most",
            "%{y:.1%} flushed",
        ),
        ("skipped", palette.region_text[Region.OVERFLOW], "<b>Steps skipped</b>", "%{y:.1%} skipped"),
    )
    words = [format_scale(scale) for scale in curve["loss_scale"]]
    traces = [
        scatter_trace(
            x=powers,
            y=curve[column],
            yaxis=f"y{i or ''}",
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 7, "color": colour},
            customdata=words,
            hovertemplate=f"S = %{{customdata}}: {hover}<extra></extra>",
        )
        for i, (column, colour, _, hover) in zip((None, 2, 3), rows, strict=True)
    ]
    share = {"range": [-0.05, 1.05], "tickvals": [0, 0.5, 1], "ticktext": ["0 %", "50 %", "100 %"]}
    ends = [int(powers.min()), int(powers.max())] if len(powers) else [0, 16]
    ticks = range(ends[0], ends[1] + 1, 4)
    return figure_of(
        traces,
        mode,
        height=CURVE_HEIGHT,
        margin={"l": 58, "r": 16, "t": 30, "b": 48},
        hovermode="closest",
        shapes=[] if window is None else [_window(window, palette)],
        annotations=[
            panel_title(title, panel[1], palette)
            for (_, _, title, _), panel in zip(rows, _PANELS, strict=True)
        ],
        xaxis={
            "anchor": "y3",
            "range": [ends[0] - 1, ends[1] + 1],
            "title": {"text": "loss scale S", "standoff": 6},
            "tickvals": list(ticks),
            "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in ticks],
            "showgrid": False,
        },
        yaxis={"domain": _PANELS[0]},
        yaxis2={"domain": _PANELS[1], **share},
        yaxis3={"domain": _PANELS[2], **share},
    )


def _band_traces(line: MetricLine) -> list[PlotlyTrace]:
    steps = line.frame["step"]
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        scatter_trace(x=steps, y=line.frame["low"], **edge),
        scatter_trace(x=steps, y=line.frame["high"], fill="tonexty", fillcolor=_pale(line.colour), **edge),
    ]


def _line_trace(line: MetricLine, width: float) -> PlotlyTrace:
    name = literal(line.label)
    return scatter_trace(
        x=line.frame["step"],
        y=line.frame["mean"],
        mode="lines",
        name=name,
        line={"color": line.colour, "width": width, "dash": DASHES[line.dash % len(DASHES)]},
        hovertemplate=f"{name}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
    )


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"


def _end_labels(lines: Sequence[MetricLine]) -> list[dict[str, Any]]:
    """Each variant's name at its line's end, pushed apart where lines meet."""
    drawn = [line for line in lines if len(line.frame)]
    if not drawn:
        return []
    low = min(float(line.frame["low"].min()) for line in drawn)
    high = max(float(line.frame["high"].max()) for line in drawn)
    gap = GAP * (high - low or 1.0)
    ends = np.array([float(line.frame["mean"].iloc[-1]) for line in drawn])
    places = _apart(ends, gap)
    # Lines that end high would have their labels pushed out of the picture: all move down together.
    places -= max(0.0, places.max() - (high + gap / 2))
    return [
        {
            "text": f"<b>{literal(shortened(line.label, MAX_LABEL))}</b>",
            "x": int(line.frame["step"].iloc[-1]),
            "xref": "x",
            "xanchor": "left",
            "xshift": 6,
            "y": place,
            "yref": "y",
            "yanchor": "middle",
            "showarrow": False,
            "font": {"size": 13, "color": line.colour},
        }
        for line, place in zip(drawn, places, strict=True)
    ]


def _apart(values: Any, gap: float) -> Any:
    """Move values up where they are closer than a gap, keeping their order."""
    places = values.astype(float).copy()
    previous = -np.inf
    for index in np.argsort(values, kind="stable"):
        previous = places[index] = max(values[index], previous + gap)
    return places


def _mark(step: int, palette: Palette) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "yref": "y domain",
        "x0": step,
        "x1": step,
        "y0": 0,
        "y1": 1,
        "line": {"color": palette.muted, "width": 1, "dash": "dot"},
    }


def _mark_label(step: int, palette: Palette) -> dict[str, Any]:
    return {
        "text": f"behind from step {step:,}",
        "x": step,
        "xref": "x",
        "xanchor": "left",
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": palette.muted},
    }


def _window(window: tuple[float, float], palette: Palette) -> dict[str, Any]:
    low, high = np.log2(window)
    return {
        "type": "rect",
        "layer": "below",
        "xref": "x",
        "yref": "paper",
        "x0": low - 0.5,
        "x1": high + 0.5,
        "y0": 0,
        "y1": 1,
        "fillcolor": _pale(palette.policies["constant"]),
        "line": {"width": 0},
    }
