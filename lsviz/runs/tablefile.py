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


class TableFile:
    """An open file of a table. Made by `open_table`.

    Attributes:
        damaged: Row groups that were asked for and are left out.
    """

    def __init__(self, source: pa.NativeFile, chunks: Chunks | None) -> None:
        self._source, self._chunks = source, chunks
        self._parquet = pq.ParquetFile(source, page_checksum_verification=True)
        self.metadata: pq.FileMetaData = self._parquet.metadata
        self.damaged: list[int] = []

    @property
    def groups(self) -> range:
        """The numbers of its row groups."""
        return range(self.metadata.num_row_groups)

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
            keep: Takes a row group and returns what is wanted of it, so that the rest takes no memory.
            use_threads: Whether columns are decoded side by side.
        """
        whole = [i for i in (self.groups if groups is None else groups) if self._is_whole(i, columns)]
        wanted = list(columns)

        def read(some: Sequence[int]) -> pa.Table:
            return self._parquet.read_row_groups(some, columns=wanted, use_threads=use_threads)

        if keep is None or not whole:
            table = read(whole)
        else:
            table = pa.concat_tables([keep(read([i])) for i in whole])
        table = table.select(wanted)
        if self._chunks is None:
            table.validate(full=True)
        return table

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
