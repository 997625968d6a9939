"""What skipped steps cost: batches thrown away, and schedules that run ahead of the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lsviz.analysis.findings import format_percent
from lsviz.runs.reader import Run
from lsviz.runs.schema import OWN_LOOP
from lsviz.training.catalog import TASKS

SKIPS_COLUMNS = [
    "run_id",
    "policy",
    "steps",
    "skipped",
    "share",
    "retried",
    "applied",
    "batch_size",
    "samples",
    "samples_lost",
    "optimizer_steps",
    "scheduler_steps",
    "skipped_at_the_start",
    "longest_streak",
]


@dataclass(frozen=True)
class SkippingRun:
    """What is needed of a run.

    Attributes:
        run_id: Its id.
        policy: Its policy's string form.
        steps: `Run.steps`.
        batch_size: Examples a step; None where nothing tells.
        retries: Whether a batch with Inf or NaN was tried again; a loop that does not may apply it instead.
    """

    run_id: str
    policy: str
    steps: pd.DataFrame
    batch_size: int | None
    retries: bool = False


def load_skipping_run(run: Run) -> SkippingRun:
    """Return what is needed of a run's folder; the batch size is known of lsviz's own tasks.

    Raises:
        RunError: Its JSON files can't be read.
    """
    record = run.record
    spec = None if record.engine == OWN_LOOP else TASKS.get(record.config.task)
    return SkippingRun(
        run_id=run.run_id,
        policy=record.config.policy,
        steps=run.steps(),
        batch_size=spec.batch_size if spec else None,
        retries=record.config.on_overflow == "retry",
    )


def skips_frame(runs: Sequence[SkippingRun]) -> pd.DataFrame:
    """Return what skipping cost each run.

    Returns:
        A row a run: steps done, skipped (number), share (of the steps), retried (finite after an overflow, at
        a smaller S), applied (updates made with Inf or NaN in some gradient), batch_size, samples (drawn),
        samples_lost (of skipped steps; these three None where the batch size is unknown), optimizer_steps
        (updates made), scheduler_steps (what a schedule that advances once an iteration has done, as in
        ``torch.amp``'s examples), skipped_at_the_start (before the first update) and longest_streak (of
        skipped steps).
    """
    return pd.DataFrame([_row(run) for run in runs], columns=SKIPS_COLUMNS)


def _row(run: SkippingRun) -> dict[str, object]:
    skipped = run.steps["skipped"].astype(bool)
    number, steps = int(skipped.sum()), len(skipped)
    streaks = skipped.groupby((~skipped).cumsum()).sum()
    size = run.batch_size
    finite = run.steps["finite"].astype("boolean").fillna(True)
    return {
        "run_id": run.run_id,
        "policy": run.policy,
        "steps": steps,
        "skipped": number,
        "share": number / steps if steps else 0.0,
        "retried": int((~finite & ~skipped).sum()) if run.retries else 0,
        "applied": 0 if run.retries else int((~finite & ~skipped).sum()),
        "batch_size": size,
        "samples": None if size is None else steps * size,
        "samples_lost": None if size is None else number * size,
        "optimizer_steps": steps - number,
        "scheduler_steps": steps,
        "skipped_at_the_start": int(skipped.cummin().sum()),
        "longest_streak": int(streaks.max()) if steps else 0,
    }


def lost_steps_frame(steps: pd.DataFrame) -> pd.DataFrame:
    """Return how many updates had been thrown away after each step: by so much a schedule is ahead.

    Args:
        steps: With the columns step and skipped, as `Run.steps` and `Replay.frame` have them.

    Returns:
        Columns step and lost.
    """
    return pd.DataFrame({"step": steps["step"], "lost": steps["skipped"].astype(bool).cumsum()})


def skips_finding(row: Mapping[Any, Any]) -> str:
    """Return one or two sentences on a row of `skips_frame`."""
    number, steps = int(row["skipped"]), int(row["steps"])
    if not number:
        retried = int(row["retried"])
        applied = int(row["applied"])
        more = f" {retried:,} batches were tried again at a smaller S." if retried else ""
        more += f" {applied:,} of them had Inf or NaN in some gradient." if applied else ""
        return f"All {steps:,} steps updated the weights.{more}"
    lost = row["samples_lost"]
    samples = "" if lost is None or pd.isna(lost) else f", and with them {int(lost):,} training examples"
    ahead = "1 step" if number == 1 else f"{number:,} steps"
    were = "was" if number == 1 else "were"
    return (
        f"{number:,} of {steps:,} updates {were} thrown away ({format_percent(number / steps)}){samples}. A "
        f"learning-rate schedule that advances at every iteration ends {ahead} ahead of the optimizer."
    )
