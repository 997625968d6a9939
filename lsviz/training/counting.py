"""Counting the exponents of a tensor's values where they lie, by their bits.

On the CPU compiled loops count (`lsviz.training.kernels`); on a GPU, or without a C compiler, torch
operations do, which never wait for the device: a `Tally` stays where its tensor was until
`histograms` fetches all of them at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from lsviz.training.counter import FORMATS as HERE
from lsviz.training.counter import Counter, Counting

_BIAS: Final = 127
_MANTISSA_BITS: Final = 23
_MAGNITUDE: Final = 0x7FFFFFFF
_INF: Final = 0x7F800000
_FIELDS: Final = kernels.FIELDS
_NO_EXPONENT: Final = _FIELDS - 1
"""The exponent field of Inf and NaN."""
_CLASSES: Final = kernels.CLASSES
_ONE: Final = kernels.ONE
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

_PLAIN: Final = (Tensor, torch.nn.Parameter)
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
    values, left_out = stored(values.detach())
    if left_out:
        (found,) = histograms([tally(values, rounding=rounding)])
        return replace(found, zero=found.zero + left_out)
    if values.dtype == torch.float64:
        return ExponentHistogram.of(values.cpu().numpy())
    counter = compiled_counter() if _lies_here(values) else None
    if counter is None:
        return tally_by_torch(values, rounding=rounding)
    threads = torch.get_num_threads()
    return settled(counter.start(values, rounding=rounding, threads=threads - 1, shared=threads))


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


def extremes(
    tallies: Sequence[Tally | ExponentHistogram],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each one's largest finite magnitude, infinities and NaN, fetched from its device in one go.

    Far cheaper than `histograms`, for those who ask no more.
    """
    amax, inf, nan = (
        np.zeros(len(tallies)),
        np.zeros(len(tallies), np.int64),
        np.zeros(len(tallies), np.int64),
    )
    places = [i for i, item in enumerate(tallies) if isinstance(item, Tally)]
    here = _fetched([item for item in tallies if isinstance(item, Tally)])
    if here:
        amax[places] = _values([int(one.largest) for one in here])
        inf[places] = [int(one.inf) for one in here]
        nan[places] = [_without_exponent(np.asarray(one.table)) for one in here]
        nan[places] -= inf[places]
    for i, item in enumerate(tallies):
        if isinstance(item, ExponentHistogram):
            amax[i], inf[i], nan[i] = item.amax, item.inf, item.nan
    return amax, inf, nan


def _without_exponent(table: npt.NDArray[Any]) -> int:
    """Return how many values are Inf or NaN."""
    last = table[:, table.shape[1] // _FIELDS * _NO_EXPONENT :]
    return int(last.sum()) if last.size > 1 else int(last.item())


@cache
def compiled_counter() -> Counter | None:
    """Return what counts by compiled loops; None where they can't be had, or are not wanted.

    LSVIZ_KERNEL=torch does without it.
    """
    if os.environ.get("LSVIZ_KERNEL") == "torch":
        return None
    try:
        return Counter(kernels.load_kernels(), _LIMITS)
    except kernels.KernelError:
        return None


# A forked process, such as a data loader's worker, has none of the threads and waits for nothing queued.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=compiled_counter.cache_clear)


def kernel_description(device: str = "cpu") -> str:
    """Return in one sentence what counts exponents on a device, for ``lsviz doctor``."""
    if device != "cpu":
        return "torch operations on the GPU, which never wait for it; fetched when a run is written"
    if compiled_counter() is not None:
        return f"compiled loops (kernels.c), on {torch.get_num_threads()} threads"
    if os.environ.get("LSVIZ_KERNEL") == "torch":
        return "torch operations (LSVIZ_KERNEL=torch)"
    try:
        kernels.load_kernels()
    except kernels.KernelError as error:
        return f"torch operations, about 10 times slower than compiled loops: {error}"
    return ""


def tally_later(values: Tensor, *, rounding: bool = False) -> Tally | ExponentHistogram | Counting:
    """Count a tensor as `tally` does, beside what this thread goes on with; `settled` gives the tally.

    For tensors that nobody changes in the meantime. autograd changes no gradient that somebody else holds,
    as the counter does (torch/csrc/autograd/input_buffer.cpp, accumulate_grad.h, torch 2.13).
    """
    counter = compiled_counter() if _lies_here(values) else None
    return tally(values, rounding=rounding) if counter is None else counter.start(values, rounding=rounding)


def settled(counted: Tally | ExponentHistogram | Counting) -> Tally | ExponentHistogram:
    """Return what was tallied, once it is."""
    if not isinstance(counted, Counting):
        return counted
    counter = compiled_counter()
    assert counter is not None
    if not counted.done:
        counter.settle()
    if not counted.done and counted.held is not None:  # started before this process was forked
        return tally(counted.held, rounding=counted.rounding)
    return Tally(*counted.result())


def _lies_here(values: Tensor) -> bool:
    """Whether the values lie in this process's memory as the compiled loops read them.

    A tensor of another class (nested, distributed) tells a device too, but has no memory of its own.
    """
    if type(values) not in _PLAIN or values.layout is not torch.strided or values.dtype not in HERE:
        return False
    return values.device.type == "cpu" and not values._is_zerotensor()


def stored(values: Tensor) -> tuple[Tensor, int]:
    """Return a plain tensor of the values that are stored, and how many zeros a sparse one leaves out."""
    if values.layout is torch.jagged:
        values = values.values()
    if hasattr(values, "to_local"):  # a distributed tensor: what this process has of it
        values = values.to_local()
    if values._is_zerotensor():
        values = torch.zeros(values.shape, dtype=values.dtype, device=values.device)
    left_out = 0
    if values.layout is torch.sparse_coo:
        kept = values.coalesce().values()
        left_out, values = values.numel() - kept.numel(), kept
    elif values.layout is not torch.strided:
        values = values.to_dense()
    return values, left_out


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
    given = [np.asarray(one.table) for one in tallies]
    tables = np.concatenate(given, dtype=np.int64)
    if len(tables) > len(given):  # of some there are several tables
        tables = np.add.reduceat(tables, np.cumsum([0, *(len(table) for table in given[:-1])]), axis=0)
    rounding = tables.shape[1] > _FIELDS
    classes = tables.reshape(-1, _FIELDS, _CLASSES) if rounding else None
    by_field = tables if classes is None else classes.sum(axis=2)
    zeros = by_field[:, 0] if classes is None else classes[:, 0, _ONE]
    counts = _binned(by_field)
    counts[:, 0] -= zeros
    ones, past = None, None
    if classes is not None:
        normal = classes.copy()
        normal[:, 0] = 0  # FP32's own subnormals have no hidden one: their mantissas say nothing
        ones = _binned(normal[:, :, _ONE])
        past = {name: _binned(normal[:, :, k:_ONE].sum(axis=2)) for name, k in _CLASS_OF_FORMAT.items()}
    inf = [int(one.inf) for one in tallies]
    return ExponentHistogram.from_rows(
        counts,
        zero=zeros.tolist(),
        inf=inf,
        nan=(by_field[:, _NO_EXPONENT] - inf).tolist(),
        amax=_values([int(one.largest) for one in tallies]),
        ones=ones,
        past=past,
    )


def _values(bits: Sequence[int]) -> list[float]:
    """Return what FP32 bits stand for, also where the processor takes FP32's subnormals for zero."""
    whole = np.array(bits, np.int64)
    field, mantissa = whole >> _MANTISSA_BITS, whole & ((1 << _MANTISSA_BITS) - 1)
    significand = mantissa + (field > 0) * (1 << _MANTISSA_BITS)
    values: list[float] = np.ldexp(
        significand.astype(np.float64), np.maximum(field, 1) - _BIAS - _MANTISSA_BITS
    ).tolist()
    return values


def _binned(by_field: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Add up the counts of exponent fields into the histogram's bins, Inf and NaN left out."""
    counts: npt.NDArray[np.int64] = np.add.reduceat(by_field[:, :_NO_EXPONENT], _FIRST_FIELD_OF_BIN, axis=1)
    return counts
