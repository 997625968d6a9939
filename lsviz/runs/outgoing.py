"""What a run tells dashboards of other programs: numbers a step, and histograms of exponents.

Such dashboards share out linearly what they are given, so that gradients, which span thirty binades, would
all stand in one bar. Exponents do not: x is floor(log2 |g|), one bucket a binade.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lsviz.exponents import MIN_EXPONENT, counts_matrix
from lsviz.runs.reader import Run

BARS: Final = 30
"""Bars that TensorBoard draws of a histogram, whatever it was given; W&B draws buckets as they are."""
ABOUT: Final = (
    "Histograms called `exponent/...` are of exponents: x is floor(log2 |g|) of a gradient g, one bucket a "
    "binade, scaled by the loss scale S as it was in backward (FP16 holds -24 to 15). Those called "
    "`exponent_fp32/...` are of the same gradients in FP32 with S = 1, the reference. What has no exponent "
    "stands beside them as a share of all values: `zero/...`, `inf/...`, `nan/...`. `flushed/...` is the "
    "share of the reference's non-zero values that are zero in FP16."
)
PREFIX: Final = {False: "exponent", True: "exponent_fp32"}
"""The first part of a histogram's tag, of what was recorded and of its reference."""

_Series = tuple[str, str, bool]
"""Tensor, kind and whether it is of references."""
_STEP_COLUMNS: Final = ("loss", "metric", "loss_scale", "skipped", "lr", "grad_norm", "ms", "ms_recording")
_COLUMNS: Final = ("step", "tensor", "kind", "reference", "numel", "zero", "inf", "nan", "counts")


@dataclass(frozen=True, slots=True)
class Bars:
    """One histogram of exponents.

    Attributes:
        tag: What it is called, as ``exponent/activation_grad/layer1``.
        edges: Whole numbers, one more than counts: bucket i holds exponent edges[i].
        counts: Number of values of each exponent, shape (buckets,).
    """

    tag: str
    edges: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Moment:
    """All that is told of one step.

    Attributes:
        step: Its number.
        seconds: Since the run began.
        numbers: By tag.
        bars: Its histograms, in recorded order.
    """

    step: int
    seconds: float
    numbers: dict[str, float]
    bars: list[Bars] = field(default_factory=list)


def moments(run: Run, flushed: pd.DataFrame) -> Iterator[Moment]:
    """Yield every step of a run, in order.

    A tensor's histograms have the same edges at all steps, as many buckets as TensorBoard has bars, or twice
    as many and so on: then each bar is of whole binades.

    Args:
        run: The run.
        flushed: Columns step, tensor, kind, flushed (`lsviz.analysis.shares.flushed_frame`).
    """
    steps = run.steps()
    exponents = run.exponents(columns=_COLUMNS)
    counts = counts_matrix(exponents["counts"].to_list())
    windows = _windows(exponents, counts)
    beyond = _ever_beyond(exponents)
    rows = exponents.groupby("step", sort=False).indices
    lost = dict(iter(flushed.groupby("step"))) if len(flushed) else {}
    loss_told = bool(steps["loss"].notna().any())
    seconds = 0.0
    for row in steps.to_dict("records"):
        step = int(row["step"])
        took = (row["ms"] + row["ms_recording"]) / 1e3
        seconds += took if math.isfinite(took) else 0.0
        moment = Moment(step, seconds, _numbers(row, loss_told=loss_told))
        if step in lost:
            for tensor, kind, share in lost[step][["tensor", "kind", "flushed"]].itertuples(index=False):
                moment.numbers[f"flushed/{kind}/{tensor}"] = float(share)
        for place in rows.get(step, ()):
            _add_tensor(moment, exponents.iloc[place], counts[place], windows, beyond)
        yield moment


def _numbers(row: dict[Any, Any], *, loss_told: bool) -> dict[str, float]:
    """Return what the steps table tells; an empty cell is NaN there, and so is a loss that is none."""
    return {
        name: float(row[name])
        for name in _STEP_COLUMNS
        if row[name] is not None and (not math.isnan(row[name]) or (name == "loss" and loss_told))
    }


def _add_tensor(
    moment: Moment,
    row: Any,
    counts: npt.NDArray[np.int64],
    windows: dict[_Series, tuple[int, int]],
    beyond: set[tuple[str, str]],
) -> None:
    name = f"{row['kind']}/{row['tensor']}"
    is_reference = bool(row["reference"])
    first, last = windows[row["tensor"], row["kind"], is_reference]
    tag = f"{PREFIX[is_reference]}/{name}"
    moment.bars.append(Bars(tag, np.arange(first, last + 1) + MIN_EXPONENT, _cut(counts, first, last)))
    for what in ("zero", "inf", "nan"):
        if what == "zero" or (row["tensor"], row["kind"]) in beyond:
            share = int(row[what]) / max(1, int(row["numel"]))
            moment.numbers[f"{what}{'_fp32' if is_reference else ''}/{name}"] = share


def _cut(counts: npt.NDArray[np.int64], first: int, last: int) -> npt.NDArray[np.int64]:
    """Return the counts of bins first to last - 1, which may lie outside."""
    cut = np.zeros(last - first, np.int64)
    inside = slice(max(0, first), min(len(counts), last))
    cut[inside.start - first : inside.stop - first] = counts[inside]
    return cut


def _windows(exponents: pd.DataFrame, counts: npt.NDArray[np.int64]) -> dict[_Series, tuple[int, int]]:
    """Return, of each series, the bins that are shown: a multiple of BARS, its own in the middle."""
    found: dict[_Series, tuple[int, int]] = {}
    for key, places in exponents.groupby(["tensor", "kind", "reference"], sort=False).indices.items():
        held = np.flatnonzero(counts[places].sum(axis=0))
        low, high = (int(held[0]), int(held[-1]) + 1) if len(held) else (-MIN_EXPONENT - 24, -MIN_EXPONENT)
        wide = BARS * math.ceil((high - low) / BARS)
        first = low - (wide - (high - low)) // 2
        found[key] = first, first + wide  # type: ignore[index]
    return found


def _ever_beyond(exponents: pd.DataFrame) -> set[tuple[str, str]]:
    """Return the tensors that ever held Inf or NaN: of all others a dashboard need not show so."""
    rows = exponents[(exponents["inf"] > 0) | (exponents["nan"] > 0)]
    return set(zip(rows["tensor"], rows["kind"], strict=True))
