"""Metrics over the steps and over S: what falls behind when, and which scales work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_scale
from lsviz.policies import parse_policy
from lsviz.runs.reproduction import RunResult
from lsviz.training.catalog import TASKS

WORKS: Final = 0.95
"""An S works where it reaches this share of what FP32 gains over fresh weights."""
MEASURABLE: Final = 0.02
"""A gap below this share of what FP32 gained so far is none."""
LEARNED: Final = 0.1
"""FP32 has begun to learn from this share of what it gains by the end."""
LATE: Final = 0.2
"""A gap that opens after this share of the steps comes late."""

METRIC_COLUMNS: Final = [
    "experiment",
    "variant",
    "policy",
    "precision",
    "step",
    "mean",
    "low",
    "high",
    "seeds",
]
CURVE_COLUMNS: Final = ["loss_scale", "metric", "flushed", "worst_flushed", "skipped"]


def metric_frame(results: Sequence[RunResult]) -> pd.DataFrame:
    """Return the metric over the steps, the seeds of a variant together.

    Returns:
        Columns experiment, variant, policy, precision, step, mean, low, high, seeds (how many have a finite
        metric there); in the order given.
    """
    rows = [
        (r.experiment, r.variant, r.policy, r.precision, step, metric)
        for r in results
        for step, metric in r.history
    ]
    frame = pd.DataFrame(rows, columns=[*METRIC_COLUMNS[:5], "metric"])
    # Variants as given, their steps in order, also where the first seed lacks some.
    variant = frame.groupby(METRIC_COLUMNS[:4], sort=False).ngroup()
    frame = frame.assign(variant_number=variant).sort_values(["variant_number", "step"], kind="stable")
    grouped = frame.groupby(METRIC_COLUMNS[:5], sort=False)["metric"]
    return grouped.agg(mean="mean", low="min", high="max", seeds="count").reset_index()[METRIC_COLUMNS]


def falls_behind(task: str, frame: pd.DataFrame, variant: str = "none") -> int | None:
    """Return the step from which a variant stays behind FP32 to the end; None where it does not.

    Behind: by more than FP32's spread at that step and than MEASURABLE of what it has gained by then, or
    without a finite metric in a seed that had one before.

    Args:
        task: Tells which way is better.
        frame: `metric_frame` of one experiment.
        variant: The unscaled run, or another.
    """
    spec = TASKS[task]
    sign = -1.0 if spec.lower_is_better else 1.0
    fp32, other = frame[frame["variant"] == "fp32"], frame[frame["variant"] == variant]
    both = fp32.merge(other, on="step", how="left", suffixes=("", "_other"))
    gap = sign * (both["mean"] - both["mean_other"])
    gained = sign * (both["mean"] - spec.untrained)
    lost = both["seeds_other"].fillna(0) < other["seeds"].max()
    behind = lost | ((gap > both["high"] - both["low"]) & (gap > MEASURABLE * gained))
    if fp32.empty or other.empty or not behind.iloc[-1]:
        return None
    # While FP32 has learned next to nothing itself, keeping up with it says nothing; nor does lying within
    # the spread of seeds that differ widely, for a run that has learned less than half as much.
    learning = gained >= LEARNED * gained.iloc[-1]
    kept_up = np.flatnonzero((learning & ~behind & (gained - gap > gained / 2)).to_numpy())
    first = int(kept_up[-1]) + 1 if len(kept_up) else 0
    return int(both["step"].iloc[first])


def metric_finding(task: str, frame: pd.DataFrame) -> str:
    """Return when the unscaled run of an experiment falls behind FP32, and whether FP16 weights do.

    Args:
        task: What was trained.
        frame: `metric_frame` of one experiment.
    """
    fp32 = frame[frame["variant"] == "fp32"]
    if fp32.empty or frame[frame["variant"] == "none"].empty:
        return "FP32 and FP16 without loss scaling are needed to compare."
    sentence = f"Without loss scaling FP16 {_how_far(task, frame, 'none')}."
    if falls_behind(task, frame, "fp16-weights") is not None:
        sentence += f" With FP16 weights it {_how_far(task, frame, 'fp16-weights')}."
    return sentence


def _how_far(task: str, frame: pd.DataFrame, variant: str) -> str:
    since = falls_behind(task, frame, variant)
    if since is None:
        return "keeps up with FP32 to the end"
    fp32, other = (frame[frame["variant"] == name] for name in ("fp32", variant))
    end, seeds = int(fp32["step"].iloc[-1]), int(other["seeds"].max())
    left = other[other["step"] == end]
    lost = seeds - int(left["seeds"].sum())
    if lost > 0:
        ends = "without a number" if seeds == 1 else f"without a number in {lost} of {seeds} seeds"
    else:
        gap = abs(float(fp32["mean"].iloc[-1]) - float(left["mean"].iloc[0]))
        name = TASKS[task].metric_name
        ends = f"{gap:.3g} dB behind" if name == "PSNR" else f"{gap:.3g} behind in {name}"
    if since <= int(fp32["step"].iloc[0]):
        return f"is behind from the start, and ends {ends}"
    when = "late" if since > LATE * end else "early"
    return f"falls behind {when}, by step {since:,} of {end + 1:,}, and ends {ends}"


def scale_curve_frame(results: Sequence[RunResult]) -> pd.DataFrame:
    """Return the U-curve: what every constant S came to, smallest first, seeds together.

    Returns:
        Columns loss_scale, metric (NaN where it was not finite), flushed and worst_flushed (shares at all
        layers and at the one that loses most), skipped (share of steps). Policies whose S changes are
        left out.
    """
    rows = []
    for result in results:
        policy = parse_policy(result.policy)
        if policy.name not in ("none", "constant") or result.precision == "fp32" or result.error:
            continue
        rows.append(
            {
                "loss_scale": policy.loss_scale,
                "metric": _number(result.metric),
                "flushed": _number(result.flushed),
                "worst_flushed": _number(result.worst_flushed),
                "skipped": result.skipped_steps / max(1, result.steps),
            }
        )
    frame = pd.DataFrame(rows, columns=CURVE_COLUMNS).astype("float64")
    return frame.groupby("loss_scale", as_index=False).mean().sort_values("loss_scale", ignore_index=True)


def working_scales(
    task: str, curve: pd.DataFrame, fp32: Sequence[float | None]
) -> tuple[float, float] | None:
    """Return the smallest and largest S of the longest run of scales that train about as FP32 does.

    Args:
        task: Tells which way is better, and what fresh weights come to.
        curve: `scale_curve_frame`.
        fp32: FP32's metric, a seed each. A scale works where it reaches WORKS of their mean gain.
    """
    known = [m for m in fp32 if m is not None]
    if not known or curve.empty:
        return None
    spec = TASKS[task]
    sign = -1.0 if spec.lower_is_better else 1.0
    base = sum(known) / len(known)
    gains = sign * (curve["metric"] - spec.untrained)
    good = (gains >= WORKS * sign * (base - spec.untrained)).tolist()
    best: tuple[int, int] | None = None
    start = None
    for i, works in enumerate([*good, False]):
        if works and start is None:
            start = i
        elif not works and start is not None:
            if best is None or i - start > best[1] - best[0]:
                best = (start, i)
            start = None
    if best is None:
        return None
    scales = curve["loss_scale"].tolist()
    return scales[best[0]], scales[best[1] - 1]


def scale_curve_finding(task: str, curve: pd.DataFrame, fp32: Sequence[float | None]) -> str:
    """Return which scales work, and what goes wrong on either side, in one sentence."""
    window = working_scales(task, curve, fp32)
    if window is None:
        return f"No S in this sweep trains {task} as FP32 does."
    low, high = window
    words = f"Any S from {format_scale(low)} to {format_scale(high)} trains about as FP32 does"
    sides = []
    if low > curve["loss_scale"].min():
        sides.append("a smaller one flushes")
    if high < curve["loss_scale"].max():
        sides.append("a larger one skips")
    return f"{words}: {', '.join(sides)}." if sides else f"{words}."


def _number(value: float | None) -> float:
    return math.nan if value is None else value
