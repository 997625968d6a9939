"""What to mind before one follows what a run recommends."""

from __future__ import annotations

from typing import Final

import pandas as pd

from lsviz.analysis.findings import HEAVY, format_percent, format_scale
from lsviz.analysis.recommend import Recommendation
from lsviz.analysis.shares import flushed_frame, layer_names

FEW_STEPS: Final = 100
FEW_RECORDED: Final = 10
"""Of fewer steps, or recorded ones, a recommendation comes with a word of caution."""


def find_cautions(
    exponents: pd.DataFrame, found: Recommendation, *, recorded: int, steps: int, skipped: int = 0
) -> list[str]:
    """Return what to mind before one follows a run's recommendation, a sentence each.

    Args:
        exponents: The run's exponents table, with COUNTED_COLUMNS.
        found: What it recommends.
        recorded: Of how many recorded steps.
        steps: How many it has.
        skipped: How many of them were skipped.
    """
    told = []
    if steps < FEW_STEPS or recorded < FEW_RECORDED:
        behind = f"{count_steps(recorded, 'recorded ')} of the first {steps:,}"
        told.append(
            f"Only {behind} stand{'s' if recorded == 1 else ''} behind this: gradients usually shrink later, "
            "so that a longer run may need a larger S."
        )
    again = "with gradscaler"
    if found.best is not None:
        again = {"fp16": f"with S = {format_scale(found.best)}", "bf16": "in BF16"}.get(found.format, again)
    advice = (
        "it may not have learned, and what it would need once it learns may differ: run it once more "
        f"{again}, and ask that run again."
    )
    if skipped > HEAVY * steps:
        told.append(f"This run skipped {skipped:,} of {count_steps(steps)}, so {advice}")
    layers = layer_names(exponents)
    outputs = (exponents["kind"] == "activation_grad") & exponents["tensor"].isin(layers)
    flushed = flushed_frame(exponents[outputs])
    lost = flushed.groupby("tensor", observed=True, sort=False)["flushed"].mean()
    if len(lost) and lost.max() > HEAVY:
        told.append(
            f"This run lost {format_percent(float(lost.max()))} of {lost.idxmax()}'s gradient, so {advice}"
        )
    return told


def count_steps(number: int, kind: str = "", *, lead: str = "") -> str:
    """Return a number of steps in words: 1 recorded step, all 1,000 steps."""
    return f"1 {kind}step" if number == 1 else f"{lead}{number:,} {kind}steps"
