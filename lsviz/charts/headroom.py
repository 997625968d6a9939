"""How far each layer's largest gradient is below overflow, step by step, and who overflowed first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.theme import PALETTES, Mode, Palette, base_layout, faded, literal, panel_title
from lsviz.formats import Region

ROW_HEIGHT: Final = 28
MOST_ROWS: Final = 40
MOST_COLUMNS: Final = 240
MAX_MARKS: Final = 1000
"""Skipped steps that are marked; of more, some."""
SAFE: Final = 12
"""Binades from which on headroom is no concern: FP16's normal range has 30."""


def headroom_figure(headroom: pd.DataFrame, blame: pd.DataFrame, mode: Mode) -> go.Figure:
    """Draw each layer's headroom over the steps, stronger nearer to overflow; a cross where it began.

    Args:
        headroom: `lsviz.analysis.blame.headroom_frame`.
        blame: `lsviz.analysis.blame.blame_frame`.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    layers = [str(name) for name in headroom["layer"].cat.categories][::-1]  # the lowest at the bottom
    used = set(headroom["layer"].astype(str))
    layers = [name for name in layers if name in used]
    near = headroom.groupby(headroom["layer"].astype(str))["headroom"].min().nsmallest(MOST_ROWS)
    left_out = len(layers) - len(near)
    layers = [name for name in layers if name in near.index]
    last = int(headroom["step"].max()) if len(headroom) else 0
    width = max(1, math.ceil((last + 1) / MOST_COLUMNS))
    binned = headroom.assign(column=headroom["step"] // width)
    least = binned.pivot_table(
        index="layer", columns="column", values="headroom", aggfunc="min", observed=True
    ).reindex(layers)
    names = row_names(layers)
    columns = least.columns.to_numpy(np.int64)
    figure = go.Figure(
        data=[_heat(least.to_numpy(), columns * width, width, names, palette)], layout=base_layout(mode)
    )
    figure.add_traces(_crosses(blame, layers, palette))
    figure.update_layout(
        height=ROW_HEIGHT * len(names) + 118,
        margin={"l": 24 + 7 * max(map(len, names), default=4), "r": 16, "t": 50, "b": 52},
        hovermode="closest",
        annotations=_key(palette, left_out),
        xaxis={
            "range": [-0.5, last + 0.5],
            "tickformat": ",d",
            "title": {"text": "step", "standoff": 6},
            "showgrid": False,
        },
        yaxis=row_axis(names),
    )
    return figure


def _heat(least: Any, first: Any, width: int, names: Sequence[str], palette: Palette) -> go.Heatmap:
    colour = palette.regions[Region.OVERFLOW]
    steps = [f"step {s:,}" if width == 1 else f"steps {s:,} to {s + width - 1:,}" for s in first.tolist()]
    words = [[_words(value, step) for value, step in zip(row, steps, strict=True)] for row in least]
    return go.Heatmap(
        x=first + (width - 1) / 2,
        y=list(range(len(names))),
        z=least,
        zmin=0,
        zmax=SAFE,
        colorscale=[[0, colour], [0.34, faded(colour, 0.45)], [1, faded(colour, 0.05)]],
        showscale=False,
        ygap=3,
        hoverongaps=False,
        text=words,
        customdata=[[name] * len(steps) for name in names],
        hovertemplate="<b>%{customdata}</b>, %{text}<extra></extra>",
    )


def _words(value: float, step: str) -> str:
    if math.isnan(value):
        return step
    binades = f"{abs(value):.0f} binade{'' if abs(value) == 1 else 's'}"
    return f"{step}:<br>{binades} {'past overflow' if value < 0 else 'of headroom'}"


def _crosses(blame: pd.DataFrame, layers: Sequence[str], palette: Palette) -> list[go.Scatter]:
    place = {name: i for i, name in enumerate(layers)}
    here = blame[blame["layer"].isin(place)]
    here = here.iloc[:: max(1, math.ceil(len(here) / MAX_MARKS))]
    if here.empty:
        return []
    return [
        go.Scatter(
            x=here["step"],
            y=[place[name] for name in here["layer"]],
            mode="markers",
            marker={"symbol": "x-thin", "size": 10, "line": {"color": palette.paper, "width": 2.5}},
            customdata=[
                f"step {row['step']:,} skipped: {row['found']} began in {literal(str(row['tensor']))}"
                for row in here.to_dict("records")
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    ]


def _key(palette: Palette, left_out: int) -> list[dict[str, Any]]:
    words = "<b>Headroom</b> · the stronger, the nearer to overflow · × an overflow began here"
    more = f" · {left_out:,} layers with more headroom are left out" if left_out else ""
    return [{**panel_title(words + more, 1.0, palette), "yshift": 6}]
