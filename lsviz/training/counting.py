"""Counting the exponents of a tensor's values where they lie, by their bits."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from lsviz.exponents import (
    BINS,
    MAX_EXPONENT,
    MIN_EXPONENT,
    ROUNDING_FORMATS,
    ExponentHistogram,
    overflow_significand,
)

_BIAS: Final = 127
_MANTISSA_BITS: Final = 23
_MANTISSA_MASK: Final = (1 << _MANTISSA_BITS) - 1
_FIELDS: Final = 256
_NO_EXPONENT: Final = _FIELDS - 1
"""The exponent field of Inf and NaN."""

_PAST_MANTISSA: Final = {
    # First mantissa past the rounding point: the point itself, or the one after it where the tie
    # rounds down.
    fmt.name: int((overflow_significand(fmt) - 1) * 2**_MANTISSA_BITS) + (not fmt.overflows_at_limit)
    for fmt in ROUNDING_FORMATS
}

# FP32's exponent fields 1..254 stand for -126..127; field 0 holds zero and FP32's own subnormals.
_BIN_OF_FIELD: Final = np.clip(np.arange(_FIELDS) - _BIAS, MIN_EXPONENT, MAX_EXPONENT) - MIN_EXPONENT


def count_exponents(values: Tensor, *, rounding: bool = False) -> ExponentHistogram:
    """Return the exponent histogram of a tensor's values as they are.

    Args:
        values: Any shape, device and floating dtype. Half types widen to FP32 exactly; FP64 is counted
            as it is, on the CPU.
        rounding: Also count what a reference histogram holds: significands that are exactly 1 and those
            past each format's overflow rounding point.

    Raises:
        TypeError: The tensor is not floating.
    """
    if not values.dtype.is_floating_point:
        raise TypeError(f"exponents are counted of floating tensors, got {values.dtype}")
    values = values.detach()
    if values.numel() == 0:
        return ExponentHistogram.empty()
    if values.dtype == torch.float64:
        return ExponentHistogram.of(values.cpu().numpy())
    bits = values.to(torch.float32).contiguous().view(torch.int32).flatten() & 0x7FFFFFFF
    fields = bits >> _MANTISSA_BITS
    by_field = _count(fields)
    zero = int((bits == 0).sum()) if by_field[0] else 0
    inf = int((bits == _NO_EXPONENT << _MANTISSA_BITS).sum()) if by_field[_NO_EXPONENT] else 0
    nan = int(by_field[_NO_EXPONENT]) - inf
    largest = bits
    if inf or nan:
        largest = torch.where(fields == _NO_EXPONENT, torch.zeros_like(bits), bits)
    amax = float(largest.max().view(torch.float32))
    counts = _binned(by_field)
    counts[0] -= zero
    if not rounding:
        return ExponentHistogram(counts, zero=zero, inf=inf, nan=nan, amax=amax)

    mantissas = bits & _MANTISSA_MASK
    # An FP32 subnormal has no hidden one: its mantissa says nothing about its significand.
    normal = fields > 0
    ones = _binned(_count(fields[(mantissas == 0) & normal]))
    past = {
        name: _binned(_count(fields[(mantissas >= first) & normal])) for name, first in _PAST_MANTISSA.items()
    }
    return ExponentHistogram(counts, zero=zero, inf=inf, nan=nan, amax=amax, ones=ones, past=past)


def _count(fields: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    counts: np.ndarray[tuple[int], np.dtype[np.int64]] = (
        torch.bincount(fields, minlength=_FIELDS).cpu().numpy()
    )
    return counts


def _binned(
    by_field: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Add up the counts of exponent fields into the histogram's bins, Inf and NaN left out."""
    counts = np.zeros(BINS, dtype=np.int64)
    np.add.at(counts, _BIN_OF_FIELD[:_NO_EXPONENT], by_field[:_NO_EXPONENT])
    return counts
