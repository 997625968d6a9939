"""Holding a folder of runs against other processes, for as long as one of them changes what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lsviz.errors import UserError
from lsviz.runs.files import unwritable

POLL_SECONDS = 0.01


@contextmanager
def held(root: Path, name: str, seconds: float, busy: UserError) -> Iterator[None]:
    """Hold a lock in a folder while the context lasts; the folder is made if missing.

    Args:
        root: Folder that holds the runs.
        name: File name of the lock.
        seconds: How long to wait for who holds it.
        busy: What to raise where somebody still does.

    Raises:
        RunFolderError: The folder can't be written.
    """
    lock = FileLock(root / name, timeout=seconds)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=POLL_SECONDS)
    except Timeout:
        raise busy from None
    except OSError as error:
        raise unwritable(root, error) from None
    try:
        yield
    finally:
        lock.release()
