"""Looking through a Parquet file's pages without decoding one: what they declare decides what decoding takes.

A page of a few bytes can declare two thousand million values. A library that decodes it has taken the memory
before anybody can say no.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import pyarrow.parquet as pq

from lsviz.runs.sealing import first_page

MAX_PAGE: Final = 1 << 26
MAX_DICTIONARY: Final = 1 << 21
MAX_UNPACKED: Final = 20_000_000_000
"""Bytes of all pages of a file together, decompressed."""
_HEADER: Final = 1 << 16
_DATA, _DICTIONARY = 0, 2
_ENCODINGS: Final = {0, 2, 3, 8}
"""PLAIN, PLAIN_DICTIONARY, RLE and RLE_DICTIONARY: all that our own writer makes."""
_CODECS: Final = {"UNCOMPRESSED", "SNAPPY", "ZSTD"}
_DEPTH: Final = 4


class PageError(ValueError):
    """A file's pages are none of ours, or declare too much; the message says what."""


class Column(NamedTuple):
    """What the pages of a file hold of one column.

    Attributes:
        path: Its name, with those inside it: ``layers.list.element.scale``.
        values: In all row groups, the empty ones of lists too.
        dictionary: Bytes of its largest dictionary, decompressed: no word in it is longer.
    """

    path: str
    values: int
    dictionary: int


def walk_pages(path: Path, metadata: pq.FileMetaData) -> list[Column]:
    """Return what each column holds, once all pages are found to be what the footer says.

    Raises:
        PageError: They are not, or too large, or written in a way that ours are not.
    """
    values = [0] * metadata.num_columns
    dictionary = [0] * metadata.num_columns
    unpacked = 0
    with path.open("rb") as file:
        for i in range(metadata.num_row_groups):
            group = metadata.row_group(i)
            for j in range(metadata.num_columns):
                column = group.column(j)
                if column.compression not in _CODECS:
                    raise PageError(f"it is compressed with {column.compression}")
                found = 0
                for kind, size, count in _pages(file, column):
                    unpacked += size
                    if kind == _DICTIONARY:
                        dictionary[j] = max(dictionary[j], size)
                    else:
                        found += count
                if found != column.num_values:
                    raise PageError(f"its pages hold {found:,} values where {column.num_values:,} are told")
                values[j] += found
            if unpacked > MAX_UNPACKED:
                raise PageError(f"its pages have more than {MAX_UNPACKED:,} bytes unpacked")
    paths = [metadata.schema.column(j).path for j in range(metadata.num_columns)]
    return [Column(*told) for told in zip(paths, values, dictionary, strict=True)]


def _pages(file: IO[bytes], column: Any) -> Iterator[tuple[int, int, int]]:
    """Yield kind, size when unpacked and number of values of each page of a column of a row group."""
    at = first_page(column)
    end = at + column.total_compressed_size
    if column.num_values and min(at, column.data_page_offset) <= 0:
        raise PageError("a page lies before the file")
    while at < end:
        file.seek(at)
        header, length = _Thrift(file.read(min(_HEADER, end - at))).whole()
        kind, size, packed = (header.get(field, -1) for field in (1, 2, 3))
        inner = header.get(7 if kind == _DICTIONARY else 5)
        if kind not in (_DATA, _DICTIONARY) or not isinstance(inner, dict):
            raise PageError("a page is of an unknown kind")
        count = inner.get(1, -1)
        if inner.get(2) not in _ENCODINGS or count < 0:
            raise PageError("a page is encoded in an unknown way")
        most = MAX_DICTIONARY if kind == _DICTIONARY else MAX_PAGE
        if not 0 <= size <= most:
            raise PageError(f"a page has {size:,} bytes unpacked, more than {most:,}")
        at += length + packed
        if packed < 0 or at > end:
            raise PageError("a page reaches beyond its column")
        yield kind, size, count


class _Thrift:
    """As much of Thrift's compact protocol as the header of a page takes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def whole(self) -> tuple[dict[int, Any], int]:
        """Return the fields by their numbers, and how many bytes they take."""
        try:
            return self._struct(0), self._at
        except IndexError:
            raise PageError("a page's header is cut short") from None

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise PageError("a page's header holds a number too long")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEPTH:
            raise PageError("a page's header is nested too deep")
        fields: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._number()
            fields[field] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind in (7, 8):
            length = 8 if kind == 7 else self._varint()
            self._at += length
            if self._at > len(self._content):
                raise PageError("a page's header is cut short")
            return None
        if kind == 12:
            return self._struct(depth + 1)
        raise PageError("a page's header holds what no header of ours does")
