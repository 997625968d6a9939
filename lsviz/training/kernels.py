"""Compiled loops that count exponents in one pass over memory. Needs numba; nothing else here does.

A block of values is first turned into table rows by loops that the compiler vectorises; then the rows are
counted into several tables in turn, since one table would wait for its own last store wherever
neighbours fall into the same bin, as exponents do. Compiled code is kept on disk for the next process.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

FP32: Final = 0
FP16: Final = 1
BF16: Final = 2

FIELDS: Final = 256
CLASSES: Final = 8
"""Rows of one exponent field in the table of `count_classes`."""
ONE: Final = CLASSES - 1
"""The row of significands that are exactly 1; row i before it: i of the limits are reached."""
LANES: Final = 8
CLASS_LANES: Final = 2

_BLOCK: Final = 2048
_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)
_MANTISSA: Final = np.uint32(0x7FFFFF)
_MANTISSA_BITS: Final = np.uint32(23)
_INF: Final = np.uint32(0x7F800000)
_NOTHING: Final = np.uint32(0)
_UNIT: Final = np.uint32(1)
_HALF_MAGNITUDE: Final = np.uint32(0x7FFF)
_HALF_NORMAL: Final = np.uint32(0x0400)
_HALF_INF: Final = np.uint32(0x7C00)
_HALF_SHIFT: Final = np.uint32(13)
_HALF_SUBNORMAL: Final = np.float32(2.0**-24)
_REBIAS: Final = np.uint32((127 - 15) << 23)
_REBIAS_INF: Final = np.uint32((255 - 31) << 23)
_BRAIN_SHIFT: Final = np.uint32(16)


@njit(cache=True, nogil=True)
def _magnitudes(bits: Any, form: int, out: Any, single: Any) -> None:
    """Write the FP32 bits of each magnitude; ``single`` is the same memory as floats."""
    if form == FP32:
        for i in range(bits.size):
            out[i] = bits[i] & _MAGNITUDE
    elif form == BF16:
        for i in range(bits.size):
            out[i] = np.uint32(bits[i] & _HALF_MAGNITUDE) << _BRAIN_SHIFT
    else:
        for i in range(bits.size):
            single[i] = np.float32(np.int32(bits[i] & _HALF_MAGNITUDE)) * _HALF_SUBNORMAL
        for i in range(bits.size):
            half = np.uint32(bits[i] & _HALF_MAGNITUDE)
            rebias = _REBIAS_INF if half >= _HALF_INF else _REBIAS
            normal = np.uint32(np.uint32(half << _HALF_SHIFT) + rebias)
            out[i] = normal if half >= _HALF_NORMAL else out[i]


@njit(cache=True, nogil=True)
def _field_rows(magnitudes: Any, rows: Any, largest: Any) -> Any:
    """Write each value's row: its exponent field, FP32's subnormals beside the smallest normals."""
    for i in range(magnitudes.size):
        b = magnitudes[i]
        largest = max(largest, b if b < _INF else _NOTHING)
        rows[i] = np.uint8(max(np.uint32(b >> _MANTISSA_BITS), min(b, _UNIT)))
    return largest


@njit(cache=True, nogil=True)
def _class_rows(magnitudes: Any, limits: Any, rows: Any, largest: Any) -> Any:
    """Write each value's row: its exponent field and the class of its mantissa."""
    first, second, third, fourth = limits[0], limits[1], limits[2], limits[3]
    for i in range(magnitudes.size):
        b = magnitudes[i]
        largest = max(largest, b if b < _INF else _NOTHING)
        m = np.uint32(b & _MANTISSA)
        reached = np.uint16(m >= first) + np.uint16(m >= second) + np.uint16(m >= third)
        kind = np.uint16(ONE) if m == 0 else np.uint16(reached + np.uint16(m >= fourth))
        rows[i] = np.uint16(np.uint32(b >> _MANTISSA_BITS) * np.uint32(CLASSES)) + kind
    return largest


@njit(cache=True, nogil=True)
def count_fields(bits: Any, form: int, table: Any) -> int:
    """Count values by FP32 exponent field.

    Args:
        bits: uint32 for FP32, uint16 for FP16 and BF16; one-dimensional, contiguous, below 2^32 values.
        form: ``FP32``, ``FP16`` or ``BF16``.
        table: Zeros, uint32 of shape (LANES, FIELDS); the counts are in its first lane. Row 0 holds
            zeros alone (FP32's own subnormals go to row 1), row 255 Inf and NaN.

    Returns:
        FP32 bits of the largest finite magnitude.
    """
    single = np.empty(_BLOCK, np.float32)
    magnitudes = single.view(np.uint32)
    rows = np.empty(_BLOCK, np.uint8)
    largest = np.uint32(0)
    t0, t1, t2, t3 = table[0], table[1], table[2], table[3]
    t4, t5, t6, t7 = table[4], table[5], table[6], table[7]
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        size = part.size
        _magnitudes(part, form, magnitudes, single)
        largest = _field_rows(magnitudes[:size], rows, largest)
        for i in range(size // 8):
            k = np.uint64(i) * np.uint64(8)
            t0[rows[k]] += _UNIT
            t1[rows[k + np.uint64(1)]] += _UNIT
            t2[rows[k + np.uint64(2)]] += _UNIT
            t3[rows[k + np.uint64(3)]] += _UNIT
            t4[rows[k + np.uint64(4)]] += _UNIT
            t5[rows[k + np.uint64(5)]] += _UNIT
            t6[rows[k + np.uint64(6)]] += _UNIT
            t7[rows[k + np.uint64(7)]] += _UNIT
        for i in range(size - size % 8, size):
            t0[rows[i]] += _UNIT
    for i in range(FIELDS):
        t0[i] += t1[i] + t2[i] + t3[i] + t4[i] + t5[i] + t6[i] + t7[i]
    return int(largest)


@njit(cache=True, nogil=True)
def count_classes(bits: Any, form: int, limits: Any, table: Any) -> int:
    """Count values by FP32 exponent field and mantissa.

    Args:
        bits: As for `count_fields`.
        form: As for `count_fields`.
        limits: Four mantissas of 23 bits, uint32.
        table: Zeros, uint32 of shape (CLASS_LANES, FIELDS * CLASSES); the counts are in its first lane.
            Row field * CLASSES + ONE holds mantissas of 0 (of field 0: zeros; of 255: Inf), row
            field * CLASSES + i those that reach i of the limits.

    Returns:
        As `count_fields`.
    """
    single = np.empty(_BLOCK, np.float32)
    magnitudes = single.view(np.uint32)
    rows = np.empty(_BLOCK, np.uint16)
    largest = np.uint32(0)
    even, odd = table[0], table[1]
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        size = part.size
        _magnitudes(part, form, magnitudes, single)
        largest = _class_rows(magnitudes[:size], limits, rows, largest)
        for i in range(size // 2):
            k = np.uint64(i) * np.uint64(2)
            even[rows[k]] += _UNIT
            odd[rows[k + np.uint64(1)]] += _UNIT
        if size % 2:
            even[rows[size - 1]] += _UNIT
    for i in range(FIELDS * CLASSES):
        even[i] += odd[i]
    return int(largest)
