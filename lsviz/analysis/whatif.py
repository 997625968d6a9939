"""What-if: what a cast to a format would have done to recorded gradients at any other loss scale.

A shift by a power of two keeps an exponent's bin whole, so only the two ends of a format need more than
the exponent: the tie under the smallest subnormal and the rounding point past the largest value, which a
reference histogram counts (`ones`, `past_*`). It is told of one cast of the reference: an FP16 backward
pass flushes more, since what is lost at one layer never reaches the layers below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lsviz.errors import UserError
from lsviz.exponents import BINS, MAX_EXPONENT, MIN_EXPONENT, ROUNDING_FORMATS, cast_counts, counts_matrix
from lsviz.formats import FloatFormat
from lsviz.runs.reader import Run
from lsviz.runs.schema import PAST_COLUMNS

MIN_SCALE: Final = 2.0**-10
MAX_SCALE: Final = 2.0**40
"""S that can be asked for: within them the end bins of a histogram lie beyond FP16's and both FP8s' ends."""

SHARES: Final = ("flushed", "subnormal", "normal", "overflow")
WHATIF_COLUMNS: Final = ["tensor", "kind", "step", "scale", *SHARES, "structural_zero"]
READ_COLUMNS: Final = (
    *("step", "tensor", "kind", "reference", "loss_scale", "numel", "zero", "inf", "nan", "amax", "counts"),
    *("ones", *PAST_COLUMNS),
)
"""What is needed of the exponents table."""

MOST_ROWS: Final = 20_000
"""Of a longer run some steps stand for all, since a row takes 6 kB in memory."""

Matrix = npt.NDArray[np.int64]
_KEYS: Final = ("step", "tensor", "kind", "loss_scale", "numel", "zero", "inf", "nan", "amax")


class WhatIfError(UserError):
    """What-if can't be told; the message says why and what would help."""


@dataclass(frozen=True)
class Histograms:
    """Histograms to ask, a row a tensor, kind and step: of values that no half format has touched, if any.

    Attributes:
        keys: Columns step, tensor, kind, loss_scale (of the values: 1 in a reference), numel, zero, inf,
            nan, amax.
        counts: Shape (rows, 128).
        ones: Of significands that are exactly 1, same shape.
        past: Per format name, of significands past its overflow rounding point, same shape.
        censored: Whether a half format has flushed what is small already, which counts as zero here: then
            flushed shares are what is lost of the rest, and nothing is known of significands.
    """

    keys: pd.DataFrame
    counts: Matrix
    ones: Matrix
    past: dict[str, Matrix]
    censored: bool = False

    @classmethod
    def of(cls, exponents: pd.DataFrame) -> Histograms:
        """Return the rows of an exponents table to ask: the references, or what FP32 recorded, or all.

        Without the first two, histograms are left-censored: they lack what was flushed while recording, and
        no other S brings it back.

        Args:
            exponents: With the columns READ_COLUMNS.

        Raises:
            WhatIfError: No gradients were recorded.
        """
        if exponents.empty:
            raise WhatIfError(
                "this run recorded no gradients; record some with --record-every 10 and, to see what FP16 "
                "flushes, --reference-every 10"
            )
        whole = exponents["ones"].notna()
        references = whole & exponents["reference"].astype(bool)
        if not whole.any():
            return cls._censored(exponents)
        chosen = exponents[references if references.any() else whole]
        return cls(
            keys=chosen[[*_KEYS]].reset_index(drop=True),
            counts=counts_matrix(chosen["counts"].to_list()),
            ones=counts_matrix(chosen["ones"].to_list()),
            past={f.name: counts_matrix(chosen[f"past_{f.name}"].to_list()) for f in ROUNDING_FORMATS},
        )

    @classmethod
    def _censored(cls, exponents: pd.DataFrame) -> Histograms:
        spoilt = exponents.loc[(exponents["inf"] > 0) | (exponents["nan"] > 0), "step"].unique()
        chosen = exponents[~exponents["step"].isin(spoilt)]
        if chosen.empty:
            raise WhatIfError(
                "every recorded step of this run overflowed, and it has no FP32 reference to ask"
            )
        counts = counts_matrix(chosen["counts"].to_list())
        nothing = {f.name: np.zeros_like(counts) for f in ROUNDING_FORMATS}
        keys = chosen[[*_KEYS]].reset_index(drop=True)
        return cls(keys, counts, np.zeros_like(counts), nothing, censored=True)

    @cached_property
    def at_risk(self) -> Matrix:
        """How many of each row's values are neither zero nor NaN, shape (rows,)."""
        return (self.keys["numel"] - self.keys["zero"] - self.keys["nan"]).to_numpy(np.int64)

    @cached_property
    def infinite(self) -> Matrix:
        """How many of each row's values are Inf, shape (rows,)."""
        return self.keys["inf"].to_numpy(np.int64)

    @cached_property
    def recorded_scales(self) -> npt.NDArray[np.float64]:
        """S that each row's values were recorded at, shape (rows,)."""
        return self.keys["loss_scale"].to_numpy(np.float64)

    @property
    def caution(self) -> str:
        """What to know of censored histograms, in two sentences; empty of others."""
        if not self.censored:
            return ""
        return (
            "This run has no FP32 reference, so these are histograms of what a half format had left: values "
            "flushed while recording are missing, and no other S brings them back. Flushed shares are of "
            "the rest, and steps that overflowed are left out. lsviz's own tasks record all of it with "
            "--reference-every 10; of a loop of your own, record some steps in FP32 too, without autocast."
        )

    def subset(self, chosen: npt.NDArray[np.bool_]) -> Histograms:
        """Return some of the rows.

        Args:
            chosen: Which, shape (rows,).
        """
        return self.taken(np.flatnonzero(chosen))

    def taken(self, places: npt.NDArray[np.int64]) -> Histograms:
        """Return the rows at these places, in that order; one can be taken more than once."""
        past = {name: rows[places] for name, rows in self.past.items()}
        keys = self.keys.iloc[places].reset_index(drop=True)
        return Histograms(keys, self.counts[places], self.ones[places], past, self.censored)

    def pooled(self) -> Histograms:
        """Return each tensor's values of all steps together, under its first step."""
        groups = self.keys.groupby(["tensor", "kind", "loss_scale"], sort=False)
        number = groups.ngroup().to_numpy()
        sums = dict.fromkeys(("numel", "zero", "inf", "nan"), "sum")
        keys = groups.agg({"step": "first", **sums, "amax": "max"}).reset_index()[[*_KEYS]]

        def added(rows: Matrix) -> Matrix:
            total = np.zeros((len(keys), BINS), np.int64)
            np.add.at(total, number, rows)
            return total

        past = {name: added(rows) for name, rows in self.past.items()}
        return Histograms(keys, added(self.counts), added(self.ones), past, self.censored)


def load_histograms(run: Run, *, most_rows: int = MOST_ROWS, known: pd.DataFrame | None = None) -> Histograms:
    """Return what of a run's folder there is to ask.

    Of many rows, evenly spread steps are read, and those at which a tensor has its largest value, so that
    what overflows over the run is known exactly.

    Args:
        run: Any run.
        most_rows: From so many on.
        known: The run's exponents table, with any columns beside ``reference``, where it was read already.

    Raises:
        WhatIfError: No gradients were recorded.
    """
    is_reference = (run.exponents(columns=["reference"]) if known is None else known)["reference"]
    number = int(is_reference.sum())
    reference = True if number else None
    steps = _telling_steps(run, reference, most_rows) if (number or len(is_reference)) > most_rows else None
    return Histograms.of(run.exponents(steps=steps, reference=reference, columns=READ_COLUMNS))


def _telling_steps(run: Run, reference: bool | None, most_rows: int) -> list[int]:
    """Return evenly spread steps, and those at which a tensor has its largest value."""
    columns = ["step", "tensor", "kind", "loss_scale", "inf", "nan", "amax"]
    keys = run.exponents(reference=reference, columns=columns)
    recorded = np.sort(keys["step"].unique())
    apart = -(-len(keys) // most_rows)
    beyond = np.where((keys["inf"] > 0) | (keys["nan"] > 0), np.inf, keys["amax"] / keys["loss_scale"])
    largest = keys.assign(beyond=beyond).groupby(["tensor", "kind"])["beyond"].idxmax()
    return sorted({*recorded[::apart].tolist(), *keys.loc[largest, "step"].tolist()})


def load_references(run: Run) -> Histograms | None:
    """Return `load_histograms`; None where there is nothing, or only what a half format had left."""
    try:
        rows = load_histograms(run)
    except WhatIfError:
        return None
    return None if rows.censored else rows


def whatif_frame(rows: Histograms, scales: Sequence[float], fmt: FloatFormat) -> pd.DataFrame:
    """Return what a cast to a format would do at other loss scales.

    Flushed and overflow go by the result of the cast, subnormal and normal by the magnitude before it.

    Args:
        rows: As `Histograms.of` returns them.
        scales: S, each from 2^-10 to 2^40.
        fmt: FP16, BF16, E4M3 or E5M2.

    Returns:
        Columns tensor, kind, step, scale, and the shares of numel flushed, subnormal, normal, overflow and
        structural_zero, which with NaN's share add up to 1; then exact, and for each of the first four its
        bounds, as flushed_low and flushed_high. Where S over the values' own is a power of two (and, for
        BF16, no value lies beyond the bins, -80..47) shares are exact and bounds equal to them. Else the
        bounds are what the powers of two around allow, and the share itself lies between theirs by log2 S.

    Raises:
        WhatIfError: An S out of range, or a format whose rounding a histogram does not know.
    """
    check_format(rows, fmt)
    return pd.concat([shares_at_frame(rows, check_scale(scale), fmt) for scale in scales], ignore_index=True)


def check_format(rows: Histograms, fmt: FloatFormat) -> None:
    """Pass a format whose rounding the histograms know.

    Raises:
        WhatIfError: They don't.
    """
    if fmt.name not in rows.past:
        names = ", ".join(rows.past)
        raise WhatIfError(f"what-if can't be told for {fmt.name}; choose one of: {names}")


def check_scale(scale: float) -> float:
    """Return S where what-if can be told for it.

    Raises:
        WhatIfError: It lies out of range.
    """
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise WhatIfError(f"a scale should be a number from 2^-10 to 2^40, got {scale:g}")
    return scale


def shares_at_frame(
    rows: Histograms, scales: float | npt.NDArray[np.float64], fmt: FloatFormat
) -> pd.DataFrame:
    """Return `whatif_frame` with an S for each row.

    Args:
        rows: As `Histograms.of` returns them.
        scales: S of each row, shape (rows,), or one for all; from 2^-10 to 2^40.
        fmt: FP16, BF16, E4M3 or E5M2.
    """
    ratio, whole, below = _shifts(rows, scales)
    low, high = _counts_around(rows, whole, below, fmt)
    numel = rows.keys["numel"].to_numpy(np.float64)
    whole_of = np.where(numel > 0, numel, 1)
    # Column by column into a frame takes pandas ten times as long.
    columns: dict[str, Any] = {name: rows.keys[name] for name in ("tensor", "kind", "step")}
    columns["scale"] = scales
    for name, counts in _between(low, high, ratio).items():
        columns[name] = counts / whole_of
    columns["structural_zero"] = rows.keys["zero"].to_numpy(np.float64) / whole_of
    tiny, huge = _beyond_bins(rows, fmt)
    if rows.censored:
        above = np.where(whole, below, below + 1)
        least, most = _open_ends(rows, below, fmt)[0], _open_ends(rows, above, fmt)[1]
        tiny, huge = tiny + least, huge + np.where(fmt.overflows(rows.keys["amax"] * ratio), most, 0)
    columns["exact"] = whole & (tiny == 0) & (huge == 0) & (not rows.censored)
    for name, (least, most) in _bounds(low, high, rows, tiny, huge).items():
        columns[f"{name}_low"], columns[f"{name}_high"] = least / whole_of, most / whole_of
    return pd.DataFrame(columns, index=rows.keys.index)


def counts_at(
    rows: Histograms, scales: float | npt.NDArray[np.float64], fmt: FloatFormat
) -> dict[str, npt.NDArray[np.float64]]:
    """Return how many of each row's values a cast would flush, and so on: SHARES, each of shape (rows,).

    Args:
        rows: As `Histograms.of` returns them.
        scales: S of each row, shape (rows,), or one for all; from 2^-10 to 2^40.
        fmt: FP16, BF16, E4M3 or E5M2.
    """
    ratio, whole, below = _shifts(rows, scales)
    return _between(*_counts_around(rows, whole, below, fmt), ratio)


def _shifts(
    rows: Histograms, scales: float | npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], Matrix]:
    """Return S over each row's own, whether that is a power of two, and the power of two at or below it."""
    ratio = np.asarray(scales / rows.recorded_scales)
    significand, exponent = np.frexp(ratio)
    return ratio, significand == 0.5, exponent.astype(np.int64) - 1


def _counts_around(
    rows: Histograms, whole: npt.NDArray[np.bool_], below: Matrix, fmt: FloatFormat
) -> tuple[dict[str, Matrix], dict[str, Matrix]]:
    """Count at the powers of two around each row's S."""
    low = _counts_at(rows, below, fmt)
    return low, low if whole.all() else _counts_at(rows, np.where(whole, below, below + 1), fmt)


def _between(
    low: dict[str, Matrix], high: dict[str, Matrix], ratio: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return counts between those of two powers of two, by log2 S."""
    way = np.log2(np.frexp(ratio)[0]) + 1
    return {name: low[name] * (1 - way) + high[name] * way for name in SHARES}


def _counts_at(rows: Histograms, shift: Matrix, fmt: FloatFormat) -> dict[str, Matrix]:
    """Count what a cast makes of each row's values times 2^shift."""
    cast = cast_counts(rows.counts, fmt, shift=shift, ones=rows.ones, past=rows.past[fmt.name])
    overflow = cast.overflow + rows.infinite
    normal = rows.at_risk - cast.flushed - cast.subnormal - overflow
    return {"flushed": cast.flushed, "subnormal": cast.subnormal, "normal": normal, "overflow": overflow}


def _open_ends(rows: Histograms, shift: Matrix, fmt: FloatFormat) -> tuple[Matrix, Matrix]:
    """Return how many values times 2^shift lie where only the significand tells what a cast makes of them."""
    least = cast_counts(rows.counts, fmt, shift=shift, ones=rows.ones, past=rows.past[fmt.name])
    most = cast_counts(rows.counts, fmt, shift=shift, ones=rows.counts, past=rows.counts)
    return most.flushed - least.flushed, most.overflow - least.overflow


def _bounds(
    low: dict[str, Matrix], high: dict[str, Matrix], rows: Histograms, tiny: Matrix, huge: Matrix
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return each count's least and most between two scales.

    With S, fewer values are flushed, fewer lie under the smallest normal and more overflow. Of values
    beyond the bins nothing is known but that they are tiny or huge.
    """
    at_risk = rows.at_risk
    under_low, under_high = low["flushed"] + low["subnormal"], high["flushed"] + high["subnormal"]
    most_flushed, most_under, most_over = low["flushed"] + tiny, under_low + tiny, high["overflow"] + huge
    return {
        "flushed": (high["flushed"], most_flushed),
        "subnormal": (np.maximum(under_high - most_flushed, 0), most_under - high["flushed"]),
        "normal": (np.maximum(at_risk - most_under - most_over, 0), at_risk - under_high - low["overflow"]),
        "overflow": (low["overflow"], most_over),
    }


def _beyond_bins(rows: Histograms, fmt: FloatFormat) -> tuple[Matrix, Matrix]:
    """Return how many of each row's values lie in an end bin that leaves their fate open, for some S."""
    tie = fmt.min_subnormal_exponent - 1
    open_below = tie - round(math.log2(MAX_SCALE)) <= MIN_EXPONENT
    open_above = fmt.max_exponent - round(math.log2(MIN_SCALE)) >= MAX_EXPONENT
    return rows.counts[:, 0] * open_below, rows.counts[:, -1] * open_above
