"""What a run's checked updates say: how far its weights end from float64's, and which updates do nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_percent, format_powers
from lsviz.formats import FP16
from lsviz.runs.updatecheck import LOWEST_RATIO, RATIO_BINS

RIGHT: Final = 1e-3
"""Up to this weight error an update is right: FP32's rounding is below it, even where weights hardly move."""
SLIGHT: Final = 0.01
OFF_SIZE: Final = 1.5
"""Steps so many times too large or too small are told as such."""
STALLED: Final = 0.1
"""From this share of updates that do nothing on, they are told."""
CURVE_POINTS: Final = 100

HALF_DIGIT: Final = round(math.log2(FP16.epsilon)) - 1
"""-11: an update smaller than 2^-12 of a weight leaves an FP16 weight as it is, one above 2^-11 changes it;
between the two it depends on the weight's own digits."""

SUMMARY: Final = (
    "weight_error",
    "norm_ratio",
    "strictness",
    "clipped",
    "step_ratio",
    "stalled",
    "below",
)
"""The numbers of a run, as `VariantResult` and ``lsviz updates --json`` name them."""


def update_summary(updates: pd.DataFrame, clip: float | None = None) -> dict[str, float | None]:
    """Return what a run's checked updates come to; None where there is no finite number.

    Args:
        updates: `Run.updates`.
        clip: The threshold asked for; None where clipping is off.
    """
    if updates.empty:
        return dict.fromkeys(SUMMARY)
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = updates["norm_seen"].to_numpy() / updates["norm"].to_numpy()
        steps = updates["step_size"].to_numpy() / updates["ideal_step_size"].to_numpy()
        threshold = updates["clip_threshold"].to_numpy(dtype=float) / (clip or math.nan)
    counts, moved = ratio_counts(updates)
    total = counts.sum()
    return {
        "weight_error": _finite(updates["weight_error"].iloc[-1]),
        "norm_ratio": _median(seen),
        "strictness": None if clip is None else _median(seen / threshold),
        "clipped": None if clip is None else float((updates["clip_factor"] < 1).mean()),
        "step_ratio": _median(steps),
        "stalled": 1 - float(moved.sum() / total) if total else None,
        "below": float(counts[: HALF_DIGIT - LOWEST_RATIO].sum() / total) if total else None,
    }


def ratio_counts(updates: pd.DataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a run's updates by bin, and those that changed their weight, each of shape (RATIO_BINS,)."""
    totals = [np.zeros(RATIO_BINS, np.int64), np.zeros(RATIO_BINS, np.int64)]
    for total, name in zip(totals, ("counts", "moved"), strict=True):
        for row in updates[name]:
            total += row
    return totals[0], totals[1]


def error_curve(updates: pd.DataFrame) -> list[tuple[int, float]]:
    """Return (step, weight_error) of at most CURVE_POINTS updates, the first and the last among them."""
    known = updates[updates["weight_error"].between(0, math.inf, inclusive="neither")]
    if known.empty:
        return []
    shown = known.iloc[np.unique(np.linspace(0, len(known) - 1, CURVE_POINTS).round().astype(int))]
    return [(int(s), float(e)) for s, e in zip(shown["step"], shown["weight_error"], strict=True)]


def verdict(
    summary: Mapping[str, float | None], *, steps: int, skipped: int, half_weights: bool = False
) -> str:
    """Return in one sentence what a run's numbers say of its update.

    Args:
        summary: `update_summary`.
        steps: How many steps the run has.
        skipped: How many of them were skipped.
        half_weights: Whether its weights are rounded after every update: then those that stay as they were
            are told. Others may stay because the update itself is wrong.
    """
    error, ratio, stalled = summary["weight_error"], summary["step_ratio"], summary["stalled"]
    if error is None or ratio is None:
        return "No update was applied: there is nothing to compare."
    if error <= RIGHT:
        return "Right: as float64, but for rounding."
    share = f"{format_percent(error)} of" if error < 1 else f"{error:,.3g} times"
    off = f"its weights end off by {share} the way that they should go"
    if half_weights and stalled is not None and stalled >= STALLED and ratio > STALLED:
        return f"{format_percent(stalled)} of its updates do nothing: {off}."
    if ratio > OFF_SIZE or ratio < 1 / OFF_SIZE:
        size = f"{_times(ratio)} too large" if ratio > 1 else f"{_times(1 / ratio)} too small"
        if (strictness := summary["strictness"] or 1.0) > OFF_SIZE:
            return f"Clipping is {_times(strictness)} too strict: its steps are {size}."
        if skipped > steps / 2:
            return f"Its steps are {size}: after that {skipped:,} of {steps:,} steps hold Inf or NaN."
        return f"Its steps are {size}."
    return f"{'Nearly right' if error <= SLIGHT else 'Wrong'}: {off}."


def format_error(error: float) -> str:
    """Return a weight error as people read it: 29 %, x 1,024, 2 x 10⁻⁷."""
    if math.isnan(error):
        return "–"
    if error >= 1:
        return f"x {error:,.0f}" if error >= 10 else f"{100 * error:.0f} %"
    if error >= 1e-3 or error == 0:
        return format_percent(error)
    digit, power = f"{error:.0e}".split("e")
    return format_powers(f"{digit} x 10^{int(power)}")


def format_ratio(value: float) -> str:
    """Return a ratio as people read it: x 1, x 1,024, ÷ 450."""
    if math.isnan(value):
        return "–"
    if 0 < value < 0.1:
        return f"÷ {1 / value:,.0f}"
    return f"x {value:,.0f}" if value >= 100 else f"x {value:.3g}"


def _times(factor: float) -> str:
    """Return a factor as people read it: 1,024 times, 2.5 times."""
    return f"{factor:,.0f} times" if factor >= 100 else f"{factor:.2g} times"


def _median(values: np.ndarray[Any, Any]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
