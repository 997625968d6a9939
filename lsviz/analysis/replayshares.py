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
    load_references,
    shares_at_frame,
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
    frame[["flushed", "overflow"]] = math.nan
    if rows is None:
        return frame
    keys = rows.keys
    place = {step: i for i, step in enumerate(done.steps)}
    names = set(layers)
    here = keys["step"].isin(place) & (keys["kind"] == "activation_grad") & keys["tensor"].isin(names)
    chosen = rows.subset(here.to_numpy())
    at = chosen.keys["step"].map(place).to_numpy(np.int64)
    scales = np.array(done.scales, np.float64)[at]
    if done.layer_scales is not None:
        tensors = chosen.keys["tensor"].tolist()
        scales = np.array(
            [done.layer_scales[i].get(t, s) for i, t, s in zip(at.tolist(), tensors, scales, strict=True)]
        )
    inside = (scales >= MIN_SCALE) & (scales <= MAX_SCALE)
    chosen, scales, at = chosen.subset(inside), scales[inside], at[inside]
    sums = _summed(chosen, scales, at, fmt)
    whole = sums["at_risk"].where(sums["at_risk"] > 0)
    frame.loc[sums.index, "flushed"] = (sums["flushed"] / whole).fillna(0.0)
    frame.loc[sums.index, "overflow"] = sums["overflow"] / sums["numel"]
    return frame


def _summed(
    chosen: Histograms, scales: np.ndarray[Any, Any], at: np.ndarray[Any, Any], fmt: FloatFormat
) -> pd.DataFrame:
    """Return the counts of all of a step's rows together, by the step's place."""
    shares = shares_at_frame(chosen, scales, fmt)
    numel = chosen.keys["numel"].to_numpy(np.float64)
    found: pd.DataFrame = (
        pd.DataFrame(
            {
                "row": at,
                "numel": numel,
                "at_risk": numel * (1 - shares["structural_zero"].to_numpy()),
                "flushed": numel * shares["flushed"].to_numpy(),
                "overflow": numel * shares["overflow"].to_numpy(),
            }
        )
        .groupby("row")
        .sum()
    )
    return found


def flushing_note(frame: pd.DataFrame, recorded: pd.DataFrame) -> str:
    """Return where a replay's S flushes much more or less than the run's own while it counts as exact.

    Args:
        frame: `replay_frame` of the policy.
        recorded: `replay_frame` of the S that the run had.

    Returns:
        One clause; empty where no step with a reference differs by more than NOTICED.
    """
    both = frame.merge(recorded[["step", "flushed"]], on="step", suffixes=("", "_recorded"))
    apart = (both["flushed"] - both["flushed_recorded"]).abs()
    both = both[both["exact"] & (apart > NOTICED)]
    if both.empty:
        return ""
    row = both.iloc[0]
    return (
        f"at step {int(row['step']):,} the run flushed {format_percent(float(row['flushed_recorded']))} of "
        f"its values and this S would flush {format_percent(float(row['flushed']))}: weights drift apart"
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
