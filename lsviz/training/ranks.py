"""Recording in distributed processes: the first one writes what all of them have counted.

Each process has a batch of its own, and so gradients of its own at the modules' outputs. The others hand
their counts to the first through the store by which the processes found each other. No collective operation
is used for it: one in which not every process takes part would hang the training.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from lsviz.exponents import ROUNDING_FORMATS, ExponentHistogram
from lsviz.runs.schema import ExponentRow, exponents_table
from lsviz.training.counted import CountedStep
from lsviz.training.pending import PendingStep

CountedRows = tuple[PendingStep, CountedStep, list[ExponentRow]]
"""A step, what was counted of it, and the rows that this makes."""
Store = Any
"""A `torch.distributed.Store`, which a torch without distributed lacks."""

WAIT_SECONDS: Final = 60.0
"""How long the first process waits for what another counted, before it goes on without that one."""
_MET: Final[Counter[str]] = Counter()
"""Of each name, how many recordings began in this process."""


def meet(name: str) -> Contribution | Gathering | None:
    """Return this process's part in recording; None where there is no other process.

    Args:
        name: Of the recording, the same in every process.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    rank, world = distributed.get_rank(), distributed.get_world_size()
    if world == 1:
        return None
    _MET[name] += 1
    found = distributed.distributed_c10d._get_default_store()
    if found is None:  # processes that MPI brought together: the first one records what is its own
        return Contribution(None, rank) if rank else None
    store = distributed.PrefixStore(f"lsviz/{name}/{_MET[name]}", found)  # type: ignore[attr-defined]
    return Contribution(store, rank) if rank else Gathering(store, range(1, world))


class Contribution:
    """What a process other than the first hands on.

    Args:
        store: That all processes reach; None where there is none, so that nothing is handed on.
        rank: This process's.
    """

    def __init__(self, store: Store | None, rank: int) -> None:
        self._store, self._rank = store, rank
        self._set("here")

    def send(self, step: int, rows: Iterable[ExponentRow]) -> None:
        """Hand on what was counted at a step at the modules' outputs."""
        if self._store is None:
            return
        table = exponents_table([row for row in rows if row.kind == "activation_grad"])
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, table.schema) as stream:
            stream.write_table(table)
        self._set(step, buffer.getvalue().to_pybytes())

    def end(self) -> None:
        """Tell that nothing more will come."""
        self._set("end")

    def _set(self, what: int | str, value: str | bytes = "") -> None:
        if self._store is not None:
            self._store.set(f"{self._rank}/{what}", value)


class Gathering:
    """What the first process takes from the others.

    Args:
        store: That all processes reach.
        others: Their ranks.

    Attributes:
        lost: Ranks that were waited for in vain, and are no more.
    """

    def __init__(self, store: Store, others: Iterable[int]) -> None:
        self._store, self._others = store, set(others)
        self._waiting_since: float | None = None
        self._joined = False
        self._patience = WAIT_SECONDS
        self.lost: set[int] = set()

    def hurry(self) -> None:
        """Wait for nobody any more: a training that failed does not end in the others."""
        self._patience = 0.0

    def take(self, step: int) -> list[list[ExponentRow]] | None:
        """Return what the others counted at a step; None while something of it is still to come."""
        if not self._joined:
            # A backward pass has needed all processes: who records by now will, others never do.
            self._others = {rank for rank in self._others if self._is_there(rank, "here")}
            self._joined = True
        missing = {
            rank
            for rank in self._others
            if not self._is_there(rank, "end") and not self._is_there(rank, step)
        }
        if missing:
            now = time.monotonic()
            self._waiting_since = self._waiting_since or now
            if now - self._waiting_since < self._patience:
                return None
            self._others -= missing
            self.lost |= missing
            who = ", ".join(map(str, sorted(missing)))
            sys.stderr.write(
                f"lsviz waited {self._patience:.0f} s for what the processes of rank {who} counted at step "
                f"{step}, and records on without them\n"
            )
        self._waiting_since = None
        return [self._taken(rank, step) for rank in sorted(self._others) if self._is_there(rank, step)]

    def _is_there(self, rank: int, what: int | str) -> bool:
        return bool(self._store.check([f"{rank}/{what}"]))

    def _taken(self, rank: int, step: int) -> list[ExponentRow]:
        key = f"{rank}/{step}"
        data = self._store.get(key)
        self._store.delete_key(key)
        return _rows(pa.ipc.open_stream(data).read_all())


class StepQueue:
    """A recording's steps in their order, each until it is known what other processes counted.

    Args:
        part: This process's.
    """

    def __init__(self, part: Contribution | Gathering | None = None) -> None:
        self._gathering = part if isinstance(part, Gathering) else None
        self._waiting: deque[CountedRows] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hurry(self) -> None:
        """Take what is there of the others, and wait for nothing more."""
        if self._gathering is not None:
            self._gathering.hurry()

    def add(self, steps: Iterable[CountedRows]) -> None:
        """Take in the steps that follow."""
        self._waiting.extend(steps)

    def ready(self) -> Iterator[CountedRows]:
        """Yield, and forget, the first steps as far as all is known of them."""
        while self._waiting:
            step, counted, rows = self._waiting[0]
            if self._gathering is not None and rows:
                others = self._gathering.take(step.number)
                if others is None:
                    return
                rows = summed_rows(rows, others)
            self._waiting.popleft()
            yield step, counted, rows


def summed_rows(rows: Sequence[ExponentRow], others: Sequence[Sequence[ExponentRow]]) -> list[ExponentRow]:
    """Return a step's rows with the counts of other processes added to those of the same tensors.

    Weights' gradients are the same in all processes, and stay as they are.
    """
    counted: dict[tuple[str, str], list[ExponentHistogram]] = {}
    for row in (row for part in others for row in part):
        counted.setdefault((row.tensor, row.kind), []).append(row.histogram)

    def summed(row: ExponentRow) -> ExponentRow:
        histogram = row.histogram
        for other in counted.get((row.tensor, row.kind), ()):
            histogram = histogram.merge(other)
        return replace(row, histogram=histogram)

    return [summed(row) for row in rows]


def _rows(table: pa.Table) -> list[ExponentRow]:
    return [
        ExponentRow(
            **{name: row[name] for name in ("step", "tensor", "kind", "reference", "loss_scale")},
            histogram=ExponentHistogram(
                np.array(row["counts"], np.int64),
                **{name: row[name] for name in ("zero", "inf", "nan", "amax")},
                ones=None if row["ones"] is None else np.array(row["ones"], np.int64),
                past=_past(row),
            ),
        )
        for row in table.to_pylist()
    ]


def _past(row: dict[str, Any]) -> dict[str, npt.NDArray[np.int64]] | None:
    names = [f.name for f in ROUNDING_FORMATS]
    if any(row[f"past_{name}"] is None for name in names):
        return None
    return {name: np.array(row[f"past_{name}"], np.int64) for name in names}
