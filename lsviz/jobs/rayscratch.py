"""Folders that a node's runs are trained in, which go with the run, and with a worker that is killed."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

SCRATCH: Final = "lsviz-ray-"
"""How the folders begin, where the node keeps its temporary files."""
LOCK: Final = ".in-use.lock"
STALE_SECONDS: Final = 60.0
"""Older than that, a scratch folder whose lock nobody holds is one that a killed worker left behind."""

# Reads one name after the other until the end of all, which is the end of who writes them too, and removes
# what the last one names. Behind an "&", since Ray kills a worker's own children as it ends the worker.
_WATCH: Final = """
trap '' HUP INT TERM
exec 3<&0
{ while IFS= read -r line; do folder=$line; done; [ -z "$folder" ] || rm -rf -- "$folder"; } <&3 &
"""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for one run, which goes with it; those of killed workers go first."""
    parent = Path(tempfile.gettempdir())
    _remove_stale(parent)
    folder = parent / f"{SCRATCH}{secrets.token_hex(8)}"
    try:  # around the making too: an interrupt may come just after it
        folder.mkdir(mode=0o700)
        _watch(folder)
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    """Remove what is left where there was nobody to watch, or the whole machine went down."""
    for folder in parent.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError, Timeout):
            old = time.time() - folder.lstat().st_mtime > STALE_SECONDS
            if old and not folder.is_symlink():
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def _watch(folder: Path) -> None:
    """Have the folder removed also where this process is killed."""
    handle = _watcher(os.getpid())
    if handle is not None:
        with contextlib.suppress(OSError):
            os.write(handle, os.fsencode(folder) + b"\n")


@functools.cache
def _watcher(pid: int) -> int | None:
    """Start the one process that watches for this one, and return what it reads; None without a shell."""
    reading, writing = os.pipe()
    try:
        subprocess.run(
            ["/bin/sh", "-c", _WATCH],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        os.close(writing)
        return None
    finally:
        os.close(reading)
    return writing
