"""How far each layer's largest gradient is below overflow, step by step, and who overflowed first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.charts.drawing import PlotlyTrace, figure_of, heatmap_trace, scatter_trace
from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.theme import PALETTES, Mode, Palette, faded, literal, panel_title
from lsviz.formats import Region

ROW_HEIGHT: Final = 28
MOST_ROWS: Final = 40
MOST_COLUMNS: Final = 240
MAX_MARKS: Final = 1000
"""Skipped steps that are marked; of more, some."""
NARROWEST: Final = 8
"""Binades that the colours span at least."""


def headroom_figure(
    headroom: pd.DataFrame, blame: pd.DataFrame, mode: Mode, bottleneck: str | None = None
) -> go.Figure:
    """Draw each layer's headroom over the steps, stronger nearer to overflow; a cross where it began.

    Colours span the run's own headroom, so that layers differ where all of them have much.

    Args:
        headroom: `lsviz.analysis.blame.headroom_frame`.
        blame: `lsviz.analysis.blame.blame_frame`.
        mode: ``light`` or ``dark``.
        bottleneck: The layer to frame.
    """
    palette = PALETTES[mode]
    layers = [str(name) for name in headroom["layer"].cat.categories][::-1]  # the lowest at the bottom
    near = headroom.groupby(headroom["layer"].astype(str))["headroom"].min().nsmallest(MOST_ROWS)
    empty = [name for name in layers if name not in near.index][: MOST_ROWS - len(near)]
    left_out = len(layers) - len(near) - len(empty)
    layers = [name for name in layers if name in near.index or name in empty]
    last = int(headroom["step"].max()) if len(headroom) else 0
    width = max(1, math.ceil((last + 1) / MOST_COLUMNS))
    binned = headroom.assign(column=headroom["step"] // width)
    least = binned.pivot_table(
        index="layer", columns="column", values="headroom", aggfunc="min", observed=True
    ).reindex(layers)
    meant = blame.loc[blame["injected"].notna(), "step"].tolist() if "injected" in blame else []
    unmeant = ~least.columns.isin([step // width for step in meant])
    names = row_names(layers)
    columns = least.columns.to_numpy(np.int64)
    cells = least.to_numpy()
    heat = _heat(cells, columns * width, width, names, palette, unmeant)
    unknown = _unknown(cells, heat, palette)
    return figure_of(
        [*unknown, heat, *_crosses(blame, layers, palette)],
        mode,
        height=ROW_HEIGHT * len(names) + 118,
        margin={"l": 24 + 7 * max(map(len, names), default=4), "r": 16, "t": 50, "b": 52},
        hovermode="closest",
        annotations=_key(palette, left_out, framed=bottleneck in layers, gaps=bool(unknown)),
        shapes=_frame(layers, bottleneck, last, palette),
        xaxis={
            "range": [-0.5, last + 0.5],
            "tickformat": ",d",
            "title": {"text": "step", "standoff": 6},
            "showgrid": False,
        },
        yaxis=row_axis(names),
    )


def _heat(
    least: Any, first: Any, width: int, names: Sequence[str], palette: Palette, unmeant: Any
) -> PlotlyTrace:
    colour = palette.regions[Region.OVERFLOW]
    low, high = _range(least[:, unmeant] if unmeant.any() else least)
    steps = [f"step {s:,}" if width == 1 else f"steps {s:,} to {s + width - 1:,}" for s in first.tolist()]
    words = [[_words(value, step) for value, step in zip(row, steps, strict=True)] for row in least]
    return heatmap_trace(
        x=first + (width - 1) / 2,
        y=list(range(len(names))),
        z=least,
        zmin=low,
        zmax=high,
        colorscale=[[0, colour], [0.34, faded(colour, 0.45)], [1, faded(colour, 0.05)]],
        colorbar={
            "thickness": 12,
            "len": 1,
            "outlinewidth": 0,
            "title": {"text": "binades", "font": {"size": 12, "color": palette.muted}},
            "tickvals": [low, high],
            "ticktext": [f"{low:.0f}", f"{high:.0f}"],
            "tickfont": {"color": palette.text},
        },
        ygap=3,
        hoverongaps=False,
        text=words,
        customdata=[[name] * len(steps) for name in names],
        hovertemplate="<b>%{customdata}</b>, %{text}<extra></extra>",
    )


def _unknown(cells: Any, heat: PlotlyTrace, palette: Palette) -> list[PlotlyTrace]:
    """Return grey cells where there is no headroom to tell."""
    missing = np.isnan(cells)
    if not missing.any():
        return []
    same = {name: heat[name] for name in ("x", "y", "ygap", "text", "customdata")}
    grey = faded(palette.muted, 0.3)
    return [
        heatmap_trace(
            z=np.where(missing, 1.0, math.nan),
            colorscale=[[0, grey], [1, grey]],
            showscale=False,
            hoverongaps=False,
            hovertemplate="<b>%{customdata}</b>, %{text}:<br>all zero, or not known<extra></extra>",
            **same,
        )
    ]


def _range(least: Any) -> tuple[float, float]:
    """Return which headroom has the strongest colour and which the palest: at least some binades apart."""
    known = least[~np.isnan(least)]
    if not known.size:
        return 0.0, float(NARROWEST)
    low = max(0.0, float(known.min()))
    return low, max(float(known.max()), low + NARROWEST)


def _frame(
    layers: Sequence[str], bottleneck: str | None, last: int, palette: Palette
) -> list[dict[str, Any]]:
    if bottleneck not in layers:
        return []
    row = layers.index(bottleneck)
    line = {"color": palette.text, "width": 1.5}
    ends = {"x0": -0.5, "x1": last + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return [{"type": "rect", **ends, "line": line}]


def _words(value: float, step: str) -> str:
    if math.isnan(value):
        return step
    binades = f"{abs(value):.0f} binade{'' if abs(value) == 1 else 's'}"
    return f"{step}:<br>{binades} {'past overflow' if value < 0 else 'of headroom'}"


def _crosses(blame: pd.DataFrame, layers: Sequence[str], palette: Palette) -> list[PlotlyTrace]:
    place = {name: i for i, name in enumerate(layers)}
    here = blame[blame["layer"].isin(place)]
    here = here.iloc[:: max(1, math.ceil(len(here) / MAX_MARKS))]
    if here.empty:
        return []
    places = {"x": here["step"], "y": [place[name] for name in here["layer"]], "mode": "markers"}
    under = {"symbol": "x-thin", "size": 13, "line": {"color": palette.paper, "width": 5.5}}
    over = {"symbol": "x-thin", "size": 10, "line": {"color": palette.text, "width": 2}}
    return [
        scatter_trace(**places, marker=under, hoverinfo="skip"),  # so that a cross is seen on any colour
        scatter_trace(
            **places,
            marker=over,
            customdata=[
                f"step {row['step']:,} skipped: {row['found']} began in {literal(str(row['tensor']))}"
                + (", injected on purpose" if row["cause"] == "injected" else "")
                for row in here.to_dict("records")
            ],
            hovertemplate="%{customdata}<extra></extra>",
        ),
    ]


def _key(palette: Palette, left_out: int, *, framed: bool, gaps: bool) -> list[dict[str, Any]]:
    words = "<b>Headroom</b> · the stronger, the nearer to overflow · × an overflow began here"
    words += " · framed: limits S" if framed else ""
    words += " · grey: all zero, or not known" if gaps else ""
    more = f" · {left_out:,} layers with more headroom are left out" if left_out else ""
    return [{**panel_title(words + more, 1.0, palette), "yshift": 6}]
