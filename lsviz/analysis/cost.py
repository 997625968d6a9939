"""What recording costs a run, from its steps table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from lsviz.analysis.findings import format_percent
from lsviz.runs.config import RunConfig


@dataclass(frozen=True, slots=True)
class RecordingCost:
    """Recording in time.

    Attributes:
        ms_per_step: Median milliseconds of a step's training where no exponents are recorded.
        ms_per_recording: Milliseconds that a recorded step takes longer: medians of both kinds compared, and
            no less than the median of what recording measured of itself.
        share: Of the run's whole time that went into it.
    """

    ms_per_step: float
    ms_per_recording: float
    share: float


def recording_cost(steps: pd.DataFrame, config: RunConfig) -> RecordingCost | None:
    """Return what recording and reference cost; None where nothing was recorded, or nothing yet.

    Args:
        steps: The steps table.
        config: Tells which steps are recorded.
    """
    if steps.empty:
        return None
    due = pd.Series(False, index=steps.index)
    for every in (config.record_every, config.reference_every):
        if every:
            due |= steps["step"] % every == 0
    if not due.any():
        return None
    whole = steps["ms"] + steps["ms_recording"]
    bare = float(steps.loc[~due if (~due).any() else due, "ms"].median())
    longer = float(steps.loc[due, "ms_recording"].median())
    if (~due).any():  # what recording does to the step itself shows there, unless it drowns in the noise
        longer = max(longer, float(whole[due].median()) - bare)
    total = float(whole.sum())
    # Between two recorded steps the largest magnitudes are measured all the same.
    taken = longer * int(due.sum()) + float(steps.loc[~due, "ms_recording"].sum())
    share = min(1.0, taken / total) if total > 0 else 0.0
    return None if math.isnan(longer) else RecordingCost(bare, longer, share)


def cost_finding(steps: pd.DataFrame, config: RunConfig) -> str:
    """Return what recording costs in one sentence; empty where nothing was recorded."""
    cost = recording_cost(steps, config)
    if cost is None:
        return ""
    return (
        f"Recording takes {cost.ms_per_recording:.3g} ms at each recorded step (a step takes "
        f"{cost.ms_per_step:.3g}): {format_percent(cost.share)} of the time."
    )
