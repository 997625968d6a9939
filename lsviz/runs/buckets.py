"""Histograms of values, as TensorBoard's writers make them, brought to exponents.

torch's ``add_histogram`` has buckets that grow by a factor of 1.1, seven to a binade. Each is put whole into
the exponent of its geometric middle, so that at most what lies within a factor of 1.1 of a power of two comes
to stand on its wrong side.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from lsviz.exponents import BINS, MAX_EXPONENT, MIN_EXPONENT, ExponentHistogram
from lsviz.runs.foreignlog import MAX_BUCKETS, MAX_COUNT, ForeignLogError

MAX_RATIO: Final = 2.001
"""Between the ends of a bucket: a wider one tells no exponent."""
MAX_ZERO: Final = 2.0**-24
"""Magnitude to which zero's own bucket may reach: torch's ends at 1e-12."""

Column = npt.NDArray[np.float64]


def exponents_of(
    edges: Column, counts: Column, *, low: float, high: float, number: float
) -> ExponentHistogram | None:
    """Return values in buckets by exponent; None where the buckets are too wide to tell.

    Args:
        edges: Where buckets begin and end, rising, shape (buckets + 1,); a bucket has its left end.
        counts: Values in each, shape (buckets,).
        low: The least of all values; NaN or infinite where they hold such.
        high: The largest.
        number: How many they are, those outside all buckets too.

    Raises:
        ForeignLogError: It is no histogram.
    """
    _check(edges, counts, number)
    left, right = edges[:-1], edges[1:]
    held = counts > 0
    if not np.isnan([low, high]).any():  # narrower ends tell more of the first and the last
        left, right = np.maximum(left, low), np.minimum(right, high)
    near, far = np.minimum(abs(left), abs(right)), np.maximum(abs(left), abs(right))
    is_zero = (edges[:-1] <= 0) & (edges[1:] > 0)
    at_zero = ~is_zero & (edges[1:] == 0)  # below 0 and above -1e-12: no zeros
    if (far[held & (is_zero | at_zero)] > MAX_ZERO).any():
        return None
    placed = held & ~is_zero & ~at_zero
    if (far[placed] > MAX_RATIO * near[placed]).any():
        return None
    near = np.where(at_zero, far / 4, near)
    found = np.zeros(BINS, np.int64)
    chosen = held & ~is_zero
    with np.errstate(divide="ignore"):
        middle = np.floor((np.log2(near[chosen]) + np.log2(far[chosen])) / 2)
    place = np.clip(middle, MIN_EXPONENT, MAX_EXPONENT).astype(np.int64) - MIN_EXPONENT
    np.add.at(found, place, counts[chosen].astype(np.int64))
    outside = max(0, round(number - counts.sum()))
    has_nan, has_inf = math.isnan(low) or math.isnan(high), math.isinf(low) or math.isinf(high)
    if outside and not (has_nan or has_inf):
        found[-1] += outside
    ends = [abs(end) for end in (low, high) if math.isfinite(end)]
    if has_nan or has_inf:
        ends += far[held & np.isfinite(far)].tolist()
    return ExponentHistogram(
        found,
        zero=int(counts[is_zero].sum()),
        inf=outside if has_inf and not has_nan else 0,
        nan=outside if has_nan else 0,
        amax=max(ends, default=0.0),
    )


def _check(edges: Column, counts: Column, number: float) -> None:
    if len(edges) != len(counts) + 1:
        raise ForeignLogError(f"it has {len(edges):,} ends of {len(counts):,} buckets")
    if len(counts) > MAX_BUCKETS:
        raise ForeignLogError(f"it has {len(counts):,} buckets, more than {MAX_BUCKETS:,}")
    if np.isnan(edges).any() or (np.diff(edges) < 0).any():
        raise ForeignLogError("its buckets are not in order")
    whole = np.isfinite(counts).all() and (counts >= 0).all() and (counts == np.rint(counts)).all()
    if not whole or not 0 <= counts.sum() <= MAX_COUNT or not 0 <= number <= MAX_COUNT:
        raise ForeignLogError(f"its counts are not whole numbers from 0 to {MAX_COUNT:,}")
