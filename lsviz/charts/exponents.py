"""The headline figure: every layer's gradient exponents on FP16's range, one facet a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lsviz.analysis.findings import format_percent
from lsviz.charts.theme import PALETTES, REGION_LABELS, Mode, Palette, base_layout, literal
from lsviz.formats import FP16, FloatFormat, Region

LEFT, RIGHT = -44, 19
"""One fixed axis for every figure; what lies further left is drawn in the first bin."""

ROW_PX: Final = 62
MIN_ROW_PX: Final = 26
MAX_ROWS_PX: Final = 900
HEADER_PX: Final = 132
FOOTER_PX: Final = 58
BAR_HEIGHT: Final = 0.8


@dataclass(frozen=True, slots=True)
class Facet:
    """One run's part of the figure.

    Attributes:
        title: The run in a few words (policy, seed).
        subtitle: S and how the run ended.
        colour: The policy's colour.
        spectrum: Frame of `lsviz.analysis.spectrum.spectrum_frame`.
        flushed: Layer -> flushed share; a layer without a reference is missing.
        total: Flushed share of all layers together; None without a reference.
        full_precision: Whether the run is FP32, which flushes nothing.
    """

    title: str
    subtitle: str
    colour: str
    spectrum: pd.DataFrame
    flushed: Mapping[str, float]
    total: float | None
    full_precision: bool = False


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
    columns = len(facets)
    figure = make_subplots(rows=1, cols=columns, shared_yaxes=True, horizontal_spacing=0.02)
    figure.update_layout(base_layout(mode))
    row_px = max(MIN_ROW_PX, min(ROW_PX, MAX_ROWS_PX // max(1, len(layers))))
    for column, facet in enumerate(facets, start=1):
        _draw_bands(figure, column, palette, fmt, labelled=columns <= 3)
        _draw_rows(figure, column, facet, layers, palette, fmt)
        _draw_header(figure, column, facet, palette)
        figure.update_xaxes(
            range=[LEFT, RIGHT],
            tickvals=list(range(-40, 17, 8)),
            ticktext=[f"2<sup>{e}</sup>" for e in range(-40, 17, 8)],
            tickangle=0,
            fixedrange=True,
            title={"text": "size of a gradient value as FP16 sees it, times S", "standoff": 8}
            if column == (columns + 1) // 2 or columns == 2
            else None,
            row=1,
            col=column,
        )
    longest = max((len(name) for name in layers), default=0)
    figure.update_yaxes(range=[-0.12, len(layers)], showgrid=False, showticklabels=False, fixedrange=True)
    figure.update_yaxes(
        showticklabels=True,
        tickvals=[i + 0.3 for i in range(len(layers))],
        ticktext=[literal(name if len(name) <= 24 else "…" + name[-23:]) for name in layers],
        tickfont={"color": palette.text, "size": 13 if row_px > 40 else 11},
        row=1,
        col=1,
    )
    figure.update_layout(
        height=HEADER_PX + FOOTER_PX + row_px * len(layers),
        margin={"l": min(190, 16 + 8 * min(longest, 24)), "r": 8, "t": HEADER_PX, "b": FOOTER_PX},
        barmode="overlay",
        bargap=0,
        hovermode="closest",
    )
    return figure


def _draw_bands(figure: go.Figure, column: int, palette: Palette, fmt: FloatFormat, *, labelled: bool) -> None:
    # Edges on a log2 axis: half the smallest subnormal still rounds up to it; the end rounds to Inf.
    flush = math.log2(fmt.flush_limit)
    edges = [LEFT, flush, fmt.min_exponent, math.log2(fmt.overflow_limit), RIGHT]
    for region, left, right in zip(Region, edges, edges[1:], strict=False):
        figure.add_vrect(
            x0=left, x1=right, fillcolor=palette.bands[region], line_width=0, layer="below", row=1, col=column
        )
        if labelled:
            figure.add_annotation(
                x=(left + right) / 2,
                y=1,
                yref="paper",
                yanchor="bottom",
                text=REGION_LABELS[region],
                font={"size": 12, "color": palette.regions[region]},
                showarrow=False,
                row=1,
                col=column,
            )


def _draw_header(figure: go.Figure, column: int, facet: Facet, palette: Palette) -> None:
    axis = figure.layout["xaxis" if column == 1 else f"xaxis{column}"]
    left = axis.domain[0]
    if facet.full_precision:
        headline, caption = "0 %", "flushed: FP32 keeps all"
    elif facet.total is None:
        headline, caption = "–", "no FP32 reference at this step"
    else:
        headline, caption = format_percent(facet.total), "of its gradient values flushed to zero"
    lines = (
        (104, 17, facet.colour, f"<b>{literal(facet.title)}</b>"),
        (86, 13, palette.muted, literal(facet.subtitle)),
        (38, 40, palette.text, f"<b>{headline}</b>"),
        (22, 13, palette.muted, caption),
    )
    for shift, font_size, colour, text in lines:
        figure.add_annotation(
            x=left,
            xref="paper",
            xanchor="left",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=shift,
            text=text,
            align="left",
            font={"size": font_size, "color": colour},
            showarrow=False,
        )


def _draw_rows(
    figure: go.Figure,
    column: int,
    facet: Facet,
    layers: Sequence[str],
    palette: Palette,
    fmt: FloatFormat,
) -> None:
    kept: dict[str, list[Any]] = {"x": [], "y": [], "base": [], "colour": [], "hover": []}
    lost: dict[str, list[Any]] = {"x": [], "y": [], "base": [], "hover": []}
    outline_x: list[float | None] = []
    outline_y: list[float | None] = []
    for row, layer in enumerate(layers):
        bins = _visible_bins(facet.spectrum[facet.spectrum["tensor"] == layer])
        tallest = max((max(has, keeps) for has, keeps in bins.values()), default=0.0) or 1.0
        for exponent, (has, keeps) in sorted(bins.items()):
            region = fmt.region_of(exponent)
            hover = _hover(layer, exponent, has, keeps)
            if keeps > 0:
                kept["x"].append(exponent + 0.5)
                kept["y"].append(keeps / tallest * BAR_HEIGHT)
                kept["base"].append(row)
                kept["colour"].append(palette.neutral if facet.full_precision else palette.regions[region])
                kept["hover"].append(hover)
            elif has > 0:
                lost["x"].append(exponent + 0.5)
                lost["y"].append(has / tallest * BAR_HEIGHT)
                lost["base"].append(row)
                lost["hover"].append(hover)
        _extend_outline(outline_x, outline_y, row, {e: has / tallest * BAR_HEIGHT for e, (has, _) in bins.items()})
        share = facet.flushed.get(layer)
        if share is not None and not facet.full_precision:
            loud = share >= 0.01
            colour = palette.regions[Region.FLUSHED] if loud else palette.muted
            text = format_percent(share)
            figure.add_annotation(
                x=LEFT,
                y=row + 0.3,
                xanchor="left",
                xshift=6,
                text=f"<b>{text}</b> flushed" if loud else text,
                font={"size": 12, "color": colour},
                showarrow=False,
                row=1,
                col=column,
            )
    bars = {"width": 0.9, "hovertemplate": "%{customdata}<extra></extra>"}
    figure.add_trace(
        go.Bar(
            x=lost["x"], y=lost["y"], base=lost["base"], customdata=lost["hover"],
            marker={"color": palette.regions[Region.FLUSHED], "opacity": 0.38, "line_width": 0}, **bars,
        ),
        row=1, col=column,
    )  # fmt: skip
    figure.add_trace(
        go.Bar(
            x=kept["x"], y=kept["y"], base=kept["base"], customdata=kept["hover"],
            marker={"color": kept["colour"], "line_width": 0}, **bars,
        ),
        row=1, col=column,
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=outline_x, y=outline_y, mode="lines", hoverinfo="skip",
            line={"color": palette.muted, "width": 1, "dash": "dot"},
        ),
        row=1, col=column,
    )  # fmt: skip


def _visible_bins(spectrum: pd.DataFrame) -> dict[int, tuple[float, float]]:
    """Return exponent -> (reference share, kept share), folded into the axis's first and last bin."""
    bins: dict[int, tuple[float, float]] = {}
    for exponent, has, keeps in zip(
        spectrum["exponent"], spectrum["reference"].fillna(0.0), spectrum["kept"], strict=True
    ):
        place = min(max(int(exponent), LEFT), RIGHT - 1)
        before = bins.get(place, (0.0, 0.0))
        bins[place] = (before[0] + float(has), before[1] + float(keeps))
    return bins


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


def _hover(layer: str, exponent: int, has: float, keeps: float) -> str:
    where = f"2<sup>{exponent}</sup> to 2<sup>{exponent + 1}</sup>"
    if exponent == LEFT:
        where = f"below 2<sup>{LEFT + 1}</sup>"
    return (
        f"<b>{literal(layer)}</b>, {where}<br>"
        f"FP32 has {format_percent(has)}, kept {format_percent(keeps)}"
    )
