"""Putting an ended run's parts together: one file a table, a tensor's history or a step read in a moment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lsviz.runs.files import parquet_writer, write_parquet
from lsviz.runs.schema import BY_STEP, EXPONENTS_SCHEMA, ROW_GROUPS, STEPS_SCHEMA, TENSORS
from lsviz.runs.sealing import DamagedError
from lsviz.runs.series import AMAX_SCHEMA, OUTCOMES_SCHEMA
from lsviz.runs.tablefile import open_table
from lsviz.runs.updatecheck import UPDATES_SCHEMA

ROWS_AT_ONCE: Final = 5_000
"""Rows of exponents that are put together in memory at a time, at least: half a kilobyte each."""
BATCHES: Final = 20
"""No more batches than that, since each has a piece of its own of every part."""

BY_STEP_ROWS: Final = 5_000
"""Rows of a row group in the file by step: decoded in a few milliseconds."""
BY_STEP_FROM: Final = 20_000
"""Of fewer rows in all, one step is read from the file by tensor as fast."""

IN_ORDER: Final = {
    "steps": STEPS_SCHEMA,
    "amax": AMAX_SCHEMA,
    "outcomes": OUTCOMES_SCHEMA,
    "updates": UPDATES_SCHEMA,
}
"""Tables whose rows stay in the order that they were written in."""
OPTIONAL: Final = frozenset({"updates"})
"""Tables of runs that asked for them: without rows there is no file."""

_BETWEEN: Final = "\0"

Item = TypeVar("Item")


def compact(path: Path) -> None:
    """Put a run's parts together: each table in one file, exponents with one row group a tensor.

    Each file stands at the end, empty where nothing was recorded (none of an OPTIONAL table); a long run
    has its exponents by step in one more (`schema.BY_STEP`). The parts are removed only when the whole
    file stands in their place; a whole file that is there already is complete, and parts beside it are
    leftovers of a removal that was cut short.

    Raises:
        OSError: A part's page is corrupt, or the disk is full; the parts stay as they are.
        pyarrow.ArrowException: A part is torn; the parts stay as they are.
    """
    done = []
    for name, schema in IN_ORDER.items():
        parts = sorted(path.glob(f"{name}-*.parquet"))
        if not (path / f"{name}.parquet").exists() and (parts or name not in OPTIONAL):
            tables = [schema.empty_table(), *(_verified(part, schema) for part in parts)]
            write_parquet(path / f"{name}.parquet", pa.concat_tables(tables).unify_dictionaries())
        done += parts
    parts = sorted(path.glob("exponents-*.parquet"))
    if not (path / "exponents.parquet").exists():
        _write_exponents(path, parts)
    for left in [*done, *parts, *path.glob(".*.parquet.tmp")]:  # the last of a process that was killed
        left.unlink(missing_ok=True)


def _verified(part: Path, schema: pa.Schema) -> pa.Table:
    # What is corrupt would else get a fresh, valid checksum in the whole file.
    with open_table(part) as file:
        table = file.read(schema.names, use_threads=False).cast(schema)
        if file.damaged:
            raise DamagedError(f"{part.name}: a column's checksum (CRC) is another")
        return table


def _write_exponents(path: Path, parts: Sequence[Path]) -> None:
    key_schema = pa.schema([EXPONENTS_SCHEMA.field(name) for name in ("tensor", "kind")])
    keys = pa.chunked_array([c for p in parts for c in _keys(_verified(p, key_schema)).chunks], pa.string())
    numbers = pc.value_counts(keys)  # in the order of first appearance
    names, rows = numbers.field("values"), numbers.field("counts").to_numpy()
    batches = list(_batches(rows, max(ROWS_AT_ONCE, len(keys) // BATCHES)))
    groups = [key.rsplit(_BETWEEN, 1) for key in names.to_pylist()]
    shelf = _Shelf(names, batches)
    (path / BY_STEP).unlink(missing_ok=True)  # of a time before, when there were other parts
    with contextlib.ExitStack() as stack:
        add = stack.enter_context(_by_step(path / BY_STEP, groups)) if len(keys) >= BY_STEP_FROM else None
        for table in _ahead(lambda part: _verified(part, EXPONENTS_SCHEMA), parts):
            if add:
                add(table)
            shelf.add(table)
            pa.default_memory_pool().release_unused()
    schema = EXPONENTS_SCHEMA.with_metadata({ROW_GROUPS: json.dumps(groups).encode()})
    with parquet_writer(path / "exponents.parquet", schema) as writer:
        for (first, last), table in zip(batches, _ahead(shelf.take, range(len(batches))), strict=True):
            start = 0
            for length in rows[first:last].tolist():
                writer.write_table(table.slice(start, length), row_group_size=max(1, length))
                start += length
            pa.default_memory_pool().release_unused()


class _Shelf:
    """Rows of all parts, compressed, each with the batch of tensors that it will be written in.

    So a part is read once, whatever the number of batches, and a long run takes little memory.
    """

    def __init__(self, names: pa.Array, batches: Sequence[tuple[int, int]]) -> None:
        self._names = names
        self._ends = np.array([last for _, last in batches])
        self._kept: list[list[pa.Buffer]] = [[] for _ in batches]
        self._options = pa.ipc.IpcWriteOptions(compression="lz4")

    def add(self, table: pa.Table) -> None:
        """Keep a part's rows."""
        batch = np.searchsorted(self._ends, self._place(table), side="right")
        if len(self._kept) > 1:
            table = table.take(pa.array(np.argsort(batch, kind="stable")))
        start = 0
        for number, length in enumerate(np.bincount(batch, minlength=len(self._kept)).tolist()):
            if length:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, table.schema, options=self._options) as stream:
                    stream.write_table(table.slice(start, length))
                self._kept[number].append(sink.getvalue())
                start += length

    def take(self, number: int) -> pa.Table:
        """Return a batch's rows, tensor by tensor, the reference's after its own, each by step."""
        kept, self._kept[number] = self._kept[number], []
        tables = [pa.ipc.open_stream(buffer).read_all() for buffer in kept]
        table = pa.concat_tables(tables).combine_chunks()
        order = np.lexsort((table["step"].to_numpy(), table["reference"].to_numpy(), self._place(table)))
        return table.take(pa.array(order)) if (np.diff(order) != 1).any() else table

    def _place(self, table: pa.Table) -> npt.NDArray[np.int64]:
        places: npt.NDArray[np.int64] = pc.index_in(_keys(table), value_set=self._names).to_numpy()
        return places


@contextlib.contextmanager
def _by_step(path: Path, groups: Sequence[Sequence[str]]) -> Iterator[Callable[[pa.Table], None]]:
    """Give a function that takes rows as they were recorded and has a thread write them, step after step."""
    schema = EXPONENTS_SCHEMA.with_metadata({TENSORS: json.dumps(groups).encode()})
    waiting: list[pa.Table] = []
    written: Future[None] | None = None

    def write() -> None:
        nonlocal written
        if written is not None:
            written.result()  # so that never more than one table waits
        table = pa.concat_tables([EXPONENTS_SCHEMA.empty_table(), *waiting])
        waiting.clear()
        written = thread.submit(writer.write_table, table, row_group_size=BY_STEP_ROWS)

    def add(table: pa.Table) -> None:
        waiting.append(table)
        if sum(map(len, waiting)) >= BY_STEP_ROWS:
            write()

    with parquet_writer(path, schema) as writer, ThreadPoolExecutor(1, "lsviz-compaction") as thread:
        yield add
        write()
        if written is not None:
            written.result()


def _ahead(function: Callable[[Item], pa.Table], items: Sequence[Item]) -> Iterator[pa.Table]:
    """Yield function(item) of each item, the next one in the making meanwhile."""
    with ThreadPoolExecutor(1, "lsviz-compaction") as thread:
        made: Future[pa.Table] | None = None
        for item in items:
            following = thread.submit(function, item)
            if made is not None:
                yield made.result()
            made = following
        if made is not None:
            yield made.result()


def _keys(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["tensor"], table["kind"], _BETWEEN)


def _batches(rows: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of consecutive tensors that have at most so many rows together, or one alone."""
    first, held = 0, 0
    for i, number in enumerate(rows.tolist()):
        if held and held + number > most:
            yield first, i
            first, held = i, 0
        held += number
    if held:
        yield first, len(rows)
