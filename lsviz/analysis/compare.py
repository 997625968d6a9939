"""Runs as rows: what each was and came to, and what differs between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lsviz.analysis.shares import flushed_frame, last_flushed
from lsviz.runs.schema import RunRecord, RunStatus

RESULTS = ("final_loss", "metric", "skipped_steps", "final_loss_scale")


def summarize(
    record: RunRecord, status: RunStatus, steps: pd.DataFrame, exponents: pd.DataFrame
) -> dict[str, Any]:
    """Return what a run came to, as the strict JSON of ``lsviz run --json`` (without ``path``).

    Numbers that are not finite become None.
    """
    config = record.config
    metrics = steps["metric"].dropna() if len(steps) else pd.Series(dtype=float)
    return {
        "run_id": record.run_id,
        "task": config.task,
        "policy": config.policy,
        "precision": config.precision,
        "device": record.device or config.device,
        "state": status.state,
        "steps": len(steps),
        "final_loss": _number(steps["loss"].iloc[-1]) if len(steps) else None,
        "metric_name": record.metric_name,
        "metric": _number(metrics.iloc[-1]) if len(metrics) else None,
        "skipped_steps": int(steps["skipped"].sum()) if len(steps) else 0,
        "final_loss_scale": _number(steps["loss_scale"].iloc[-1]) if len(steps) else None,
        "flushed": last_flushed(flushed_frame(exponents)),
        "ms_per_step": _number(steps["ms"].median()) if len(steps) else None,
        "ms_recording_per_step": _number(steps["ms_recording"].mean()) if len(steps) else None,
    }


def list_frame(runs: Sequence[tuple[RunRecord, RunStatus]]) -> pd.DataFrame:
    """Return one row a run from its two JSON files alone, in the given order.

    Returns:
        Columns run_id, created, task, policy, precision, seed, state, step, steps, loss, metric_name,
        metric, skipped_steps, loss_scale, error.
    """
    rows = [
        {
            "run_id": record.run_id,
            "created": record.created,
            "task": record.config.task,
            "policy": record.config.policy,
            "precision": record.config.precision,
            "seed": record.config.seed,
            "state": status.state,
            "step": status.step,
            "steps": status.steps,
            "loss": status.loss,
            "metric_name": record.metric_name,
            "metric": status.metric,
            "skipped_steps": status.skipped_steps,
            "loss_scale": status.loss_scale,
            "error": status.error,
        }
        for record, status in runs
    ]
    return pd.DataFrame(rows)


def difference_frame(labels: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return what differs between runs: one row a setting or result, one column a run.

    Settings that all runs share are left out; results are always shown.

    Args:
        labels: Column names, one a run.
        summaries: Flat settings and results of each run, in the same order.
    """
    keys = list(dict.fromkeys(key for summary in summaries for key in summary))
    rows = {}
    for key in keys:
        values = [summary.get(key) for summary in summaries]
        if key in RESULTS or any(value != values[0] for value in values):
            rows[key] = values
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(labels))


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
