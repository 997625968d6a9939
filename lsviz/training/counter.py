"""Counting on the CPU by the compiled loops, beside whoever asks: jobs go to threads that need no Python."""

from __future__ import annotations

import threading
from collections import deque
from struct import pack_into
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lsviz.training import kernels

SLOTS: Final = 64
"""Tables that are made at a time."""
MOST_BYTES: Final = 1 << 26
"""Memory of gradients that is held for jobs in the queue; whoever asks for more helps to count first."""
_MOST: Final = 1 << 31
"""Values that one table of 32-bit counts takes."""
_SHARED_FROM: Final = 1 << 19
"""Fewer values are counted sooner than a second thread has begun."""
_FORMS: Final = {torch.float32: kernels.FP32, torch.float16: kernels.FP16, torch.bfloat16: kernels.BF16}
FORMATS: Final = frozenset(_FORMS)
"""What can be counted here."""
_JOB, _LARGEST, _INF, _DONE = "5q", 5, 6, 7
_JOB_BYTES: Final = 8 * kernels.JOB


class Counting:
    """One tensor in the queue.

    Attributes:
        held: The tensor; None once it is counted.
        bytes: Memory that is held for it.
        rounding: Whether it is counted by class of mantissa too.
    """

    __slots__ = ("_first", "_parts", "_tables", "bytes", "held", "rounding")

    def __init__(
        self, held: Tensor, size: int, rounding: bool, tables: _Tables, first: int, parts: int
    ) -> None:
        self.held: Tensor | None = held
        self.rounding = rounding
        self.bytes = size
        self._tables, self._first, self._parts = tables, first, parts

    @property
    def done(self) -> bool:
        """Whether all of it is counted."""
        jobs = self._tables.jobs
        return all(jobs.item(self._first + part, _DONE) for part in range(self._parts))

    def result(self) -> tuple[npt.NDArray[np.uint32], int, int]:
        """Return its tables, to be added up, the FP32 bits of its largest magnitude, and how many are Inf."""
        first, tables = self._first, self._tables
        if self._parts == 1:
            jobs = tables.jobs
            return tables.counts[first : first + 1], jobs.item(first, _LARGEST), jobs.item(first, _INF)
        mine = tables.jobs[first : first + self._parts]
        largest, inf = int(mine[:, _LARGEST].max()), int(mine[:, _INF].sum())
        return tables.counts[first : first + self._parts], largest, inf


class Counter:
    """Hands tensors to the threads of the compiled library.

    Args:
        library: As `kernels.load_kernels` returns it.
        limits: Mantissas that bound the classes, ascending; of 32 bits.
    """

    def __init__(self, library: Any, limits: npt.NDArray[np.uint32]) -> None:
        self._library = library
        self._limits = limits
        self._limits_at = limits.ctypes.data
        self._lock = threading.Lock()
        self._fields = _Tables(kernels.FIELDS, 0)
        self._classes = _Tables(kernels.FIELDS * kernels.CLASSES, 0)
        self._underway: deque[Counting] = deque()
        self._bytes = 0

    def start(self, values: Tensor, *, rounding: bool, threads: int = 1, shared: int = 1) -> Counting:
        """Have a tensor counted beside this thread. It is held for as long: nobody may change it.

        Args:
            values: FP32, FP16 or BF16 on the CPU.
            rounding: Count by class of mantissa too.
            threads: How many count, beside this one.
            shared: Into how many parts a large tensor is cut.
        """
        # The gradient itself where it lies flat: autograd looks at who holds the gradient.
        flat = values if values.is_contiguous() else values.detach().contiguous()
        size, width, start = flat.numel(), flat.element_size(), flat.data_ptr()
        form, limits = _FORMS[values.dtype], self._limits_at if rounding else 0
        parts = 1 if size < _SHARED_FROM else max(shared, -(-size // _MOST))
        with self._lock:
            tables = self._room(rounding, parts)
            first, address = tables.used, tables.jobs_at + tables.used * _JOB_BYTES
            for part in range(parts):
                begin, end = size * part // parts, size * (part + 1) // parts
                table = tables.counts_at + tables.used * tables.width
                pack_into(
                    _JOB, tables.buffer, tables.used * _JOB_BYTES,
                    start + begin * width, end - begin, form, limits, table,
                )  # fmt: skip
                tables.used += 1
            counting = Counting(flat, size * width, rounding, tables, first, parts)
            self._underway.append(counting)
            self._bytes += counting.bytes
        self._library.count_beside(address, parts, threads)
        self._drop_done()
        if self._bytes > MOST_BYTES:
            self.settle()
        return counting

    def settle(self) -> None:
        """Return when all that was started is counted; this thread helps."""
        self._library.settle()
        self._drop_done()

    def _room(self, rounding: bool, parts: int) -> _Tables:
        tables = self._classes if rounding else self._fields
        if tables.used + parts <= len(tables.jobs):
            return tables
        tables = _Tables(tables.counts.shape[1], max(SLOTS, parts))
        if rounding:
            self._classes = tables
        else:
            self._fields = tables
        return tables

    def _drop_done(self) -> None:
        with self._lock:
            while self._underway and self._underway[0].done:
                first = self._underway.popleft()
                self._bytes -= first.bytes
                first.held = None


class _Tables:
    """Tables and jobs in large pieces, since making each alone takes longer than counting a small tensor."""

    def __init__(self, rows: int, number: int) -> None:
        self.counts = np.zeros((number, rows), np.uint32)
        self.jobs = np.zeros((number, kernels.JOB), np.int64)
        self.buffer = self.jobs.data.cast("B") if number else memoryview(b"")
        self.counts_at, self.jobs_at = self.counts.ctypes.data, self.jobs.ctypes.data
        self.width = self.counts.itemsize * rows
        self.used = 0
