"""A run folder made of another program's log: of the kind that `lsviz.record` writes, for all pages."""

from __future__ import annotations

import math
import re
import secrets
import shutil
import statistics
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np

from lsviz.policies import PolicyError, format_number, format_policy, parse_policy
from lsviz.runs.config import RunConfig
from lsviz.runs.files import unwritable, write_json
from lsviz.runs.foreignlog import ForeignLog, ForeignLogError, LoggedGradient, Scaling, settle_scaling
from lsviz.runs.labels import LABELS, MAX_NAME, Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.schema import OWN_LOOP, ExponentRow, StepRow
from lsviz.runs.series import AmaxRows, OutcomeRow, TensorName
from lsviz.runs.showing import showable
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run

Gradients = Literal["unscaled", "scaled"]
GRADIENTS: Final[tuple[Gradients, ...]] = ("unscaled", "scaled")
"""How a log's gradients were written: after 1/S, as after scaler.unscale_ or scaler.step; or times S."""


def write_run(log: ForeignLog, store: RunStore, name: str, gradients: Gradients = "unscaled") -> Run:
    """Write a log as a run into the store's first root: whole, or not at all.

    Args:
        log: What was read.
        store: Where it goes.
        name: Of the file or folder that it was read from.
        gradients: Whether S is in the histograms' values.

    Raises:
        ForeignLogError: It tells nothing that a run can hold.
        RunFolderError: The root can't be written.
    """
    steps = log.steps()
    if not steps:
        raise ForeignLogError("it tells no loss, no loss scale and no gradients of any step")
    scaling = settle_scaling(log, steps)
    config = _config(log, scaling, steps, name)
    root = store.roots[0]
    hidden = root / f".import-{secrets.token_hex(8)}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        hidden.mkdir()
        made = create_run(
            hidden,
            config,
            engine=OWN_LOOP,
            whole=not log.gradients,
            metric_name="metric" if "metric" in log.columns else None,
            source=showable(" ".join([f"Made of {log.source}.", *_notes(log, scaling, gradients)])),
        )
        with RunWriter(made, open_ended=True) as writer:
            _write_rows(writer, log, steps, scaling, gradients, config)
        labels = Labels.build(name=showable(name)[:MAX_NAME], tags=["imported"])
        write_json(made / LABELS, labels.model_dump())
        return open_run(made.rename(root / made.name))
    except OSError as error:
        raise unwritable(root, error) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _notes(log: ForeignLog, scaling: Scaling, gradients: Gradients) -> list[str]:
    notes = list(log.notes)
    if scaling.read_late:
        notes.append("S was logged after the scaler's update: it is moved on by one step.")
    if log.gradients:
        notes.append(
            "Counts are approximate, and nobody knows whether these are all of the model's gradients."
        )
    if log.gradients and "loss_scale" in log.columns:
        other = GRADIENTS[gradients == "unscaled"]
        notes.append(f"Gradients are taken as {gradients}; import with --gradients {other} if they are not.")
    if "loss_scale" not in log.columns:
        notes.append("No loss scale was logged: S is taken as 1.")
    return notes


def _config(log: ForeignLog, scaling: Scaling, steps: list[int], name: str) -> RunConfig:
    recorded = sorted({g.step for g in log.gradients})
    gaps = [after - before for before, after in pairwise(recorded)]
    stem = re.sub(r"\.(json|jsonl|ndjson|log|txt)$|^events\.out\.tfevents.*", "", name.lower())
    return RunConfig.build(
        task=re.sub(r"[^a-z0-9_.-]+", "-", stem).lstrip("_.-")[:64] or "log",
        policy=_policy(scaling.scales),
        precision="fp16" if "loss_scale" in log.columns or not log.gradients else "fp32",
        steps=steps[-1] + 1,
        record_every=statistics.mode(gaps) if gaps else int(bool(recorded)),
        reference_every=0,
    )


def _policy(scales: list[float]) -> str:
    """Return the policy that S tells of; one that changes is told as gradscaler, as of recorded loops."""
    first = format_number(scales[0])
    text = f"constant:{first}" if len(set(scales)) == 1 else f"gradscaler:init_scale={first}"
    if set(scales) == {1.0}:
        return "none"
    try:
        return format_policy(parse_policy(text))
    except PolicyError:  # an S past what lsviz itself would train with
        return "gradscaler"


def _write_rows(
    writer: RunWriter,
    log: ForeignLog,
    steps: list[int],
    scaling: Scaling,
    gradients: Gradients,
    config: RunConfig,
) -> None:
    by_step: dict[int, list[LoggedGradient]] = defaultdict(list)
    order = {key: i for i, key in enumerate(dict.fromkeys((g.tensor, g.kind) for g in log.gradients))}
    for gradient in log.gradients:
        by_step[gradient.step].append(gradient)
    columns = {name: log.values(name, steps) for name in ("loss", "metric", "lr", "grad_norm")}
    took = _milliseconds(log, steps)
    for i, step in enumerate(steps):
        scale, overflowed = scaling.scales[i], scaling.overflowed[i]
        skipped = bool(overflowed) and not log.columns.keys().isdisjoint(("loss_scale", "skipped"))
        loss = columns["loss"][i]
        row = StepRow(
            step=step,
            loss=loss,
            metric=columns["metric"][i],
            loss_scale=scale,
            finite=None if overflowed is None else not overflowed,
            skipped=skipped,
            lr=columns["lr"][i],
            grad_norm=columns["grad_norm"][i],
            ms=took[i],
            ms_recording=0.0,
        )
        # A loss that is not finite knows nothing of S.
        hopeless = skipped and loss is not None and not math.isfinite(loss)
        outcome = OutcomeRow(step, scale, row.finite, curable=False if hopeless else None)
        here = sorted(by_step.pop(step, ()), key=lambda g: order[g.tensor, g.kind])
        rows = [_exponent_row(g, scale, gradients) for g in here]
        amax = [_amax_rows(step, rows, half=config.precision != "fp32")] if rows else []
        writer.append(row, rows, amax=amax, outcomes=[outcome])
        if len(rows) and i % 100 == 99:
            writer.flush()


def _exponent_row(gradient: LoggedGradient, scale: float, gradients: Gradients) -> ExponentRow:
    """Return a histogram as it was in backward: an S that is no power of two moves it by the nearest one."""
    histogram = gradient.histogram
    if gradients == "unscaled" and scale != 1.0:
        amax = min(histogram.amax * scale, sys.float_info.max)
        histogram = replace(histogram.shift(round(math.log2(scale))), amax=amax)
    return ExponentRow(gradient.step, gradient.tensor, gradient.kind, False, scale, histogram)


def _amax_rows(step: int, rows: list[ExponentRow], *, half: bool) -> AmaxRows:
    backward = rows[::-1]
    return AmaxRows(
        step=step,
        reference=False,
        names=tuple(TensorName(row.tensor, row.kind, "float32", half) for row in backward),
        loss_scale=np.array([row.loss_scale for row in backward], np.float64),
        amax=np.array([row.histogram.amax for row in backward], np.float64),
        inf=np.array([row.histogram.inf for row in backward], np.int64),
        nan=np.array([row.histogram.nan for row in backward], np.int64),
    )


def _milliseconds(log: ForeignLog, steps: list[int]) -> list[Any]:
    """Return what each step took, by when it and the one before were logged; NaN where nothing tells."""
    took = [math.nan] * len(steps)
    for i in range(1, len(steps)):
        before, after = log.times.get(steps[i - 1]), log.times.get(steps[i])
        if before is not None and after is not None and after >= before:
            took[i] = (after - before) * 1e3 / (steps[i] - steps[i - 1])
    return took
