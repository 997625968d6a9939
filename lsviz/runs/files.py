"""Writing a file of a run folder whole: under another name first, then renamed into its place."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from lsviz.errors import UserError
from lsviz.runs.sealing import DamagedError, put_seal

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


def unwritable(root: Path, error: OSError) -> RunFolderError:
    """Return what to raise where a folder takes no runs.

    Args:
        root: The folder.
        error: What the system said.
    """
    reason = error.strerror or type(error).__name__
    return RunFolderError(
        f"can't write runs to {str(root)!r} ({reason}); choose a folder that you can write to"
    )


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
    """Write strict JSON and rename it into place.

    Raises:
        OSError: Not all of it reached the disk; nothing has changed then.
    """
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and rename it into place.

    Raises:
        OSError: Not all of it reached the disk; nothing has changed then.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        # A full disk can shorten a write without an exception.
        if temporary.stat().st_size != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table, sealed, and rename it into place. It is made in memory: for small ones.

    Raises:
        RunFolderError: Not all of it reached the disk; nothing has changed then.
    """
    made = io.BytesIO()
    with pq.ParquetWriter(made, table.schema, **PARQUET) as writer:
        writer.write_table(table)
    put_seal(made)
    try:
        write_bytes(path, made.getvalue())
    except OSError as error:
        raise not_written(path, error) from None


@contextlib.contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Give a writer of a file that takes its place, sealed, only when all of it is written.

    Raises:
        RunFolderError: Not all of it reached the disk; nothing has changed then.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with pq.ParquetWriter(temporary, schema, **PARQUET) as writer:
            yield writer
        # A full disk can shorten a write without an exception: sealing reads all that was written again,
        # and then the footer proves that the seal is there too.
        try:
            with temporary.open("r+b") as file:
                put_seal(file)
            pq.read_metadata(temporary)
        except pa.ArrowException:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, DamagedError):
            raise not_written(path, error) from None
        raise


def not_written(path: Path, error: OSError) -> RunFolderError:
    """Return the error of a file that could not be written, in one line."""
    told = error.strerror or str(error).partition("\n")[0]
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):
        return RunFolderError(f"can't write {path.name}: is the disk full? ({told})")
    return RunFolderError(f"can't write {path.name} ({told})")
