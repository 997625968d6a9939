"""Writing a file of a run folder whole: under another name first, then renamed into its place."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from lsviz.errors import UserError

PARQUET: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 3,
    "write_page_checksum": True,
    # Counts are nearly all zeros: a dictionary of them costs more time than it saves room.
    "use_dictionary": ["tensor", "kind", "dtype"],
    "write_statistics": ["step"],
}
"""How every Parquet file of ours is written."""


class RunFolderError(UserError):
    """A run folder can't be made or written; the message says why and what would help."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give another name beside a file to write to; it takes the file's place once all is written.

    A reader never sees half of it, and after an error all is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """Give the same for a file that a person named.

    Raises:
        RunFolderError: It can't be written.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise RunFolderError(f"can't write {str(path)!r}: {error.strerror or error}") from None


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write strict JSON and rename it into place."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table and rename it into place.

    Raises:
        RunFolderError: Not all of it reached the disk; nothing has changed then.
    """
    with parquet_writer(path, table.schema) as writer:
        writer.write_table(table)


@contextlib.contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Give a writer of a file that takes its place only when all of it is written.

    Raises:
        RunFolderError: Not all of it reached the disk; nothing has changed then.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with pq.ParquetWriter(temporary, schema, **PARQUET) as writer:
            yield writer
        # A full disk can shorten a write without an exception: the footer proves that all of it is there.
        try:
            pq.read_metadata(temporary)
        except (pa.ArrowInvalid, OSError):
            raise RunFolderError(f"can't write {path.name}: is the disk full?") from None
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
