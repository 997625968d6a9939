"""One writer a run: a lock that its process holds for as long as it lives, and no child of it inherits.

A POSIX record lock on purpose. A forked child (a DataLoader's worker) has no share in it: it neither keeps
the run locked when the writer is gone nor frees it by closing what it inherited. The price is that a process
loses such a lock as soon as it closes any other handle of the file: so nobody opens it who holds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from pathlib import Path
from typing import Final

from lsviz.runs.files import RunFolderError

if sys.platform != "win32":
    import fcntl

LOCK: Final = ".writer.lock"
_HELD: Final = (errno.EACCES, errno.EAGAIN)

_mine: dict[tuple[int, Path], int] = {}
"""Handles of the locks that this process holds, by its number too: a fork has none of its parent's."""


class RunBusyError(RunFolderError):
    """A run has a writer, or had one; the message tells which."""


def lock_run(path: Path) -> None:
    """Make this process the run's writer until `unlock_run`, or its death.

    Raises:
        RunBusyError: It has one.
        OSError: The folder can't be written.
    """
    key = os.getpid(), path.resolve()
    if key in _mine:
        raise RunBusyError(f"{path.name} is being written by this process already: a run has one writer")
    if sys.platform == "win32":  # which promises nothing here
        return
    file = path / LOCK
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(handle)
            os.close(handle)
            if error.errno not in _HELD:
                return  # a file system without locks
            by = f"process {holder}" if holder else "another process"
            raise RunBusyError(f"{path.name} is being written by {by}: a run has one writer") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), file.stat()):
                _mine[key] = handle
                return
        os.close(handle)  # its writer took it away in between


def unlock_run(path: Path) -> None:
    """Give the run free and take the lock's file away; nothing where this process has no such lock."""
    handle = _mine.pop((os.getpid(), path.resolve()), None)
    if handle is not None:
        with contextlib.suppress(OSError):
            (path / LOCK).unlink()
        os.close(handle)


def is_being_written(path: Path) -> bool:
    """Return whether a process of this machine is the run's writer."""
    if (os.getpid(), path.resolve()) in _mine:
        return True
    if sys.platform == "win32":
        return False
    try:
        handle = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _holder(handle) is not None
    finally:
        os.close(handle)


def _holder(handle: int) -> int | None:
    """Return which process has the lock; 0 where it can't be told, None where there is none."""
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        kind, *_, process = struct.unpack("hhqqi4x", fcntl.fcntl(handle, fcntl.F_GETLK, asked))
    except (OSError, struct.error):
        return 0
    return None if kind == fcntl.F_UNLCK else int(process)
