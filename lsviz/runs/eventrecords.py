"""The records of TensorBoard's event files, walked before anything decodes them.

A file comes from a stranger: only whole records of bounded size are given to TensorBoard's own reader.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from lsviz.runs.foreignlog import (
    MAX_DEPTH,
    MAX_FILES,
    MAX_LOG_BYTES,
    MAX_LOGS,
    MAX_RECORD,
    ForeignLogError,
)

_HEADER: Final = 12
"""Bytes before a record: its length, and a checksum of that."""
_FOOTER: Final = 4


def is_event_file(head: bytes) -> bool:
    """Return whether a file that begins like this is an event file."""
    return b"brain.Event:" in head[:128]


def event_folders(folder: Path) -> dict[Path, list[Path]]:
    """Return each folder that holds event files, with these in order; links are not followed.

    Raises:
        ForeignLogError: There is too much in it.
    """
    found: dict[Path, list[Path]] = defaultdict(list)
    seen = 0
    for root, folders, names in os.walk(folder):
        here = Path(root)
        if len(here.relative_to(folder).parts) >= MAX_DEPTH:
            folders.clear()
        folders.sort()
        for path in sorted(here / name for name in names if "tfevents" in name):
            if path.is_file() and not path.is_symlink() and path.suffix != ".profile-empty":
                found[here].append(path)
                seen += 1
    if len(found) > MAX_LOGS or seen > MAX_FILES:
        raise ForeignLogError(
            f"{seen:,} event files in {len(found):,} folders, more than {MAX_FILES:,} in {MAX_LOGS}; "
            "import them apart"
        )
    return dict(found)


class EventReader:
    """Reads the events of a log's files, one after the other.

    Attributes:
        cut: Whether a file ended in a damaged or unfinished record.
        large: Number of records left out because of their size.
    """

    def __init__(self) -> None:
        self.cut = False
        self.large = 0
        self._left = MAX_LOG_BYTES

    def events(self, file: IO[bytes]) -> Iterator[Any]:
        """Yield a file's events, as messages of TensorBoard's protocol.

        Raises:
            ForeignLogError: The files together are too large, or a record is no event.
        """
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

        self._left -= file.seek(0, 2)
        if self._left < 0:
            raise ForeignLogError(f"it has more than {MAX_LOG_BYTES:,} bytes; log less often, or split it")
        with tempfile.NamedTemporaryFile(suffix=".tfevents") as copy:
            kept = self._copy_records(file, copy)
            copy.flush()
            try:
                for event in LegacyEventFileLoader(copy.name).Load():
                    kept -= 1
                    yield event
            except DecodeError:
                raise ForeignLogError("a record of it is no event; is it damaged?") from None
        self.cut |= kept > 0  # its reader ends without a word at a record that is damaged

    def _copy_records(self, source: IO[bytes], target: IO[bytes]) -> int:
        """Copy the whole records that are not too large, and return how many they are."""
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

        size = source.seek(0, 2)
        at = source.seek(0)
        kept = 0
        while at < size:
            header = source.read(_HEADER)
            length = int.from_bytes(header[:8], "little")
            end = at + _HEADER + length + _FOOTER
            told = int.from_bytes(header[8:], "little")
            if len(header) < _HEADER or masked_crc32c(header[:8]) != told or end > size:
                self.cut = True
                break
            if length > MAX_RECORD:
                self.large += 1
                source.seek(end)
            else:
                target.write(header + source.read(length + _FOOTER))
                kept += 1
            at = end
        return kept
