"""Runs as rows: what each was and came to, and what differs between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lsviz.analysis.shares import flushed_frame, last_flushed
from lsviz.policies import format_number
from lsviz.runs.config import RunConfig
from lsviz.runs.schema import RunRecord, RunStatus

RESULTS = ("final_loss", "metric", "skipped_steps", "final_loss_scale")


def summarize(
    record: RunRecord, status: RunStatus, steps: pd.DataFrame, exponents: pd.DataFrame
) -> dict[str, Any]:
    """Return what a run came to, as the strict JSON of ``lsviz run --json`` (without ``path``).

    Numbers that are not finite become None.
    """
    config = record.config
    results = _results(steps)
    return {
        "run_id": record.run_id,
        "task": config.task,
        "policy": config.policy,
        "update": update_label(config) or config.update,
        "precision": config.precision,
        "device": record.device or config.device,
        "state": status.state,
        "steps": len(steps),
        "final_loss": results.pop("final_loss"),
        "metric_name": record.metric_name,
        **results,
        "flushed": last_flushed(flushed_frame(exponents)),
        "ms_recording_per_step": _number(steps["ms_recording"].mean()) if len(steps) else None,
    }


def list_frame(runs: Sequence[tuple[RunRecord, RunStatus]]) -> pd.DataFrame:
    """Return one row a run from its two JSON files alone, in the given order.

    Returns:
        Columns run_id, created, task, policy, update (what is unusual in it), precision, seed, state,
        step, steps, loss, metric_name, metric, skipped_steps, loss_scale, error.
    """
    rows = [
        {
            "run_id": record.run_id,
            "created": record.created,
            "task": record.config.task,
            "policy": record.config.policy,
            "update": update_label(record.config),
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


def run_label(config: RunConfig) -> str:
    """Return a run in a few words: precision where that is the point, policy, what its update has unusual."""
    label = "no scaling" if config.policy == "none" else config.policy
    if config.precision == "fp32":
        label = "FP32" if config.policy == "none" else f"FP32, {config.policy}"
    elif config.precision != "fp16":
        label = f"{config.precision.upper()}, {label}"
    unusual = update_label(config)
    return f"{label}, {unusual}" if unusual else label


def run_labels(records: Sequence[RunRecord]) -> list[str]:
    """Return labels that differ: with the task, the seed or the id's end only where they are needed.

    Faults that all of several runs were given are left out.
    """
    configs = [record.config for record in records]
    if len(configs) > 1 and len({config.inject for config in configs}) == 1:
        configs = [config.model_copy(update={"inject": ""}) for config in configs]
    labels = [run_label(config) for config in configs]
    extras = (
        [record.config.task for record in records],
        [f"seed {record.config.seed}" for record in records],
        [f"{record.config.steps:,} steps" for record in records],
        [record.run_id[-4:] for record in records],
    )
    for extra in extras:
        if len(set(extra)) > 1 and len(set(labels)) < len(labels):
            labels = [
                f"{label}, {more}" if more else label for label, more in zip(labels, extra, strict=True)
            ]
    return labels


def update_label(config: RunConfig) -> str:
    """Return what is unusual in a run's loss, start, weight update and faults; empty: nothing."""
    words: list[str] = []
    if config.loss_weight != 1:
        words.append(f"loss x {_factor(config.loss_weight)}")
    if config.init_gain != 1:
        words.append(f"gain {_factor(config.init_gain)}")
    if config.optimizer != "task":
        words.append(config.optimizer)
    if config.lr is not None:
        words.append(f"lr {config.lr:g}")
    if config.update != "unscale":
        words.append("no unscaling" if config.update == "none" else config.update)
    if config.clip is not None:
        words.append(f"clip {config.clip:g} {config.clip_order}")
    if config.l2:
        words.append(f"L2 {config.l2:g} {config.l2_order}")
    if config.on_overflow != "skip":
        words.append(config.on_overflow)
    if not config.master_weights:
        words.append(f"{config.precision.upper()} weights")
    faults = config.injections
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        words.append(f"{faults[0]}{more}")
    return ", ".join(words)


def _factor(value: float) -> str:
    """Return a factor as the command line takes it: 2^-8 rather than 0.00390625."""
    mantissa, exponent = math.frexp(value)
    return f"2^{exponent - 1}" if mantissa == 0.5 and exponent < -2 else format_number(value)


def settings_and_results(record: RunRecord, steps: pd.DataFrame, status: RunStatus) -> dict[str, Any]:
    """Return one run's settings and results as one flat row for `difference_frame`."""
    config = record.config.model_dump()
    return {
        **config,
        "device": record.device or config["device"],
        "torch": record.versions.get("torch"),
        "state": status.state,
        **_results(steps),
    }


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


def _results(steps: pd.DataFrame) -> dict[str, Any]:
    """What the steps table says a run came to; None where there is no number."""
    metrics, times = steps["metric"].dropna(), steps["ms"].dropna()
    return {
        "final_loss": _number(steps["loss"].iloc[-1]) if len(steps) else None,
        "metric": _number(metrics.iloc[-1]) if len(metrics) else None,
        "skipped_steps": int(steps["skipped"].sum()),
        "final_loss_scale": _number(steps["loss_scale"].iloc[-1]) if len(steps) else None,
        "ms_per_step": _number(times.median()) if len(times) else None,
    }


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
