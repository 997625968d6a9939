"""A process that has all imported and is forked for every writer: 50 of them then cost no minute."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.conftest import PATIENCE, REPOSITORY

SERVER = """
import os, sys
import tests.faults.writing as writing

os.setpgid(0, 0)
for line in sys.stdin:
    name, *arguments = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if not child:
        sys.stdin.close()
        code = 1
        try:
            getattr(writing, name)(*arguments)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Writers:
    """Runs functions of `tests.faults.writing`, each in a process of its own, one after another."""

    def __init__(self, errors: Path) -> None:
        with errors.open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def start(self, name: str, *arguments: object) -> int:
        """Start one and return its process."""
        assert self._server.stdin is not None
        self._server.stdin.write("\t".join([name, *map(str, arguments)]) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def ended(self) -> int:
        """Wait for it and return its exit code, of a signal the negative number."""
        return self._answer()

    def stop(self) -> None:
        """End them all."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


@contextlib.contextmanager
def writers(folder: Path) -> Iterator[Writers]:
    """Give such a process; what its children say of errors lands in the folder's errors.txt."""
    started = Writers(folder / "errors.txt")
    try:
        yield started
    finally:
        started.stop()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, with patience."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)
