"""ExponentHistogram: how many values have which binary exponent. Immutable, exact, numpy only.

Fixed bins, never automatic ones, so that any two tensors, steps or runs compare bin by bin; and
because multiplying by 2^k only moves whole bins, a loss scale is a shift of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsviz.formats import BF16, E4M3, E5M2, FP16, FloatFormat

MIN_EXPONENT: Final = -80
MAX_EXPONENT: Final = 47
BINS: Final = MAX_EXPONENT - MIN_EXPONENT + 1
EXPONENTS: Final[npt.NDArray[np.int64]] = np.arange(MIN_EXPONENT, MAX_EXPONENT + 1)
"""The exponent of each bin; the first and the last also hold everything beyond them."""

ROUNDING_FORMATS: Final[tuple[FloatFormat, ...]] = (FP16, BF16, E4M3, E5M2)
"""Formats whose overflow rounding point a reference histogram knows exactly."""

Counts = npt.NDArray[np.int64]


def overflow_significand(fmt: FloatFormat) -> float:
    """Return the significand, in [1, 2), from which the format's top exponent rounds out of range.

    65,520 / 2^15 for FP16. For E4M3 the point itself (464 / 2^8) still rounds down.
    """
    return float(fmt.overflow_limit / 2.0**fmt.max_exponent)


def _frozen(values: npt.ArrayLike) -> Counts:
    given = np.asarray(values)
    counts = given.astype(np.int64)  # a copy of its own
    if counts.shape != (BINS,):
        raise ValueError(f"a histogram has {BINS} bins, got shape {counts.shape}")
    if given.dtype.kind != "u" and (counts < 0).any():
        raise ValueError("a count can't be negative")
    counts.setflags(write=False)
    return counts


def _frozen_rows(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    rows = values.astype(np.int64)
    if rows.ndim != 2 or rows.shape[1] != BINS:
        raise ValueError(f"a histogram has {BINS} bins, got rows of shape {rows.shape[1:]}")
    if (rows < 0).any():
        raise ValueError("a count can't be negative")
    rows.setflags(write=False)
    return rows


def moved_counts(counts: Counts, k: int) -> Counts:
    """Return counts by exponent (shape (128,)) of the same values times 2^k.

    What would leave the range piles up in the end bin.
    """
    k = max(-BINS, min(BINS, k))
    out = np.zeros_like(counts)
    if k >= 0:
        out[k:] = counts[: BINS - k]
        out[-1] += counts[BINS - k :].sum()
    else:
        out[:k] = counts[-k:]
        out[0] += counts[:-k].sum()
    return out


def counts_matrix(rows: Sequence[npt.ArrayLike]) -> Counts:
    """Return counts by exponent, one row each: shape (rows, 128), int64."""
    return np.stack(rows).astype(np.int64) if len(rows) else np.zeros((0, BINS), np.int64)


@dataclass(frozen=True, slots=True)
class Shares:
    """Parts of one whole: each is a share of numel, and with ``nan`` they add up to 1.

    Flushed and overflow go by the result of a cast, subnormal and normal by the magnitude before it
    (a value in (2^-25, 2^-24) survives FP16 as 2^-24: it counts as subnormal).
    """

    flushed: float
    subnormal: float
    normal: float
    overflow: float
    zero: float
    nan: float


@dataclass(frozen=True, slots=True, eq=False)
class ExponentHistogram:
    """Counts of values by exponent floor(log2 |x|), with everything that has no exponent beside them.

    Attributes:
        counts: Shape (128,), int64, read-only; bin i holds exponent i - 80, the end bins saturate.
        zero: Number of zeros (of either sign).
        inf: Number of infinities.
        nan: Number of NaNs.
        amax: Largest finite magnitude; 0.0 where there is none.
        ones: Per bin, values whose significand is exactly 1 (powers of two); None if not counted.
        past: Per format name, per bin, values whose significand lies past that format's overflow
            rounding point; None if not counted.
    """

    counts: Counts
    zero: int = 0
    inf: int = 0
    nan: int = 0
    amax: float = 0.0
    ones: Counts | None = None
    past: Mapping[str, Counts] | None = field(default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", _frozen(self.counts))
        if self.ones is not None:
            object.__setattr__(self, "ones", _frozen(self.ones))
        if self.past is not None:
            object.__setattr__(self, "past", {name: _frozen(c) for name, c in self.past.items()})

    @classmethod
    def empty(cls) -> ExponentHistogram:
        """Return the histogram of no values, the neutral element of `merge`."""
        zeros = np.zeros(BINS, dtype=np.int64)
        return cls(zeros, ones=zeros, past={f.name: zeros for f in ROUNDING_FORMATS})

    @classmethod
    def from_rows(
        cls,
        counts: npt.NDArray[np.int64],
        *,
        zero: Sequence[int],
        inf: Sequence[int],
        nan: Sequence[int],
        amax: Sequence[float],
        ones: npt.NDArray[np.int64] | None = None,
        past: Mapping[str, npt.NDArray[np.int64]] | None = None,
    ) -> list[ExponentHistogram]:
        """Return many histograms, one a row, checked and frozen all at once: a tenth of the time.

        Args:
            counts: Shape (n, 128), int64.
            zero: Of each row, as the others.
            inf: Infinities.
            nan: NaNs.
            amax: Largest finite magnitudes.
            ones: Shape (n, 128), or None.
            past: Per format name, shape (n, 128), or None.
        """
        counts = _frozen_rows(counts)
        ones = None if ones is None else _frozen_rows(ones)
        past = None if past is None else {name: _frozen_rows(rows) for name, rows in past.items()}
        made = []
        for i in range(len(counts)):
            one = object.__new__(cls)
            for name, value in (
                ("counts", counts[i]),
                ("zero", zero[i]),
                ("inf", inf[i]),
                ("nan", nan[i]),
                ("amax", amax[i]),
                ("ones", None if ones is None else ones[i]),
                ("past", None if past is None else {name: rows[i] for name, rows in past.items()}),
            ):
                object.__setattr__(one, name, value)
            made.append(one)
        return made

    @classmethod
    def of(cls, values: npt.ArrayLike) -> ExponentHistogram:
        """Count any array of numbers, in float64, with everything a reference histogram holds.

        The plain, slow and exact way; training counts with `lsviz.training.counting`.
        """
        x = np.abs(np.asarray(values, dtype=np.float64).ravel())
        finite = x[np.isfinite(x) & (x > 0)]
        significand, exponent = np.frexp(finite)
        significand = significand * 2  # frexp gives [0.5, 1)
        bins = np.clip(exponent - 1, MIN_EXPONENT, MAX_EXPONENT) - MIN_EXPONENT

        def count(mask: npt.NDArray[np.bool_] | None = None) -> Counts:
            return np.bincount(bins if mask is None else bins[mask], minlength=BINS)

        past = {}
        for fmt in ROUNDING_FORMATS:
            limit = overflow_significand(fmt)
            past[fmt.name] = count(significand >= limit if fmt.overflows_at_limit else significand > limit)
        return cls(
            count(),
            zero=int((x == 0).sum()),
            inf=int(np.isinf(x).sum()),
            nan=int(np.isnan(x).sum()),
            amax=float(finite.max()) if finite.size else 0.0,
            ones=count(significand == 1.0),
            past=past,
        )

    @property
    def numel(self) -> int:
        """Number of values counted: counts.sum() + zero + inf + nan."""
        return int(self.counts.sum()) + self.zero + self.inf + self.nan

    @property
    def exact(self) -> bool:
        """Whether rounding at both ends of a format is known to the last count."""
        return self.ones is not None and self.past is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExponentHistogram):
            return NotImplemented
        return bool(
            (self.zero, self.inf, self.nan, self.amax) == (other.zero, other.inf, other.nan, other.amax)
            and np.array_equal(self.counts, other.counts)
            and _same(self.ones, other.ones)
            and (self.past is None) == (other.past is None)
            and all(_same(c, (other.past or {}).get(n)) for n, c in (self.past or {}).items())
        )

    __hash__ = None  # type: ignore[assignment]

    def merge(self, other: ExponentHistogram) -> ExponentHistogram:
        """Return the histogram of both sets of values together.

        ``ones`` and ``past`` survive only where both have them.
        """
        past = None
        if self.past is not None and other.past is not None:
            past = {n: c + other.past[n] for n, c in self.past.items() if n in other.past}
        return ExponentHistogram(
            self.counts + other.counts,
            zero=self.zero + other.zero,
            inf=self.inf + other.inf,
            nan=self.nan + other.nan,
            amax=max(self.amax, other.amax),
            ones=None if self.ones is None or other.ones is None else self.ones + other.ones,
            past=past,
        )

    def shift(self, k: int) -> ExponentHistogram:
        """Return the histogram of the same values times 2^k.

        Exact, since a power of two keeps the significand; only bins that would leave -80..47 pile up
        in the end bin, and what has piled up there does not come back.
        """
        if k == 0:
            return self
        return ExponentHistogram(
            moved_counts(self.counts, k),
            zero=self.zero,
            inf=self.inf,
            nan=self.nan,
            amax=_scaled(self.amax, k),
            ones=None if self.ones is None else moved_counts(self.ones, k),
            past=None if self.past is None else {n: moved_counts(c, k) for n, c in self.past.items()},
        )

    def fractions(self, fmt: FloatFormat) -> Shares:
        """Return the shares of numel as they would be after a cast to ``fmt``.

        Exact where ``ones`` and ``past`` were counted. Without them, a value in the bin under the
        smallest subnormal counts as rounding up and one in the top bin as staying finite, as all but
        a few do. Inf counts as overflow.

        Args:
            fmt: The format cast to. BF16 and FP32 are told only as far as the bins reach (-80..47).
        """
        numel = self.numel
        if numel == 0:
            return Shares(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        past = None if self.past is None else self.past.get(fmt.name)
        cast = cast_counts(
            self.counts[None],
            fmt,
            ones=None if self.ones is None else self.ones[None],
            past=None if past is None else past[None],
        )
        flushed, subnormal = int(cast.flushed[0]), int(cast.subnormal[0])
        overflow = self.inf + int(cast.overflow[0])
        normal = numel - self.zero - self.nan - flushed - subnormal - overflow
        return Shares(
            flushed / numel,
            subnormal / numel,
            normal / numel,
            overflow / numel,
            self.zero / numel,
            self.nan / numel,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values under the column names of a run folder's exponents table."""
        row: dict[str, Any] = {
            "numel": self.numel,
            "zero": self.zero,
            "inf": self.inf,
            "nan": self.nan,
            "amax": self.amax,
            "counts": self.counts,
            "ones": self.ones,
        }
        for fmt in ROUNDING_FORMATS:
            row[f"past_{fmt.name}"] = None if self.past is None else self.past.get(fmt.name)
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ExponentHistogram:
        """Return the histogram held by one row of an exponents table (see `to_dict`)."""
        past = {
            f.name: row[f"past_{f.name}"] for f in ROUNDING_FORMATS if row.get(f"past_{f.name}") is not None
        }
        return cls(
            row["counts"],
            zero=int(row["zero"]),
            inf=int(row["inf"]),
            nan=int(row["nan"]),
            amax=float(row["amax"]),
            ones=row.get("ones"),
            past=past or None,
        )


def _scaled(amax: float, k: int) -> float:
    try:
        return math.ldexp(amax, k)
    except OverflowError:
        return math.inf


def _same(a: Counts | None, b: Counts | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.array_equal(a, b))


@dataclass(frozen=True, slots=True)
class CastCounts:
    """How many finite values a cast flushes, leaves subnormal and makes overflow; each of shape (n,)."""

    flushed: npt.NDArray[np.int64]
    subnormal: npt.NDArray[np.int64]
    overflow: npt.NDArray[np.int64]


def cast_counts(
    counts: npt.NDArray[np.int64],
    fmt: FloatFormat,
    *,
    shift: int | npt.NDArray[np.int64] = 0,
    ones: npt.NDArray[np.int64] | None = None,
    past: npt.NDArray[np.int64] | None = None,
) -> CastCounts:
    """Count what a cast to ``fmt`` makes of values times 2^shift; the limits move, not the histograms.

    Without ``ones`` all of the bin under the smallest subnormal counts as rounding up, without ``past``
    all of the top bin as staying finite, as all but a few values do.

    Args:
        counts: Shape (n, 128), a histogram a row.
        fmt: The format cast to.
        shift: Binades, of all rows or of each.
        ones: Of significands that are exactly 1, same shape.
        past: Of significands past the format's overflow rounding point, same shape.
    """
    tie, top = fmt.min_subnormal_exponent - 1 - shift, fmt.max_exponent - shift
    flushed = _below(counts, tie)
    if ones is not None:
        flushed = flushed + _at(ones, tie)
    overflow = counts.sum(axis=1) - _below(counts, top + 1)
    if past is not None:
        overflow = overflow + _at(past, top)
    return CastCounts(flushed, _below(counts, fmt.min_exponent - shift) - flushed, overflow)


def _below(counts: npt.NDArray[np.int64], exponent: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return each row's count of values whose exponent is less than a given one."""
    sums = np.concatenate([np.zeros((len(counts), 1), np.int64), counts.cumsum(axis=1)], axis=1)
    found: npt.NDArray[np.int64] = sums[np.arange(len(counts)), np.clip(exponent - MIN_EXPONENT, 0, BINS)]
    return found


def _at(counts: npt.NDArray[np.int64], exponent: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return each row's count in one exponent's bin; 0 outside the bins."""
    place = np.asarray(exponent) - MIN_EXPONENT
    found = counts[np.arange(len(counts)), np.clip(place, 0, BINS - 1)]
    return np.where((place >= 0) & (place < BINS), found, 0)
