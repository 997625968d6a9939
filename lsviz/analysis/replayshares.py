"""What a replayed policy's S would flush, and where that sets its training apart from the run's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_percent
from lsviz.analysis.replay import Replay
from lsviz.analysis.series import GradientSeries, run_format
from lsviz.analysis.shares import layer_names
from lsviz.analysis.whatif import (
    MAX_SCALE,
    MIN_SCALE,
    Histograms,
    counts_at,
    load_references,
)
from lsviz.formats import FloatFormat
from lsviz.runs.reader import Run

NOTICED: Final = 0.01
"""Share of all values by which two S flush differently, from which on it is told."""


def replay_frame(
    done: Replay, rows: Histograms | None, fmt: FloatFormat, layers: Sequence[str]
) -> pd.DataFrame:
    """Return a row a step, with what a cast of the references would flush at the replay's S.

    Args:
        done: `replay`.
        rows: The run's references; None where there are none.
        fmt: The format cast to.
        layers: Whose outputs count, as `lsviz.analysis.shares.layer_names` returns them.

    Returns:
        Columns step, loss_scale, skipped, exact, and flushed (share of the values at the layers' outputs that
        are not zero) and overflow (share of all); nan at steps without a reference, or with an S out of
        what-if's range.
    """
    frame = done.frame()
    unknown = np.full(len(frame), math.nan)
    if rows is None or frame.empty:
        return frame.assign(flushed=unknown, overflow=unknown)
    keys, steps = rows.keys, frame["step"].to_numpy()
    here = np.isin(keys["step"].to_numpy(), steps) & (keys["kind"] == "activation_grad").to_numpy()
    chosen = rows.subset(here & keys["tensor"].isin(layers).to_numpy())
    at = np.searchsorted(steps, chosen.keys["step"].to_numpy())
    scales = np.array(done.scales, np.float64)[at]
    if done.layer_scales is not None:
        tensors = chosen.keys["tensor"].tolist()
        scales = np.array(
            [done.layer_scales[i].get(t, s) for i, t, s in zip(at.tolist(), tensors, scales, strict=True)]
        )
    inside = (scales >= MIN_SCALE) & (scales <= MAX_SCALE)
    chosen, scales, at = chosen.subset(inside), scales[inside], at[inside]
    counts = counts_at(chosen, scales, fmt)
    numel, zero = (chosen.keys[name].to_numpy(np.float64) for name in ("numel", "zero"))

    def by_step(of_rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.bincount(at, of_rows, minlength=len(frame))

    whole, at_risk = by_step(numel), by_step(numel - zero)
    flushed = by_step(counts["flushed"]) / np.where(at_risk > 0, at_risk, math.inf)
    overflow = by_step(counts["overflow"]) / np.where(whole > 0, whole, math.nan)
    known = np.bincount(at, minlength=len(frame)) > 0
    return frame.assign(flushed=np.where(known, flushed, math.nan), overflow=overflow)


def flushing_note(frame: pd.DataFrame, recorded: pd.DataFrame) -> str:
    """Return where a replay's S flushes much more or less than the run's own while it counts as exact.

    Args:
        frame: `replay_frame` of the policy.
        recorded: `replay_frame` of the S that the run had.

    Returns:
        One clause; empty where no step with a reference differs by more than NOTICED.
    """
    steps = frame["step"].to_numpy()
    _, mine, theirs = np.intersect1d(steps, recorded["step"].to_numpy(), return_indices=True)
    flushed, of_run = frame["flushed"].to_numpy()[mine], recorded["flushed"].to_numpy()[theirs]
    noticed = np.flatnonzero(frame["exact"].to_numpy()[mine] & (np.abs(flushed - of_run) > NOTICED))
    if not len(noticed):
        return ""
    first = noticed[0]
    return (
        f"at step {steps[mine][first]:,} the run flushed {format_percent(float(of_run[first]))} of "
        f"its values and this S would flush {format_percent(float(flushed[first]))}: weights drift apart"
    )


def flushing_note_of(run: Run, series: GradientSeries, done: Replay) -> str:
    """Return `flushing_note` of a run's folder; empty where it has no references.

    Args:
        run: That was recorded.
        series: `load_series` of it.
        done: The replay.
    """
    rows = load_references(run)
    if rows is None:
        return ""
    fmt, layers = run_format(run.config.precision), layer_names(rows.keys)
    return flushing_note(replay_frame(done, rows, fmt, layers), recorded_frame(series, rows, fmt, layers))


def recorded_frame(
    series: GradientSeries, rows: Histograms | None, fmt: FloatFormat, layers: Sequence[str]
) -> pd.DataFrame:
    """Return `replay_frame` of the S that the run itself had."""
    skipped = series.steps[series.skipped].tolist()
    end = int(series.steps[-1]) + 1 if len(series.steps) else 0
    own = Replay(series.steps.tolist(), series.loss_scale.tolist(), skipped, end)
    return replay_frame(own, rows, fmt, layers)
