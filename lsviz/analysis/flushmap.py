"""Layer by step: which layer lost what, when. What fills in while a run lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_percent

MOST_STEPS: Final = 240
"""Recorded steps that are drawn; of more, some that follow one another share a column."""
MOST_LAYERS: Final = 32
WORTH_TELLING: Final = 0.01
"""From this flushed share on, a layer is named."""


def flushed_map_frame(
    flushed: pd.DataFrame, layers: Sequence[str], most_steps: int = MOST_STEPS
) -> pd.DataFrame:
    """Return the flushed share of every layer's output at every recorded step, a row a cell.

    Args:
        flushed: `lsviz.analysis.shares.flushed_frame`.
        layers: The rows of the picture; of more than MOST_LAYERS those that lose most stay, in order.
        most_steps: The columns of the picture; where more steps were recorded, several share one.

    Returns:
        Columns layer, step (the first of a column), until (its last), flushed (their mean, 0 to 1) and
        overflow (whether any had Inf or NaN that FP32 has not); lowest layer first, then by step.
    """
    chosen = flushed[(flushed["kind"] == "activation_grad") & flushed["tensor"].isin(list(layers))]
    if chosen.empty:
        return pd.DataFrame({"layer": [], "step": [], "until": [], "flushed": [], "overflow": []})
    rows = [name for name in layers if name in set(chosen["tensor"])]
    if len(rows) > MOST_LAYERS:
        worst = chosen.groupby("tensor")["flushed"].mean().nlargest(MOST_LAYERS).index
        rows = [name for name in rows if name in set(worst)]
        chosen = chosen[chosen["tensor"].isin(rows)]
    steps = np.unique(chosen["step"].to_numpy(np.int64))
    # Whole groups from the first step on, so that what is drawn stays where it is as more comes.
    together = -(-len(steps) // most_steps)
    together = 1 << (together - 1).bit_length()
    column = np.searchsorted(steps, chosen["step"].to_numpy(np.int64)) // together
    grouped = (
        chosen.assign(column=column, overflow=chosen["overflow"] > 0)
        .groupby(["tensor", "column"], sort=False)
        .agg(
            step=("step", "min"),
            until=("step", "max"),
            flushed=("flushed", "mean"),
            overflow=("overflow", "any"),
        )
        .reset_index()
    )
    place = {name: at for at, name in enumerate(rows)}
    grouped = grouped.assign(place=grouped["tensor"].map(place)).sort_values(["place", "step"])
    cells = grouped.rename(columns={"tensor": "layer"})[["layer", "step", "until", "flushed", "overflow"]]
    return cells.reset_index(drop=True)


def flushed_map_finding(cells: pd.DataFrame) -> str:
    """Return what the latest column shows, in a few words.

    Args:
        cells: `flushed_map_frame`.
    """
    if cells.empty:
        return "no FP32 reference recorded"
    last = cells[cells["step"] == cells["step"].max()]
    worst = last.loc[last["flushed"].idxmax()]
    when = f"at step {int(last['until'].max()):,}"
    spoilt = int(last["overflow"].sum())
    if spoilt:
        return f"Inf or NaN in {spoilt} of {len(last)} layers {when}"
    if worst["flushed"] < WORTH_TELLING:
        return f"no layer loses 1 % {when}"
    return f"{worst['layer']} loses most: {format_percent(float(worst['flushed']))} flushed {when}"
