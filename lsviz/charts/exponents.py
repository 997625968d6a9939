"""The headline figure: every layer's gradient exponents on FP16's range, one facet a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import RunShares, format_percent
from lsviz.analysis.spectrum import spectrum_frame
from lsviz.charts.drawing import DIGITS, PlotlyTrace, bar_trace, figure_of, scatter_trace
from lsviz.charts.regions import LEFT, RIGHT, band, region_edges
from lsviz.charts.theme import (
    PALETTES,
    REGION_LABELS,
    SHORT_REGION_LABELS,
    Mode,
    Palette,
    faded,
    literal,
    policy_colour,
    shortened,
)
from lsviz.formats import FP16, FloatFormat, Region
from lsviz.runs.schema import RunRecord

ROW_PX: Final = 57
MIN_ROW_PX: Final = 26
MAX_ROWS_PX: Final = 900
HEADER_PX: Final = 136
FOOTER_PX: Final = 58
BAR_HEIGHT: Final = 0.78
GAP: Final = 0.025
LABEL_ROOM: Final = 0.35
"""Rows of space above the highest one for the names of the regions."""


@dataclass(frozen=True, slots=True)
class Facet:
    """One run's part of the figure.

    Attributes:
        title: The run in a few words (policy, seed).
        subtitle: S at the step shown.
        ending: How the run ended; empty while it is under way.
        colour: The policy's colour.
        spectrum: Frame of `lsviz.analysis.spectrum.spectrum_frame`.
        flushed: Layer -> flushed share; a layer without a reference is missing.
        total: Flushed share of all layers together; None without a reference.
        full_precision: Whether the run is FP32, which flushes nothing.
        overflow: Layer -> share that became Inf or NaN.
    """

    title: str
    subtitle: str
    ending: str
    colour: str
    spectrum: pd.DataFrame
    flushed: Mapping[str, float]
    total: float | None
    full_precision: bool = False
    overflow: Mapping[str, float] = field(default_factory=dict)


def run_facet(
    label: str,
    record: RunRecord,
    exponents: pd.DataFrame,
    step: int,
    layers: Sequence[str],
    shares: RunShares,
    metric: float | None,
    mode: Mode,
) -> Facet:
    """Return the facet of one run at one step.

    Args:
        label: The run in a few words.
        record: Its run.json.
        exponents: Its exponents table, or the part of that step.
        step: A recorded step.
        layers: The rows, lowest layer first.
        shares: What was flushed at that step (`lsviz.analysis.findings.run_shares`).
        metric: How the run ended; None while it is under way.
        mode: ``light`` or ``dark``.
    """
    ending = ""
    if metric is not None:
        value = format_percent(metric) if record.metric_name == "accuracy" else f"{metric:.4g}"
        ending = f"ends at {value} {record.metric_name or ''}".rstrip()
    scale = shares.scale_words if shares.loss_scale else "not recorded at this step"
    return Facet(
        title=label,
        subtitle=scale,
        ending=ending,
        colour=policy_colour(record.config.policy, record.config.precision, mode),
        spectrum=spectrum_frame(exponents, step, layers, FP16),
        flushed=shares.flushed,
        total=shares.total if shares.flushed else None,
        full_precision=record.config.precision == "fp32",
        overflow={layer: shares.overflow[layer] for layer in shares.overflowed},
    )


def exponent_figure(
    facets: Sequence[Facet], layers: Sequence[str], mode: Mode, fmt: FloatFormat = FP16
) -> go.Figure:
    """Draw one facet a run and one row a layer, lowest layer at the bottom.

    Bars are what the run kept, coloured by region; pale bars what FP32 has and the format flushes;
    the dotted outline all that FP32 has. Heights are relative to each row's largest share.

    Args:
        facets: One to four runs, left to right.
        layers: The rows, lowest layer first.
        mode: ``light`` or ``dark``.
        fmt: The format whose regions are shaded.
    """
    palette = PALETTES[mode]
    row_px = max(MIN_ROW_PX, min(ROW_PX, MAX_ROWS_PX // max(1, len(layers))))
    # Traces, shapes and annotations are gathered as plain values and checked by Plotly once: adding
    # them one by one checks all earlier ones again each time, which took ten times as long.
    traces: list[Any] = []
    shapes: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = [_axis_title(palette)]
    axes: dict[str, Any] = {}
    width = (1 - GAP * (len(facets) - 1)) / max(1, len(facets))
    for index, facet in enumerate(facets):
        axis = "" if index == 0 else str(index + 1)
        left = index * (width + GAP)
        axes[f"xaxis{axis}"] = _x_axis(left, left + width, f"y{axis}", len(facets))
        axes[f"yaxis{axis}"] = _y_axis(layers, f"x{axis}", row_px, palette, labelled=index == 0)
        shapes += _bands(axis, palette, fmt)
        names = REGION_LABELS if len(facets) <= 2 else SHORT_REGION_LABELS
        annotations += _band_labels(axis, len(layers), names, palette, fmt)
        annotations += _header(left, len(facets), facet, palette)
        annotations += _row_labels(axis, facet, layers, palette, words=len(facets) <= 2)
        traces += _row_traces(axis, facet, layers, palette, fmt)
    longest = min(24, max((len(name) for name in layers), default=0))
    return figure_of(
        traces,
        mode,
        height=HEADER_PX + FOOTER_PX + row_px * (len(layers) + LABEL_ROOM),
        margin={"l": min(190, 16 + 8 * longest), "r": 8, "t": HEADER_PX, "b": FOOTER_PX},
        barmode="overlay",
        bargap=0,
        hovermode="closest",
        shapes=shapes,
        annotations=annotations,
        **axes,
    )


def _x_axis(left: float, right: float, anchor: str, columns: int) -> dict[str, Any]:
    ticks = range(-40, 17, 8 if columns <= 2 else 16)
    return {
        "domain": [left, right],
        "anchor": anchor,
        "range": [LEFT, RIGHT],
        "tickvals": list(ticks),
        "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in ticks],
        "tickangle": 0,
        "fixedrange": True,
    }


def _y_axis(
    layers: Sequence[str], anchor: str, row_px: int, palette: Palette, *, labelled: bool
) -> dict[str, Any]:
    return {
        "anchor": anchor,
        "range": [-0.12, len(layers) + LABEL_ROOM],
        "showgrid": False,
        "fixedrange": True,
        "showticklabels": labelled,
        "tickvals": [i + 0.3 for i in range(len(layers))],
        "ticktext": [literal(shortened(name, 24, keep_end=True)) for name in layers],
        "tickfont": {"color": palette.text, "size": 13 if row_px > 40 else 11},
    }


def _axis_title(palette: Palette) -> dict[str, Any]:
    return {
        "text": "size of a gradient value in FP16, after scaling by S",
        "x": 0.5,
        "xref": "paper",
        "xanchor": "center",
        "y": 0,
        "yref": "paper",
        "yanchor": "top",
        "yshift": -28,
        "showarrow": False,
        "font": {"size": 13, "color": palette.muted},
    }


def _bands(axis: str, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    place = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
    return [band(region, palette, x0=left, x1=right, **place) for region, left, right in region_edges(fmt)]


def _band_labels(
    axis: str, rows: int, names: Mapping[Region, str], palette: Palette, fmt: FloatFormat
) -> list[dict[str, Any]]:
    return [
        {
            "text": names[region],
            "x": (left + right) / 2,
            "xref": f"x{axis}",
            "y": rows + LABEL_ROOM / 2,
            "yref": f"y{axis}",
            "yanchor": "middle",
            "showarrow": False,
            "font": {"size": 12 if names is REGION_LABELS else 11, "color": palette.region_text[region]},
        }
        for region, left, right in region_edges(fmt)
    ]


def _header(left: float, columns: int, facet: Facet, palette: Palette) -> list[dict[str, Any]]:
    if facet.overflow:
        headline, caption = "Inf", "overflow: this step is skipped"
    elif facet.full_precision:
        headline, caption = "0 %", "flushed: FP32 keeps all"
    elif facet.total is None:
        headline, caption = "–", "no reference at this step"
    else:
        headline, caption = format_percent(facet.total), "flushed to zero"
    lines = (
        (108, 17, facet.colour, f"<b>{literal(shortened(facet.title, 44 // columns + 6))}</b>"),
        (89, 13, palette.muted, literal(facet.subtitle)),
        (42, 40, palette.text, f"<b>{literal(headline)}</b>"),
        (26, 13, palette.muted, caption),
        (8, 13, palette.muted, literal(facet.ending)),
    )
    return [
        {
            "text": text,
            "x": left,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "yshift": shift,
            "align": "left",
            "showarrow": False,
            "font": {"size": size, "color": colour},
        }
        for shift, size, colour, text in lines
    ]


def _row_labels(
    axis: str, facet: Facet, layers: Sequence[str], palette: Palette, *, words: bool
) -> list[dict[str, Any]]:
    """What each row lost, at its left end: Inf or NaN first, else the flushed share.

    Loud where it is a percent or more.
    """
    labels = []
    for row, layer in enumerate(layers):
        colour = palette.muted
        if layer in facet.overflow:
            text = (
                f"<b>{literal(format_percent(facet.overflow[layer]))}</b>{' Inf or NaN' if words else ' Inf'}"
            )
            colour = palette.region_text[Region.OVERFLOW]
        elif layer in facet.flushed and not facet.full_precision:
            text = literal(format_percent(facet.flushed[layer]))
            if facet.flushed[layer] >= 0.01:
                text = f"<b>{text}</b>{' flushed' if words else ''}"
                colour = palette.region_text[Region.FLUSHED]
        else:
            continue
        labels.append(
            {
                "text": text,
                "x": LEFT,
                "xref": f"x{axis}",
                "xanchor": "left",
                "xshift": 4,
                "y": row + 0.42,
                "yref": f"y{axis}",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 12, "color": colour},
                "bgcolor": faded(palette.paper, 0.6),  # in a narrow window words reach into the bars
                "borderpad": 0,
            }
        )
    return labels


def _row_traces(
    axis: str, facet: Facet, layers: Sequence[str], palette: Palette, fmt: FloatFormat
) -> list[PlotlyTrace]:
    kept: dict[str, list[Any]] = {"x": [], "y": [], "base": [], "customdata": []}
    lost: dict[str, list[Any]] = {"x": [], "y": [], "base": [], "customdata": []}
    colours: list[str] = []
    outline_x: list[float | None] = []
    outline_y: list[float | None] = []
    visible = _visible_bins(facet.spectrum)
    ranges = {exponent: _range_words(exponent) for exponent in range(LEFT, RIGHT)}
    for row, layer in enumerate(layers):
        bins, name = visible.get(layer, {}), literal(layer)
        tallest = max((max(has, keeps) for has, keeps in bins.values()), default=0.0) or 1.0
        for exponent, (has, keeps) in sorted(bins.items()):
            # The bin just under the smallest subnormal rounds up to it: empty there is not flushed.
            is_flushed = exponent < fmt.min_subnormal_exponent - 1 and layer not in facet.overflow
            bars, share = (kept, keeps) if keeps > 0 else (lost, has if is_flushed else 0.0)
            if share <= 0:
                continue
            if bars is kept:
                region = fmt.region_of(exponent)
                colours.append(palette.neutral if facet.full_precision else palette.regions[region])
            bars["x"].append(exponent + 0.5)
            bars["y"].append(_height(share / tallest))
            bars["base"].append(row)
            bars["customdata"].append(
                f"<b>{name}</b>, {ranges[exponent]}<br>"
                f"FP32 has {format_percent(has)}, kept {format_percent(keeps)}"
            )
        heights = {e: _height(has / tallest) for e, (has, _) in bins.items()}
        _extend_outline(outline_x, outline_y, row, heights)
    place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    bar = {"width": 0.9, "hovertemplate": "%{customdata}<extra></extra>", **place}
    pale = {"color": palette.regions[Region.FLUSHED], "opacity": 0.38, "line": {"width": 0}}
    outline = {"color": palette.muted, "width": 1, "dash": "dot"}
    return [
        bar_trace(**lost, marker=pale, **bar),
        bar_trace(**kept, marker={"color": colours, "line": {"width": 0}}, **bar),
        scatter_trace(x=outline_x, y=outline_y, mode="lines", hoverinfo="skip", line=outline, **place),
    ]


def _visible_bins(spectrum: pd.DataFrame) -> dict[str, dict[int, tuple[float, float]]]:
    """Return layer -> exponent -> (reference share, kept share), folded into the axis's ends."""
    visible: dict[str, dict[int, tuple[float, float]]] = {}
    places = spectrum["exponent"].clip(LEFT, RIGHT - 1).tolist()
    shares = (spectrum["reference"].fillna(0.0).tolist(), spectrum["kept"].tolist())
    for layer, place, has, keeps in zip(spectrum["tensor"].tolist(), places, *shares, strict=True):
        bins = visible.setdefault(layer, {})
        before = bins.get(place, (0.0, 0.0))
        bins[place] = (before[0] + has, before[1] + keeps)
    return visible


def _height(share: float) -> float:
    """Return how high a share of the tallest is drawn, in rows; what is not zero stays a line of a pixel."""
    return max(round(share * BAR_HEIGHT, DIGITS), 10.0**-DIGITS) if share > 0 else 0.0


def _extend_outline(
    xs: list[float | None], ys: list[float | None], row: int, heights: Mapping[int, float]
) -> None:
    """Add one row's dotted outline: its baseline across the facet and a step around each bin."""
    xs.append(LEFT)
    ys.append(row)
    for exponent in range(LEFT, RIGHT):
        top = row + heights.get(exponent, 0.0)
        if ys[-1] != top:
            xs.append(exponent)
            ys.append(ys[-1])
            xs.append(exponent)
            ys.append(top)
    xs.extend([RIGHT, RIGHT, None])
    ys.extend([ys[-1], row, None])


def _range_words(exponent: int) -> str:
    if exponent == LEFT:
        return f"below 2<sup>{LEFT + 1}</sup>"
    return f"2<sup>{exponent}</sup> to 2<sup>{exponent + 1}</sup>"
