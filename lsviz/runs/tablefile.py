"""Reading one Parquet file of a run: only what is as it was written, the rest named."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from lsviz.runs.schema import ROW_GROUPS, TENSORS
from lsviz.runs.sealing import Chunks, DamagedError, is_whole, read_seal

READ_ERRORS: Final = (
    *(pa.ArrowException, OSError, LookupError, ValueError),
    *(TypeError, OverflowError, RecursionError, MemoryError),
)
"""What reading a file raises that is not what it should be."""
_SMALL: Final = 1 << 20
_ROWS_AT_ONCE: Final = 4096
"""Of which the unwanted ones are in memory too, for a moment: some 10 MB with all their counts."""


class TableFile:
    """An open file of a table. Made by `open_table`.

    Attributes:
        sealed: Whether its footer is known to be as it was written.
        damaged: Row groups that were asked for and are left out.
    """

    def __init__(self, source: pa.NativeFile, chunks: Chunks | None) -> None:
        self._source, self._chunks = source, chunks
        self.sealed = chunks is not None
        # Without a buffer made before: what is read at a time is little, whatever the file declares.
        self._parquet = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
        self.metadata: pq.FileMetaData = self._parquet.metadata
        self.damaged: list[int] = []

    @property
    def groups(self) -> range:
        """The numbers of its row groups."""
        return range(self.metadata.num_row_groups)

    @property
    def schema(self) -> pa.Schema:
        """Its columns and their types."""
        return self._parquet.schema_arrow

    @property
    def group_names(self) -> list[tuple[str, str]] | None:
        """Tensor and kind of each row group, where the file tells."""
        return self._names(ROW_GROUPS)

    @property
    def tensors(self) -> list[tuple[str, str]] | None:
        """Tensors and kinds in the order that they were recorded in, where the file tells."""
        return self._names(TENSORS)

    def groups_with(self, steps: Iterable[int]) -> list[int]:
        """Return the row groups that may hold one of these steps."""
        wanted = list(steps)
        place = self.metadata.schema.names.index("step")
        found = []
        for i in self.groups:
            known = self.metadata.row_group(i).column(place).statistics
            if known is None or not known.has_min_max or any(known.min <= s <= known.max for s in wanted):
                found.append(i)
        return found

    def read(
        self,
        columns: Sequence[str],
        groups: Sequence[int] | None = None,
        keep: Callable[[pa.Table], pa.Table] | None = None,
        *,
        use_threads: bool = True,
    ) -> pa.Table:
        """Return these columns of these row groups.

        Args:
            columns: Their names, in order.
            groups: Row groups; all by default.
            keep: Takes some rows and returns those that are wanted, so that the rest soon takes no memory.
            use_threads: Whether columns are decoded side by side.
        """
        whole = [i for i in (self.groups if groups is None else groups) if self._is_whole(i, columns)]
        wanted = list(columns)

        def read(some: Sequence[int]) -> pa.Table:
            return self._parquet.read_row_groups(some, columns=wanted, use_threads=use_threads)

        if keep is None or not whole:
            table = read(whole)
        else:
            table = pa.concat_tables([keep(read(some)) for some in self._together(whole)])
        table = table.select(wanted)
        if self._chunks is None:
            table.validate(full=True)
        return table

    def pieces(self, group: int, columns: Sequence[str], at_once: int) -> Iterator[pa.Table]:
        """Yield a row group's rows, so many at a time.

        Raises:
            DamagedError: It is not as it was written.
        """
        if not self._is_whole(group, columns):
            raise DamagedError("a column's checksum (CRC) is another")
        found = 0
        for batch in self._parquet.iter_batches(at_once, [group], columns, use_threads=False):
            found += len(batch)
            yield pa.Table.from_batches([batch]).select(list(columns))
        if found != self.metadata.row_group(group).num_rows:
            raise DamagedError("it has fewer rows than it says")

    def _together(self, groups: Sequence[int]) -> Iterator[list[int]]:
        """Yield row groups, as many at a time as have few rows: a read alone costs as much as 100 rows."""
        some: list[int] = []
        rows = 0
        for i in groups:
            more = self.metadata.row_group(i).num_rows
            if some and rows + more > _ROWS_AT_ONCE:
                yield some
                some, rows = [], 0
            some.append(i)
            rows += more
        if some:
            yield some

    def _is_whole(self, group: int, columns: Sequence[str]) -> bool:
        if self._chunks is None:
            return True  # the pages' own checksums are all there is
        wanted = set(columns)
        schema = self.metadata.schema
        places = [j for j in range(len(schema)) if schema.column(j).path.partition(".")[0] in wanted]
        if all(is_whole(self._source, self._chunks[group, j]) for j in places):
            return True
        self.damaged.append(group)
        return False

    def _names(self, key: bytes) -> list[tuple[str, str]] | None:
        text = (self._parquet.schema_arrow.metadata or {}).get(key)
        return None if text is None else [(str(tensor), str(kind)) for tensor, kind in json.loads(text)]


@contextlib.contextmanager
def open_table(path: Path) -> Iterator[TableFile]:
    """Open a file of a table whose footer, if it is sealed, is as it was written.

    Raises:
        FileNotFoundError: There is none.
        DamagedError: It is no plain file, or not as it was written.
        pyarrow.ArrowException: It is no Parquet file.
    """
    with contextlib.ExitStack() as stack:
        if require_plain(path) <= _SMALL:
            source = stack.enter_context(pa.BufferReader(path.read_bytes()))
        else:
            source = stack.enter_context(pa.OSFile(str(path)))
        yield TableFile(source, read_seal(source))


def require_plain(path: Path) -> int:
    """Return a file's size.

    Raises:
        FileNotFoundError: There is none.
        DamagedError: It is a pipe, a device or a folder: reading one may never end.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DamagedError("it is no plain file")
    return found.st_size
