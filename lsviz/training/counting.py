"""Counting the exponents of a tensor's values where they lie, by their bits.

On the CPU compiled loops count (`lsviz.training.kernels`); on a GPU, or without a C compiler, torch
operations do, which never wait for the device: a `Tally` stays where its tensor was until
`histograms` fetches all of them at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
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
from lsviz.training import kernels

_BIAS: Final = 127
_MANTISSA_BITS: Final = 23
_MAGNITUDE: Final = 0x7FFFFFFF
_INF: Final = 0x7F800000
_FIELDS: Final = kernels.FIELDS
_NO_EXPONENT: Final = _FIELDS - 1
"""The exponent field of Inf and NaN."""
_CLASSES: Final = kernels.CLASSES
_ONE: Final = kernels.ONE
_FORMS: Final = {torch.float32: kernels.FP32, torch.float16: kernels.FP16, torch.bfloat16: kernels.BF16}

_PAST_MANTISSA: Final = {
    # First mantissa past the rounding point: the point itself, or the one after it where the tie
    # rounds down.
    fmt.name: int((overflow_significand(fmt) - 1) * 2**_MANTISSA_BITS) + (not fmt.overflows_at_limit)
    for fmt in ROUNDING_FORMATS
}
_LIMITS: Final[npt.NDArray[np.uint32]] = np.array(sorted(_PAST_MANTISSA.values()), np.uint32)
_CLASS_OF_FORMAT: Final = {
    name: int(np.searchsorted(_LIMITS, first)) + 1 for name, first in _PAST_MANTISSA.items()
}

# FP32's exponent fields 1..254 stand for -126..127; field 0 holds zero and FP32's own subnormals.
_BIN_OF_FIELD: Final = np.clip(np.arange(_FIELDS) - _BIAS, MIN_EXPONENT, MAX_EXPONENT) - MIN_EXPONENT
_FIRST_FIELD_OF_BIN: Final = np.searchsorted(_BIN_OF_FIELD[:_NO_EXPONENT], np.arange(BINS))

_SHARED_FROM: Final = 1 << 19
"""Fewer values are counted sooner than a second thread has begun."""
_LATER_FROM: Final = 1 << 15
"""Fewer values are counted sooner than they are handed over."""
_MOST: Final = 1 << 31
"""Values that one table of 32-bit counts takes."""
_DEVICE_CHUNK: Final = 1 << 24
"""Values that torch operations take at a time: each needs some 30 bytes for as long."""
_GPU_LANES: Final = 64
"""Tables on a GPU: atomic additions to one bin would wait for each other."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one tensor, where the tensor was.

    Attributes:
        table: Counts by exponent field in any number of tables to be added up, shape (tables, 256), row 0
            holding zeros alone; or, with what a reference holds, by exponent field and class of mantissa,
            shape (tables, 2048).
        largest: FP32 bits of the largest finite magnitude.
        inf: How many infinities there are; they share their rows of a table of 256 with NaN.
    """

    table: npt.NDArray[Any] | Tensor
    largest: int | Tensor
    inf: int | Tensor


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
    return histograms([tally(values, rounding=rounding)])[0]


def tally(values: Tensor, *, rounding: bool = False) -> Tally | ExponentHistogram:
    """Count a tensor as `count_exponents` does, without waiting for its device.

    FP64 alone is waited for, and comes as the histogram itself.
    """
    if not values.dtype.is_floating_point:
        raise TypeError(f"exponents are counted of floating tensors, got {values.dtype}")
    values = values.detach()
    if values.dtype == torch.float64:
        return ExponentHistogram.of(values.cpu().numpy())
    library = compiled_kernels() if values.device.type == "cpu" else None
    if library is None:
        return tally_by_torch(values, rounding=rounding)
    return _tally_compiled(library, values, rounding)


def histograms(tallies: Sequence[Tally | ExponentHistogram]) -> list[ExponentHistogram]:
    """Return what was tallied, in the same order, fetched from its device in one go."""
    found: dict[int, ExponentHistogram] = {
        i: item for i, item in enumerate(tallies) if isinstance(item, ExponentHistogram)
    }
    counted = {i: item for i, item in enumerate(tallies) if isinstance(item, Tally)}
    here = dict(zip(counted, _fetched(list(counted.values())), strict=True))
    for rows in {item.table.shape[1] for item in here.values()}:
        alike = {i: item for i, item in here.items() if item.table.shape[1] == rows}
        found.update(zip(alike, _histograms(list(alike.values())), strict=True))
    return [found[i] for i in range(len(tallies))]


@cache
def compiled_kernels() -> Any:
    """Return the library of `lsviz.training.kernels`; None where it can't be had, or is not wanted.

    LSVIZ_KERNEL=torch does without it.
    """
    if os.environ.get("LSVIZ_KERNEL") == "torch":
        return None
    try:
        return kernels.load_kernels()
    except kernels.KernelError:
        return None


def kernel_description(device: str = "cpu") -> str:
    """Return in one sentence what counts exponents on a device, for ``lsviz doctor``."""
    if device != "cpu":
        return "torch operations on the GPU, which never wait for it; fetched when a run is written"
    if compiled_kernels() is not None:
        return f"compiled loops (kernels.c), on {torch.get_num_threads()} threads"
    if os.environ.get("LSVIZ_KERNEL") == "torch":
        return "torch operations (LSVIZ_KERNEL=torch)"
    try:
        kernels.load_kernels()
    except kernels.KernelError as error:
        return f"torch operations, about 10 times slower than compiled loops: {error}"
    return ""


def tally_later(values: Tensor, *, rounding: bool = False) -> Tally | ExponentHistogram | Future[Any]:
    """Count a tensor as `tally` does, beside what this thread goes on with; `settled` gives the tally.

    For tensors that nobody changes in the meantime. autograd changes no gradient that somebody else holds,
    as the counting thread does (torch/csrc/autograd/input_buffer.cpp, accumulate_grad.h, torch 2.13). Small
    tensors, and those on a GPU, which counts beside this thread anyway, are counted at once.
    """
    if values.device.type != "cpu" or values.numel() < _LATER_FROM or compiled_kernels() is None:
        return tally(values, rounding=rounding)
    return _counter().submit(tally, values, rounding=rounding)


def settled(counted: Tally | ExponentHistogram | Future[Any]) -> Tally | ExponentHistogram:
    """Return what was tallied, once it is."""
    if not isinstance(counted, Future):
        return counted
    done: Tally | ExponentHistogram = counted.result()
    return done


def tally_by_torch(values: Tensor, *, rounding: bool = False) -> Tally:
    """Count with torch operations alone, on the tensor's device and without waiting for it.

    Args:
        values: FP32, FP16 or BF16.
        rounding: As in `count_exponents`.
    """
    device = values.device
    lanes = _GPU_LANES if device.type != "cpu" else 1
    rows = _FIELDS * _CLASSES if rounding else _FIELDS
    table = torch.zeros(lanes * rows, dtype=torch.int64, device=device)
    largest = torch.zeros((), dtype=torch.int32, device=device)
    inf = torch.zeros((), dtype=torch.int64, device=device)
    flat = values.reshape(-1)
    one = torch.ones((), dtype=torch.int64, device=device)
    for part in torch.split(flat, _DEVICE_CHUNK) if flat.numel() else ():
        bits = part.to(torch.float32).view(torch.int32) & _MAGNITUDE
        largest = torch.maximum(largest, torch.where(bits < _INF, bits, 0).max())
        inf += (bits == _INF).sum()
        row = (_class_rows(bits) if rounding else _field_rows(bits)).long()
        if lanes > 1:
            row += torch.arange(len(row), device=device).remainder_(lanes).mul_(rows)
        table.scatter_add_(0, row, one.expand_as(row))
    return Tally(table.view(lanes, rows).sum(0, keepdim=True), largest, inf)


def _field_rows(bits: Tensor) -> Tensor:
    return torch.maximum(bits >> _MANTISSA_BITS, bits.clamp(max=1))


def _class_rows(bits: Tensor) -> Tensor:
    mantissas = bits & ((1 << _MANTISSA_BITS) - 1)
    classes = torch.zeros_like(bits)
    for limit in _LIMITS.tolist():
        classes += mantissas >= limit
    return (bits >> _MANTISSA_BITS) * _CLASSES + torch.where(mantissas == 0, _ONE, classes)


def _tally_compiled(library: Any, values: Tensor, rounding: bool) -> Tally:
    values = values.contiguous()
    form, width, size = _FORMS[values.dtype], values.element_size(), values.numel()
    shape = (kernels.CLASS_LANES, _FIELDS * _CLASSES) if rounding else (kernels.LANES, _FIELDS)
    parts = 1
    if size >= _SHARED_FROM:
        parts = max(torch.get_num_threads(), -(-size // _MOST))
    tables = np.zeros((parts, *shape), np.uint32)
    ends = [size * k // parts for k in range(parts + 1)]

    def count(part: int) -> int:
        start, number = values.data_ptr() + ends[part] * width, ends[part + 1] - ends[part]
        table = tables.ctypes.data + part * tables.strides[0]
        if rounding:
            return int(library.count_classes(start, number, form, _LIMITS.ctypes.data, table))
        return int(library.count_fields(start, number, form, table))

    others = [_threads().submit(count, part) for part in range(1, parts)]
    largest = max([count(0), *(other.result() for other in others)])
    first = tables[:, 0]
    special = _NO_EXPONENT * _CLASSES if rounding else _NO_EXPONENT
    inf = int(torch.isinf(values).sum()) if first[:, special:].any() else 0
    return Tally(first, largest, inf)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="lsviz-count")


@cache
def _counter() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="lsviz-counter")


# A forked process, such as a data loader's worker, has none of the threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)
    os.register_at_fork(after_in_child=_counter.cache_clear)


def _fetched(tallies: Sequence[Tally]) -> list[Tally]:
    """Return tallies on the host, those from devices fetched in one transfer."""
    parts = []
    for one in tallies:
        if isinstance(one.table, Tensor):
            for number in (one.table, one.largest, one.inf):
                assert isinstance(number, Tensor)
                parts.append(number.flatten().to(torch.int64))
    if not parts:
        return list(tallies)
    numbers = torch.cat([part.to(parts[0].device) for part in parts]).cpu().numpy()
    pieces = iter(np.split(numbers, np.cumsum([len(part) for part in parts])[:-1]))
    return [
        Tally(next(pieces).reshape(tuple(one.table.shape)), int(next(pieces)[0]), int(next(pieces)[0]))
        if isinstance(one.table, Tensor)
        else one
        for one in tallies
    ]


def _histograms(tallies: Sequence[Tally]) -> list[ExponentHistogram]:
    """Return the histograms of tallies on the host, all with tables of the same width."""
    tables = np.stack([_added_up(np.asarray(one.table)) for one in tallies])
    rounding = tables.shape[1] > _FIELDS
    classes = tables.reshape(-1, _FIELDS, _CLASSES) if rounding else None
    by_field = tables if classes is None else classes.sum(axis=2)
    zeros = by_field[:, 0] if classes is None else classes[:, 0, _ONE]
    counts = _binned(by_field)
    counts[:, 0] -= zeros.astype(np.uint64)
    ones, past = None, {}
    if classes is not None:
        normal = classes.copy()
        normal[:, 0] = 0  # FP32's own subnormals have no hidden one: their mantissas say nothing
        ones = _binned(normal[:, :, _ONE])
        past = {name: _binned(normal[:, :, k:_ONE].sum(axis=2)) for name, k in _CLASS_OF_FORMAT.items()}
    amax = _values([int(one.largest) for one in tallies])
    return [
        ExponentHistogram(
            counts[i],
            zero=int(zeros[i]),
            inf=int(one.inf),
            nan=int(by_field[i, _NO_EXPONENT]) - int(one.inf),
            amax=amax[i],
            ones=None if ones is None else ones[i],
            past={name: column[i] for name, column in past.items()} or None,
        )
        for i, one in enumerate(tallies)
    ]


def _values(bits: Sequence[int]) -> list[float]:
    """Return what FP32 bits stand for, also where the processor takes FP32's subnormals for zero."""
    whole = np.array(bits, np.int64)
    field, mantissa = whole >> _MANTISSA_BITS, whole & ((1 << _MANTISSA_BITS) - 1)
    significand = mantissa + (field > 0) * (1 << _MANTISSA_BITS)
    values: list[float] = np.ldexp(
        significand.astype(np.float64), np.maximum(field, 1) - _BIAS - _MANTISSA_BITS
    ).tolist()
    return values


def _added_up(tables: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    whole: npt.NDArray[np.int64] = (
        tables[0].astype(np.int64) if len(tables) == 1 else tables.sum(axis=0, dtype=np.int64)
    )
    return whole


def _binned(by_field: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Add up the counts of exponent fields into the histogram's bins, Inf and NaN left out."""
    counts = np.add.reduceat(by_field[:, :_NO_EXPONENT], _FIRST_FIELD_OF_BIN, axis=1)
    return counts.astype(np.uint64)
