"""What one S for all layers costs: each layer at the S that the bottleneck allows, and at its own best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.scalemap import layer_map_frame

WORTH: Final = 0.01
"""Share of a layer's values that a scale of its own has to save to be worth it."""


def one_scale_frame(
    scale_map: pd.DataFrame,
    layers: Sequence[str],
    most: float | None = None,
    ceilings: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return what one S for all costs every layer.

    Args:
        scale_map: `lsviz.analysis.scalemap.scale_map_frame`.
        layers: As `lsviz.analysis.shares.layer_names` returns them.
        most: The largest S that every step allows, where it is known (`Recommendation.most`).
        ceilings: Layer -> the largest S that its own gradients allow over all steps, where that is known.

    Returns:
        Columns layer, scale (largest power of two at which no tensor of the run overflows), flushed (there),
        own_scale (least power of two at which the layer loses least without overflow of its own),
        own_flushed (there) and saved, their difference; shares of the values that are not zero, the larger of
        the layer's output's and weights' gradients. In the order of layers; empty where some tensor overflows
        at every S.
    """
    columns = ["layer", "scale", "flushed", "own_scale", "own_flushed", "saved"]
    worst = scale_map.groupby("scale")["overflow"].max()
    fits = worst.index[(worst == 0) & (worst.index <= (math.inf if most is None else most))]
    if not len(fits):
        return pd.DataFrame({name: [] for name in columns})
    allowed = float(fits.max())
    rows = []
    by_layer = dict(list(layer_map_frame(scale_map, layers).groupby("layer")))
    for name in layers:
        if name not in by_layer:
            continue
        mine = by_layer[name].sort_values("scale")
        top = (ceilings or {}).get(name, math.inf)
        safe = mine[(mine["overflow"] == 0) & (mine["scale"] <= top)]
        best = int(safe["flushed"].to_numpy().argmin())  # of equals the first, which has the least S
        here = float(mine.loc[mine["scale"] == allowed, "flushed"].iloc[0])
        own = float(safe["flushed"].iloc[best])
        rows.append((name, allowed, here, float(safe["scale"].iloc[best]), own, here - own))
    return pd.DataFrame(rows, columns=columns)


def one_scale_finding(costs: pd.DataFrame, limit: str | None) -> str:
    """Return in one or two sentences whether a scale per layer would help.

    Args:
        costs: `one_scale_frame`.
        limit: The layer or tensor that overflows first as S grows, if any does.
    """
    if costs.empty:
        return "Some gradient overflows at every S, so no S can be shared."
    scale = format_scale(float(costs["scale"].iloc[0]))
    allowed = f"S = {scale}, which {limit} allows," if limit else f"S = {scale}"
    worst = costs.to_dict("records")[int(costs["saved"].to_numpy().argmax())]
    if worst["saved"] <= WORTH:
        return (
            f"One S serves all layers: at {allowed} none loses over {format_percent(WORTH)} of its values "
            "more than at a scale of its own."
        )
    return (
        f"A scale per layer would help: at {allowed} {worst['layer']} loses "
        f"{format_percent(float(worst['flushed']))} of its values, at a scale of its own "
        f"({format_scale(float(worst['own_scale']))}) {format_percent(float(worst['own_flushed']))}."
    )
