"""Layer by step: how much of each layer's gradient was flushed, a panel a run, all over one axis of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.findings import format_percent
from lsviz.charts.drawing import figure_of, heatmap_trace, scatter_trace
from lsviz.charts.labels import row_axis, row_names
from lsviz.charts.theme import PALETTES, Mode, Palette, faded, literal, panel_title, shortened
from lsviz.formats import Region

_ROW_PX: Final = {1: 24, 2: 18, 3: 16, 4: 15}
_FEWEST_ROWS: Final = 3
_TITLE_PX: Final = 30
_BOTTOM_PX: Final = 46


@dataclass(frozen=True, slots=True)
class FlushedPanel:
    """One run's panel.

    Attributes:
        label: The run in a few words.
        finding: What its latest column shows.
        colour: The policy's colour.
        cells: `lsviz.analysis.flushmap.flushed_map_frame`.
        every: Number of steps from one recorded step to the next: the width of its last column.
    """

    label: str
    finding: str
    colour: str
    cells: pd.DataFrame
    every: int


def flushed_map_figure(panels: Sequence[FlushedPanel], total_steps: int, mode: Mode) -> go.Figure:
    """Draw a map a run; a cross marks a layer and step with Inf or NaN.

    Args:
        panels: One to four runs, from top to bottom.
        total_steps: Right end of the axis, fixed from the start so that a live map fills in.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    row = _ROW_PX[len(panels)]
    names = [list(dict.fromkeys(panel.cells["layer"])) for panel in panels]
    heights = [row * max(_FEWEST_ROWS, len(rows)) for rows in names]
    inner = sum(heights) + _TITLE_PX * (len(panels) - 1)
    traces: list[Any] = []
    axes: dict[str, Any] = {}
    titles: list[dict[str, Any]] = []
    top = float(inner)
    for index, (panel, rows, height) in enumerate(zip(panels, names, heights, strict=True)):
        axis = "" if index == 0 else str(index + 1)
        domain = [max(0.0, (top - height) / inner), min(1.0, top / inner)]
        axes[f"yaxis{axis}"] = {**row_axis(row_names(rows)), "domain": domain, "anchor": "x"}
        if rows:
            traces += _panel(panel, rows, f"y{axis}", palette)
        titles.append(_title(panel, domain[1], palette))
        top -= height + _TITLE_PX
    longest = max((len(name) for rows in names for name in row_names(rows)), default=4)
    last = "" if len(panels) == 1 else str(len(panels))
    return figure_of(
        traces,
        mode,
        height=inner + _TITLE_PX + _BOTTOM_PX,
        margin={"l": 24 + 7 * longest, "r": 16, "t": _TITLE_PX, "b": _BOTTOM_PX},
        hovermode="closest",
        annotations=titles,
        xaxis={
            "anchor": f"y{last}",
            "range": [-0.5, max(1, total_steps) - 0.5],
            "showgrid": False,
            "title": {"text": "step", "standoff": 6},
            "tickformat": ",d",
        },
        **axes,
    )


def _panel(panel: FlushedPanel, rows: list[str], yaxis: str, palette: Palette) -> list[Any]:
    cells = panel.cells
    steps = np.unique(cells["step"].to_numpy(np.int64))
    shares = cells.pivot(index="layer", columns="step", values="flushed").reindex(index=rows, columns=steps)
    spoilt = cells[cells["overflow"].astype(bool)]
    until = int(cells["until"].max()) + max(1, panel.every)
    colour = palette.regions[Region.FLUSHED]
    place = {name: at for at, name in enumerate(rows)}
    names = row_names(rows)
    heat = heatmap_trace(
        # A column reaches from its step to the next: these are edges, one more than there are columns.
        x=np.append(steps, until) - 0.5,
        y=np.arange(len(rows) + 1) - 0.5,
        z=shares.to_numpy(np.float64),
        zmin=0,
        zmax=1,
        colorscale=[[0, faded(palette.muted, 0.10)], [0.001, faded(colour, 0.14)], [1, colour]],
        showscale=False,
        ygap=2,
        text=[
            [_words(name, float(share)) for share in shares.loc[row].to_numpy()]
            for name, row in zip(names, rows, strict=True)
        ],
        hovertemplate="step %{x:,.0f} on: %{text}<extra></extra>",
        yaxis=yaxis,
    )
    crosses = scatter_trace(
        x=spoilt["step"],
        y=[place[name] for name in spoilt["layer"]],
        mode="markers",
        marker={
            "symbol": "x-thin",
            "size": 8,
            "line": {"color": palette.region_text[Region.OVERFLOW], "width": 2},
        },
        customdata=row_names(list(spoilt["layer"])),
        hovertemplate="step %{x:,}: Inf or NaN in %{customdata}<extra></extra>",
        yaxis=yaxis,
        cliponaxis=False,
    )
    return [heat, crosses] if len(spoilt) else [heat]


def _words(name: str, share: float) -> str:
    return f"{name}, {format_percent(share)} flushed" if np.isfinite(share) else f"{name}, not recorded"


def _title(panel: FlushedPanel, y: float, palette: Palette) -> dict[str, Any]:
    label = (
        f"<b>{literal(shortened(panel.label, 40))}</b>" if panel.label else "<b>Flushed, layer by layer</b>"
    )
    words = literal(shortened(panel.finding, 60))
    text = f"{label}  <span style='color:{palette.muted}'>{words}</span>"
    colour = panel.colour if panel.label else palette.text
    return {**panel_title(text, y, palette), "yshift": 4, "font": {"size": 13, "color": colour}}
