"""Runs of a sweep as results: one row a run, one row a policy with mean and spread over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Final

import pandas as pd

from lsviz.analysis.compare import run_label
from lsviz.analysis.shares import flushed_frame, layer_names, total_flushed_frame
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.reproduction import RunResult

SHARE_COLUMNS: Final = ("step", "tensor", "kind", "reference", "loss_scale", "numel", "zero", "inf", "nan")
"""The columns of the exponents table that flushed shares need."""

SPREAD_COLUMNS: Final = [
    "experiment",
    "variant",
    "policy",
    "precision",
    "metric_name",
    "seeds",
    "unfinished",
    "not_finite",
    "mean",
    "low",
    "high",
    "spread",
    "skipped_steps",
    "skipped_share",
    "flushed",
    "worst_layer",
    "worst_flushed",
]


def run_result(run: Run, experiment: str = "", variant: str = "") -> RunResult:
    """Return what a finished run came to; a table that can't be read is its error.

    Args:
        run: The run.
        experiment: Which finding it belongs to; the task where none is given.
        variant: What sets it apart within that; its label where none is given.
    """
    config = run.config
    steps = run.steps()
    measured = steps.loc[steps["metric"].notna(), ["step", "metric"]]
    flushed = flushed_frame(run.exponents(columns=SHARE_COLUMNS))
    layers = layer_names(run.exponents(columns=["tensor", "kind"]))
    total = total_flushed_frame(flushed, layers)
    by_layer = flushed[flushed["tensor"].isin(layers) & (flushed["kind"] == "activation_grad")]
    means = by_layer.groupby("tensor", sort=False)["flushed"].mean()
    return RunResult(
        **_known(config, experiment, variant),
        run_id=run.run_id,
        metric_name=run.record.metric_name,
        metric=run.status.metric,  # the table does not tell NaN from not measured
        final_loss=_finite(steps["loss"].iloc[-1]) if len(steps) else None,
        final_loss_scale=_finite(steps["loss_scale"].iloc[-1]) if len(steps) else None,
        skipped_steps=int(steps["skipped"].sum()),
        flushed=_finite(total["flushed"].mean()) if len(total) else None,
        layers={str(layer): float(share) for layer, share in means.items() if math.isfinite(share)},
        history=[
            (int(step), float(metric))
            for step, metric in zip(measured["step"], measured["metric"], strict=True)
            if math.isfinite(metric)
        ],
        error="; ".join(run.problems) or None,
    )


def failed_result(config: RunConfig, error: str, experiment: str = "", variant: str = "") -> RunResult:
    """Return the row of a run that did not finish."""
    return RunResult(**_known(config, experiment, variant), run_id="", error=error)


def spread_frame(results: Sequence[RunResult]) -> pd.DataFrame:
    """Return one row an experiment and variant, its seeds together, in the order given.

    Returns:
        Columns experiment, variant, policy, precision, metric_name, seeds (number of runs), unfinished (how
        many of them have no result), not_finite (how many ended with a metric that is no number), mean,
        low, high and spread (high - low) of the metric (NaN with fewer than two seeds), skipped_steps
        (mean number), skipped_share (of all steps), flushed (mean), worst_layer (whose share, averaged
        over the seeds, is highest) and worst_flushed (that share). NaN or None where nothing was measured.
    """
    rows: dict[tuple[str, str], list[RunResult]] = {}
    for result in results:
        rows.setdefault((result.experiment, result.variant), []).append(result)
    return pd.DataFrame([_spread(group) for group in rows.values()], columns=SPREAD_COLUMNS)


def _spread(group: Sequence[RunResult]) -> dict[str, Any]:
    first = group[0]
    whole = [r for r in group if r.error is None]
    metric = pd.Series([r.metric for r in whole], dtype="float64")
    flushed = pd.Series([r.flushed for r in whole], dtype="float64")
    steps = sum(r.steps for r in whole)
    shares: dict[str, list[float]] = {}
    for name, share in (pair for r in whole for pair in r.layers.items()):
        shares.setdefault(name, []).append(share)
    layers = {name: fmean(of_seeds) for name, of_seeds in shares.items()}
    worst = max(layers, key=lambda name: layers[name], default=None)
    return {
        "experiment": first.experiment,
        "variant": first.variant,
        "policy": first.policy,
        "precision": first.precision,
        "metric_name": next((r.metric_name for r in group if r.metric_name), None),
        "seeds": len(group),
        "unfinished": len(group) - len(whole),
        "not_finite": sum(r.metric is None for r in whole),
        "mean": metric.mean(),
        "low": metric.min(),
        "high": metric.max(),
        "spread": metric.max() - metric.min() if metric.count() > 1 else math.nan,
        "skipped_steps": sum(r.skipped_steps for r in whole) / len(whole) if whole else math.nan,
        "skipped_share": sum(r.skipped_steps for r in whole) / steps if steps else math.nan,
        "flushed": flushed.mean(),
        "worst_layer": worst,
        "worst_flushed": math.nan if worst is None else layers[worst],
    }


def _known(config: RunConfig, experiment: str, variant: str) -> dict[str, Any]:
    return {
        "experiment": experiment or config.task,
        "variant": variant or run_label(config),
        "task": config.task,
        "policy": config.policy,
        "precision": config.precision,
        "seed": config.seed,
        "steps": config.steps,
    }


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
