"""Counting the exponents of a tensor's values where they lie, by their bits.

On the CPU compiled loops count (`lsviz.training.kernels`); on a GPU, or without a C compiler, torch
operations do (`lsviz.training.ondevice`), which never wait for the device: what they counted stays where
the tensor was until `histograms` fetches all of it at once.
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

from lsviz.exponents import BINS, MAX_EXPONENT, MIN_EXPONENT, ExponentHistogram
from lsviz.training import kernels
from lsviz.training.counter import FORMATS as COUNTED
from lsviz.training.counter import Counter, Counting
from lsviz.training.ondevice import (
    ALONE,
    LIMITS,
    MANTISSA_BITS,
    PAST_MANTISSA,
    Queue,
    Together,
    Waiting,
    count_together,
)

_BIAS: Final = 127
_FIELDS: Final = kernels.FIELDS
_NO_EXPONENT: Final = _FIELDS - 1
"""The exponent field of Inf and NaN."""
_CLASSES: Final = kernels.CLASSES
_ONE: Final = kernels.ONE
_CLASS_OF_FORMAT: Final = {
    name: int(np.searchsorted(LIMITS, first)) + 1 for name, first in PAST_MANTISSA.items()
}

# FP32's exponent fields 1..254 stand for -126..127; field 0 holds zero and FP32's own subnormals.
_BIN_OF_FIELD: Final = np.clip(np.arange(_FIELDS) - _BIAS, MIN_EXPONENT, MAX_EXPONENT) - MIN_EXPONENT
_FIRST_FIELD_OF_BIN: Final = np.searchsorted(_BIN_OF_FIELD[:_NO_EXPONENT], np.arange(BINS))

_PLAIN: Final = (Tensor, torch.nn.Parameter)
_QUEUE: Final = Queue()


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one tensor, on the host.

    Attributes:
        table: Counts by exponent field in any number of tables to be added up, shape (tables, 256), row 0
            holding zeros alone; or, with what a reference holds, by exponent field and class of mantissa,
            shape (tables, 2048).
        largest: FP32 bits of the largest finite magnitude.
        inf: How many infinities there are; they share their rows of a table of 256 with NaN.
    """

    table: npt.NDArray[Any]
    largest: int
    inf: int


@dataclass(frozen=True, slots=True)
class Seat:
    """What was counted of one tensor, on its device until it is fetched.

    Attributes:
        group: The tensors that were counted together.
        at: This one's place among them.
    """

    group: Together
    at: int

    def tally(self) -> Tally:
        """Return it as it lies on the host, once it was fetched."""
        group, at = self.group, self.at
        return Tally(group.tables[at : at + 1], group.largest[at], group.inf[at])


Tallied = Tally | Seat | ExponentHistogram


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


def tally(values: Tensor, *, rounding: bool = False) -> Tallied:
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
        return Seat(count_together([values], rounding=rounding), 0)
    threads = torch.get_num_threads()
    return settled(counter.start(values, rounding=rounding, threads=threads - 1, shared=threads))


def histograms(tallies: Sequence[Tallied]) -> list[ExponentHistogram]:
    """Return what was tallied, in the same order, fetched from its device in one go."""
    found: dict[int, ExponentHistogram] = {
        i: item for i, item in enumerate(tallies) if isinstance(item, ExponentHistogram)
    }
    counted = {i: item for i, item in enumerate(tallies) if not isinstance(item, ExponentHistogram)}
    here = dict(zip(counted, _fetched(list(counted.values())), strict=True))
    for rows in {item.table.shape[1] for item in here.values()}:
        alike = {i: item for i, item in here.items() if item.table.shape[1] == rows}
        found.update(zip(alike, _histograms(list(alike.values())), strict=True))
    return [found[i] for i in range(len(tallies))]


def extremes(
    tallies: Sequence[Tallied],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each one's largest finite magnitude, infinities and NaN, fetched from its device in one go.

    Far cheaper than `histograms`, for those who ask no more.
    """
    amax, inf, nan = (
        np.zeros(len(tallies)),
        np.zeros(len(tallies), np.int64),
        np.zeros(len(tallies), np.int64),
    )
    places = [i for i, item in enumerate(tallies) if not isinstance(item, ExponentHistogram)]
    here = _fetched([item for item in tallies if not isinstance(item, ExponentHistogram)])
    if here:
        amax[places] = _values([one.largest for one in here])
        inf[places] = [one.inf for one in here]
        nan[places] = [_without_exponent(one.table) for one in here]
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
        return Counter(kernels.load_kernels(), LIMITS)
    except kernels.KernelError:
        return None


# A forked process, such as a data loader's worker, has none of the threads and waits for nothing queued.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=compiled_counter.cache_clear)
    os.register_at_fork(after_in_child=_QUEUE.forget)


def kernel_description(device: str = "cpu") -> str:
    """Return in one sentence what counts exponents on a device, for ``lsviz doctor``."""
    if device != "cpu":
        return "torch operations on the GPU, many tensors at a time; fetched when a run is written"
    if compiled_counter() is not None:
        return f"compiled loops (kernels.c), on {torch.get_num_threads()} threads"
    if os.environ.get("LSVIZ_KERNEL") == "torch":
        return "torch operations (LSVIZ_KERNEL=torch)"
    try:
        kernels.load_kernels()
    except kernels.KernelError as error:
        return f"torch operations, about 10 times slower than compiled loops: {error}"
    return ""


def tally_later(values: Tensor, *, rounding: bool = False) -> Tallied | Counting | Waiting:
    """Count a tensor as `tally` does, beside what this thread goes on with; `settled` gives the tally.

    For tensors that nobody changes in the meantime. autograd changes no gradient that somebody else holds,
    as is done here (torch/csrc/autograd/input_buffer.cpp, accumulate_grad.h, torch 2.13).
    """
    if not _is_plain(values):
        return tally(values, rounding=rounding)
    counter = compiled_counter() if values.device.type == "cpu" else None
    if counter is not None:
        return counter.start(values, rounding=rounding)
    if values.numel() >= ALONE:
        return Seat(count_together([values], rounding=rounding), 0)
    return _QUEUE.add(values, rounding=rounding)


def settled(counted: Tallied | Counting | Waiting) -> Tallied:
    """Return what was tallied, once it is."""
    if isinstance(counted, Waiting):
        if counted.group is None:
            _QUEUE.settle()
        if counted.group is not None:
            return Seat(counted.group, counted.at)
        assert counted.held is not None  # counting many failed, or it waited before this process was forked
        return Seat(count_together([counted.held], rounding=counted.rounding), 0)
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
    """Whether the values lie in this process's memory as the compiled loops read them."""
    return values.device.type == "cpu" and _is_plain(values)


def _is_plain(values: Tensor) -> bool:
    """Whether the values lie in memory of the tensor's own, in a type that is counted by its bits.

    A tensor of another class (nested, distributed) tells a device too, but has no memory of its own.
    """
    if type(values) not in _PLAIN or values.layout is not torch.strided or values.dtype not in COUNTED:
        return False
    return not values._is_zerotensor()


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


def _fetched(tallies: Sequence[Tally | Seat]) -> list[Tally]:
    """Return tallies on the host, those from devices fetched in one transfer."""
    Together.fetch(one.group for one in tallies if isinstance(one, Seat))
    return [one.tally() if isinstance(one, Seat) else one for one in tallies]


def _histograms(tallies: Sequence[Tally]) -> list[ExponentHistogram]:
    """Return the histograms of tallies on the host, all with tables of the same width."""
    given = [one.table for one in tallies]
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
    inf = [one.inf for one in tallies]
    return ExponentHistogram.from_rows(
        counts,
        zero=zeros.tolist(),
        inf=inf,
        nan=(by_field[:, _NO_EXPONENT] - inf).tolist(),
        amax=_values([one.largest for one in tallies]),
        ones=ones,
        past=past,
    )


def _values(bits: Sequence[int]) -> list[float]:
    """Return what FP32 bits stand for, also where the processor takes FP32's subnormals for zero."""
    whole = np.array(bits, np.int64)
    field, mantissa = whole >> MANTISSA_BITS, whole & ((1 << MANTISSA_BITS) - 1)
    significand = mantissa + (field > 0) * (1 << MANTISSA_BITS)
    values: list[float] = np.ldexp(
        significand.astype(np.float64), np.maximum(field, 1) - _BIAS - MANTISSA_BITS
    ).tolist()
    return values


def _binned(by_field: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Add up the counts of exponent fields into the histogram's bins, Inf and NaN left out."""
    counts: npt.NDArray[np.int64] = np.add.reduceat(by_field[:, :_NO_EXPONENT], _FIRST_FIELD_OF_BIN, axis=1)
    return counts
