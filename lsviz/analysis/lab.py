"""The ways to update the weights side by side: one row a variant, their curves, and what they show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_percent
from lsviz.analysis.updates import (
    OFF_SIZE,
    RIGHT,
    SUMMARY,
    error_curve,
    ratio_counts,
    update_summary,
    verdict,
)
from lsviz.runs.config import RunConfig
from lsviz.runs.lab import Lab, VariantResult
from lsviz.runs.reader import Run
from lsviz.runs.updatecheck import LOWEST_RATIO
from lsviz.training.lab import LabVariant


def run_verdict(run: Run, updates: pd.DataFrame) -> tuple[dict[str, float | None], str]:
    """Return what a run's checked updates come to, in numbers and in one sentence.

    Args:
        run: The run.
        updates: Its `Run.updates`.
    """
    config = run.config
    summary = update_summary(updates, config.clip)
    skipped = int(run.steps()["skipped"].sum())
    half = not config.master_weights
    return summary, verdict(summary, steps=config.steps, skipped=skipped, half_weights=half)


def variant_result(variant: LabVariant, run: Run) -> VariantResult:
    """Return what a finished run says of its variant; a table that can't be read is its error."""
    updates = run.updates()
    summary, sentence = run_verdict(run, updates)
    counts, moved = ratio_counts(updates)
    return VariantResult(
        **_known(variant, run.config),
        run_id=run.run_id,
        skipped_steps=run.status.skipped_steps,
        metric_name=run.record.metric_name,
        metric=run.status.metric,
        **summary,
        curve=error_curve(updates),
        counts=counts.tolist(),
        moved=moved.tolist(),
        verdict=sentence,
        error="; ".join(run.problems) or None,
    )


def failed_variant(variant: LabVariant, config: RunConfig, error: str) -> VariantResult:
    """Return the result of a variant whose run did not finish."""
    return VariantResult(**_known(variant, config), error=error)


def lab_frame(document: Lab) -> pd.DataFrame:
    """Return one row a variant, in the order of the lab.

    Returns:
        Columns name, group, shows, verdict, right (whether its weight error is at most RIGHT), metric, steps,
        skipped_steps, those of SUMMARY (NaN where there is no number) and error (empty where there is none).
    """
    rows = [
        {
            **result.model_dump(include={"name", "group", "shows", "verdict", "steps", "skipped_steps"}),
            "right": is_right(result),
            "metric": _number(result.metric),
            **{name: _number(getattr(result, name)) for name in SUMMARY},
            "error": result.error or "",
        }
        for result in document.variants
    ]
    columns = ["name", "group", "shows", "verdict", "right", "metric", "steps", "skipped_steps", *SUMMARY]
    return pd.DataFrame(rows, columns=[*columns, "error"])


def is_right(result: VariantResult) -> bool:
    """Return whether a variant ends where float64 does."""
    return result.weight_error is not None and result.weight_error <= RIGHT


def error_curve_frame(document: Lab) -> pd.DataFrame:
    """Return every variant's weight error over the steps: columns group, name, step, weight_error."""
    rows = [
        (result.group, result.name, step, error)
        for result in document.variants
        for step, error in result.curve
        if error > 0
    ]
    return pd.DataFrame(rows, columns=["group", "name", "step", "weight_error"])


def update_ratio_frame(results: Sequence[VariantResult]) -> pd.DataFrame:
    """Return updates by their size beside the weight: a row a variant and bin.

    Returns:
        Columns name, exponent (floor(log2(|update|/|weight|))), share of the variant's updates that are in
        the bin, and moved, the share that are in the bin and changed their weight.
    """
    frames = []
    for result in results:
        counts = np.array(result.counts, float)
        if not counts.sum():
            continue
        frames.append(
            pd.DataFrame(
                {
                    "name": result.name,
                    "exponent": np.arange(len(counts)) + LOWEST_RATIO,
                    "share": counts / counts.sum(),
                    "moved": np.array(result.moved, float) / counts.sum(),
                }
            )
        )
    columns = ["name", "exponent", "share", "moved"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def lab_finding(document: Lab) -> str:
    """Return what all variants together show, in one sentence."""
    known = [r for r in document.variants if r.weight_error is not None]
    if not known:
        return "Nothing can be told of these updates yet."
    right = sum(is_right(result) for result in known)
    end = "ends" if right == 1 else "end"
    lead = f"{right} of {len(known)} ways to update the weights {end} where float64 does"
    wrong = sorted((r for r in known if not is_right(r)), key=lambda r: -(r.weight_error or 0.0))
    if not wrong:
        return f"{lead}."
    hardly = [r.name for r in wrong if (r.step_ratio or 1.0) < 1 / OFF_SIZE and r.group != "weights"]
    if hardly:
        return f"{lead}; {_listed(hardly)} hardly move{'s' if len(hardly) == 1 else ''} them."
    return f"{lead}; {wrong[0].name} is furthest off."


def ratio_finding(results: Sequence[VariantResult]) -> str:
    """Return what weights of fewer digits lose, in one sentence.

    Args:
        results: With master weights, and without.
    """
    known = [r for r in results if r.stalled is not None]
    if not known:
        return "Nothing can be told of updates beside their weights."
    words = [f"{format_percent(result.stalled or 0.0)} with {result.name}" for result in known]
    return f"Updates that leave their weight as it was: {', '.join(words)}."


def _known(variant: LabVariant, config: RunConfig) -> dict[str, Any]:
    return {
        "name": variant.name,
        "group": variant.group,
        "shows": variant.shows,
        "settings": dict(variant.settings),
        "steps": config.steps,
    }


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
