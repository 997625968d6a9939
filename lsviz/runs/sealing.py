"""A seal in each Parquet file: checksums of its footer and of every column of every row group.

Page checksums leave out the pages' headers and the footer, where one flipped bit moves rows, or hides them.
The seal stands between the data and the footer, where Parquet has no say: every other program reads the
file as before, and a file without one (of an older lsviz) is read with its page checksums alone.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_MARK: Final = b"lsviz\x9e\xd1\x07\xa2\xc8\x5b\xf0\x33\xee\x91\x1d"
_HEAD: Final = struct.Struct("<IIII16s")
"""Checksum of footer, length and magic; checksum of the chunks; row groups; columns; the mark."""
_CHUNK: Final = np.dtype([("start", "<u8"), ("length", "<u8"), ("crc", "<u4")])
_END: Final = struct.Struct("<I4s")
_AT_ONCE: Final = 1 << 22
_LOOKED_THROUGH: Final = 1 << 20

Chunks = npt.NDArray[Any]
"""Of shape (row groups, columns), fields ``start``, ``length`` and ``crc``."""


class DamagedError(OSError):
    """A file is not as it was written."""


def put_seal(file: IO[bytes]) -> None:
    """Seal a whole Parquet file, open for reading and writing.

    Raises:
        OSError: The disk is full.
        pyarrow.ArrowException: It is no whole Parquet file.
    """
    file.seek(0)
    metadata = pq.read_metadata(file)
    groups, columns = metadata.num_row_groups, metadata.num_columns
    chunks = np.zeros((groups, columns), _CHUNK)
    for i in range(groups):
        group = metadata.row_group(i)
        for j in range(columns):
            column = group.column(j)
            start = min(
                at for at in (column.dictionary_page_offset, column.data_page_offset) if at is not None
            )
            length = column.total_compressed_size
            chunks[i, j] = start, length, _checksum(file, start, length)
    file.seek(-_END.size, 2)
    end = file.read()
    file.seek(-_END.size - metadata.serialized_size, 2)
    at = file.tell()
    footer = file.read(metadata.serialized_size) + end
    listed = chunks.tobytes()
    file.seek(at)
    file.write(listed + _HEAD.pack(zlib.crc32(footer), zlib.crc32(listed), groups, columns, _MARK) + footer)


def read_seal(file: pa.NativeFile) -> Chunks | None:
    """Return the checksums of a file, whose footer is as it was written; None where it has no seal.

    Raises:
        DamagedError: Its footer or its seal is not as it was written.
    """
    size = file.size()
    if size < _END.size:
        raise DamagedError("it is cut short")
    length, _ = _END.unpack(file.read_at(_END.size, size - _END.size))
    footer_at = size - _END.size - length
    head_at = footer_at - _HEAD.size
    if head_at >= 0:
        *numbers, mark = _HEAD.unpack(file.read_at(_HEAD.size, head_at))
        if mark == _MARK:
            return _chunks(file, head_at, footer_at, *numbers)
    # Where the length of the footer is what was damaged, the seal stands elsewhere.
    looked = min(size, _LOOKED_THROUGH)
    if _MARK in file.read_at(looked, size - looked):
        raise DamagedError("its footer's checksum (CRC) is another")
    return None


def _chunks(
    file: pa.NativeFile, head_at: int, footer_at: int, footer_crc: int, crc: int, groups: int, columns: int
) -> Chunks:
    footer = file.read_at(file.size() - footer_at, footer_at)
    if zlib.crc32(footer) != footer_crc:
        raise DamagedError("its footer's checksum (CRC) is another")
    length = groups * columns * _CHUNK.itemsize
    listed = file.read_at(length, head_at - length) if length <= head_at else b""
    if zlib.crc32(listed) != crc:
        raise DamagedError("its seal's checksum (CRC) is another")
    return np.frombuffer(listed, _CHUNK).reshape(groups, columns)


def is_whole(file: pa.NativeFile, chunk: Any) -> bool:
    """Return whether one column of a row group is as it was written."""
    crc, at, end = 0, int(chunk["start"]), int(chunk["start"] + chunk["length"])
    if end > file.size():
        return False
    while at < end:
        crc = zlib.crc32(file.read_at(min(_AT_ONCE, end - at), at), crc)
        at += _AT_ONCE
    return crc == int(chunk["crc"])


def _checksum(file: IO[bytes], start: int, length: int) -> int:
    crc = 0
    file.seek(start)
    while length > 0:
        read = file.read(min(length, _AT_ONCE))
        if not read:
            raise DamagedError("it is cut short")
        crc = zlib.crc32(read, crc)
        length -= len(read)
    return crc
