"""Counting exponents by torch operations where tensors lie: many at a time, without waiting for the device.

On a GPU an operation on a small tensor takes as long as one on a large one, so that tensors are held until
there are many of them, and then counted as one. What was counted stays there until it is fetched.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lsviz.exponents import ROUNDING_FORMATS, overflow_significand
from lsviz.training.kernels import CLASSES, FIELDS, ONE

MANTISSA_BITS: Final = 23
PAST_MANTISSA: Final = {
    # First mantissa past the rounding point: the point itself, or the one after it where the tie
    # rounds down.
    fmt.name: int((overflow_significand(fmt) - 1) * 2**MANTISSA_BITS) + (not fmt.overflows_at_limit)
    for fmt in ROUNDING_FORMATS
}
LIMITS: Final[npt.NDArray[np.uint32]] = np.array(sorted(PAST_MANTISSA.values()), np.uint32)
"""Mantissas that bound the classes, ascending."""

ALONE: Final = 1 << 22
"""A tensor of so many values is counted by itself, at once."""
MOST_VALUES: Final = 1 << 24
"""Values that are held, and that operations take at a time: each needs some 30 bytes for as long."""
_MAGNITUDE: Final = 0x7FFFFFFF
_INF: Final = 0x7F800000
_NO_EXPONENT: Final = FIELDS - 1
_LANES: Final = 64
"""Tables a tensor on a GPU: atomic additions to one bin would wait for each other."""
_RAW_STREAM: Final = getattr(torch._C, "_cuda_getCurrentRawStream", None)
"""Ten times as fast as `torch.cuda.current_stream`, but not of torch's public interface."""
_WIDTH: Final = 512
"""Values of a row: every tensor starts a row of its own, so that zeros fill up the one before."""


class Together:
    """Tables of tensors that were counted together, where they were counted until `fetch`.

    Args:
        tables: Counts by exponent field, shape (tensors, 257), Inf in the last column but one and NaN in the
            last; or by field and class of mantissa, shape (tensors, 2048).
        largest: FP32 bits of the largest finite magnitudes, shape (tensors,).
        filled: How many zeros were counted that no tensor holds, of each tensor.

    Attributes:
        tables: After `fetch`, counts by exponent field, Inf and NaN in the last column, shape
            (tensors, 256); or by field and class, shape (tensors, 2048).
        largest: After `fetch`, FP32 bits of the largest finite magnitudes.
        inf: After `fetch`, how many infinities there are.
    """

    def __init__(self, tables: Tensor, largest: Tensor, filled: Sequence[int]) -> None:
        self._numbers: Tensor | None = torch.cat([tables, largest[:, None].to(tables.dtype)], 1)
        self._filled = filled
        self.tables: npt.NDArray[np.int64] = np.empty((0, 0), np.int64)
        self.largest: list[int] = []
        self.inf: list[int] = []

    @staticmethod
    def fetch(groups: Iterable[Together]) -> None:
        """Fetch what was not yet fetched, in one transfer from each device."""
        waiting: dict[torch.device, list[Together]] = defaultdict(list)
        for group in {id(group): group for group in groups}.values():
            if group._numbers is not None:
                waiting[group._numbers.device].append(group)
        for mine in waiting.values():
            numbers = [group._numbers for group in mine if group._numbers is not None]
            fetched = torch.cat([part.flatten() for part in numbers]).cpu().numpy()
            for group, part in zip(mine, numbers, strict=True):
                group._keep(fetched[: part.numel()].reshape(tuple(part.shape)))
                fetched = fetched[part.numel() :]

    def _keep(self, numbers: npt.NDArray[np.int64]) -> None:
        self._numbers, self.largest, tables = None, numbers[:, -1].tolist(), numbers[:, :-1]
        if tables.shape[1] == FIELDS * CLASSES:
            self.inf = tables[:, _NO_EXPONENT * CLASSES + ONE].tolist()
            tables[:, ONE] -= self._filled
        else:
            self.inf = tables[:, _NO_EXPONENT].tolist()
            tables[:, _NO_EXPONENT] += tables[:, FIELDS]
            tables = tables[:, :FIELDS]
            tables[:, 0] -= self._filled
        self.tables = tables


class Waiting:
    """A tensor that waits for others, to be counted with them.

    Attributes:
        held: The tensor; None once it is counted.
        rounding: Whether it is counted by class of mantissa too.
        group: With what it was counted.
        at: Its place there.
    """

    __slots__ = ("_stream", "at", "group", "held", "rounding")

    def __init__(self, values: Tensor, rounding: bool) -> None:
        self.held: Tensor | None = values
        self.rounding = rounding
        self.group: Together | None = None
        self.at = 0
        self._stream = _stream_at(values.device) if values.is_cuda else 0

    def join(self) -> None:
        """Have the stream of whoever counts come after what made the tensor."""
        held = self.held
        if held is None or not held.is_cuda or self._stream == _stream_at(held.device):
            return
        current = torch.cuda.current_stream(held.device)
        current.wait_stream(torch.cuda.ExternalStream(self._stream, held.device))  # type: ignore[no-untyped-call]
        held.record_stream(current)


def _stream_at(device: torch.device) -> int:
    """Return the address of a device's current stream, many times a step."""
    if _RAW_STREAM is not None:
        return int(_RAW_STREAM(device.index))
    return int(torch.cuda.current_stream(device).cuda_stream)


class Queue:
    """Holds tensors until they are many, or somebody asks."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: another thread of the process that this one was forked from may have been at it."""
        self._waiting: list[Waiting] = []
        self._values = 0
        self._lock = threading.RLock()

    def add(self, values: Tensor, *, rounding: bool) -> Waiting:
        """Have a tensor counted with others: nobody may change it until it is.

        Args:
            values: FP32, FP16 or BF16.
            rounding: Count by class of mantissa too.
        """
        one = Waiting(values, rounding)
        with self._lock:
            self._waiting.append(one)
            self._values += values.numel()
            if self._values > MOST_VALUES:
                self.settle()
        return one

    def settle(self) -> None:
        """Count all that wait."""
        with self._lock:
            waiting, self._waiting, self._values = self._waiting, [], 0
            alike: dict[Any, list[Waiting]] = defaultdict(list)
            for one in waiting:
                assert one.held is not None
                one.join()
                alike[one.held.device, one.held.dtype, one.rounding].append(one)
            for (_, _, rounding), mine in alike.items():
                group = count_together([one.held for one in mine if one.held is not None], rounding=rounding)
                for at, one in enumerate(mine):
                    one.group, one.at, one.held = group, at, None


@torch.no_grad()
def count_together(tensors: Sequence[Tensor], *, rounding: bool = False) -> Together:
    """Count tensors with torch operations alone, on their device and without waiting for it.

    Args:
        tensors: All of one device and one type: FP32, FP16 or BF16.
        rounding: Count by class of mantissa too.
    """
    flat = [tensor.reshape(-1) for tensor in tensors]
    if len(flat) == 1:
        return _one(flat[0], rounding)
    device, sizes = flat[0].device, tuple(len(part) for part in flat)
    lanes = _lanes(device)
    columns = FIELDS * CLASSES if rounding else FIELDS + 1
    owners, bases, filled = _plan(sizes, device, lanes * columns)
    pieces = []
    for part, missing in zip(flat, filled, strict=True):
        pieces.append(part)
        if missing:
            pieces.append(_zeros(device, part.dtype)[:missing])
    bits = _bits(torch.cat(pieces)).view(-1, _WIDTH)
    of_rows = torch.where(bits < _INF, bits, 0).amax(1) if len(bits) else bits.new_zeros(0)
    largest = torch.zeros(len(flat), dtype=torch.int32, device=device).scatter_reduce_(
        0, owners, of_rows, "amax"
    )
    places = _rows(bits, rounding)
    if lanes > 1:
        places += _lane_starts(device, columns)
    tables = torch.zeros(len(flat) * lanes * columns, dtype=torch.int64, device=device)
    tables.scatter_add_(0, (places + bases).view(-1), _ones(device).expand(bits.numel()))
    return Together(tables.view(len(flat), lanes, columns).sum(1), largest, filled)


def _one(flat: Tensor, rounding: bool) -> Together:
    """Count a tensor of any size, piece by piece."""
    device = flat.device
    lanes = _lanes(device)
    columns = FIELDS * CLASSES if rounding else FIELDS + 1
    table = torch.zeros(lanes * columns, dtype=torch.int64, device=device)
    largest = torch.zeros(1, dtype=torch.int32, device=device)
    for part in torch.split(flat, MOST_VALUES) if flat.numel() else ():
        bits = _bits(part)
        largest = torch.maximum(largest, torch.where(bits < _INF, bits, 0).max())
        places = _rows(bits, rounding).long()
        if lanes > 1:
            places += torch.arange(len(places), device=device).remainder_(lanes).mul_(columns)
        table.scatter_add_(0, places, _ones(device).expand_as(places))
    return Together(table.view(1, lanes, columns).sum(1), largest, (0,))


def _bits(values: Tensor) -> Tensor:
    """Return FP32 bits of the magnitudes, shape (values,), int32."""
    return values.to(torch.float32).view(torch.int32) & _MAGNITUDE


def _rows(bits: Tensor, rounding: bool) -> Tensor:
    """Return each value's row of its table, int32."""
    if not rounding:
        return torch.maximum(bits >> MANTISSA_BITS, bits.clamp(max=1)) + (bits > _INF)
    mantissas = bits & ((1 << MANTISSA_BITS) - 1)
    classes = torch.zeros_like(bits)
    for limit in LIMITS.tolist():
        classes += mantissas >= limit
    return (bits >> MANTISSA_BITS) * CLASSES + torch.where(mantissas == 0, ONE, classes)


def _lanes(device: torch.device) -> int:
    return _LANES if device.type != "cpu" else 1


@lru_cache(maxsize=64)
def _plan(sizes: tuple[int, ...], device: torch.device, stride: int) -> tuple[Tensor, Tensor, list[int]]:
    """Return which tensor each row is of, where that one's tables begin, and what fills each last row."""
    rows = [-(-size // _WIDTH) for size in sizes]
    owners = _sent(np.repeat(np.arange(len(sizes)), rows), device)
    filled = [number * _WIDTH - size for number, size in zip(rows, sizes, strict=True)]
    return owners, (owners * stride)[:, None], filled


def _sent(numbers: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Return numbers on a device, without waiting for it."""
    here = torch.from_numpy(numbers)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)


@lru_cache(maxsize=16)
def _zeros(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.zeros(_WIDTH, dtype=dtype, device=device)


@lru_cache(maxsize=16)
def _ones(device: torch.device) -> Tensor:
    return torch.ones((), dtype=torch.int64, device=device)


@lru_cache(maxsize=16)
def _lane_starts(device: torch.device, columns: int) -> Tensor:
    """Return what to add to each column of a row of values: neighbours go to tables of their own."""
    return torch.arange(_WIDTH, dtype=torch.int32, device=device).remainder_(_LANES).mul_(columns)
