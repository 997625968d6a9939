"""Looking through runs from elsewhere in a process of its own, within bounds of memory and time.

A file that is made for it can end the process that decodes it, whatever that process checks before: so it is
not the one that serves people. ``python -m lsviz.runs.inspector`` reads folders from stdin, a JSON string a
line, looks through each in a process forked for it, and answers each with a line of JSON: what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Self

from lsviz.errors import UserError
from lsviz.runs.files import RunFolderError
from lsviz.runs.inspection import InspectionError, inspect_folder

if sys.platform != "win32":
    import resource

MEMORY: Final = 4 << 30
CPU_SECONDS: Final = 300
SECONDS: Final = 900
_ANSWER: Final = 1 << 16


class Inspector:
    """Use as a context manager: one process for as many folders as there are, started for the first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._process is not None:
            if error is not None:
                self._process.kill()
            self._process.communicate()

    def inspect(self, folder: Path) -> None:
        """Look through a folder of unpacked files.

        Raises:
            InspectionError: Something in it is no file of a run, or takes more than a run may.
            RunFolderError: No process can be started.
        """
        if sys.platform == "win32":
            inspect_folder(folder)
            return
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(str(folder.resolve())) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        if not answer:
            raise RunFolderError("the process that looks through runs from elsewhere has ended; try again")
        reason = json.loads(answer)
        if reason is not None:
            raise InspectionError(reason)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "lsviz.runs.inspector"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # a library that gives up says so there
                    env={**os.environ, "PYTHONPATH": path},
                    text=True,
                )
            except OSError as error:
                raise RunFolderError(f"can't start a process to look through it ({error.strerror})") from None
        return self._process


def _serve() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        answers.write(json.dumps(_inspect_apart(Path(json.loads(line)))) + "\n")
        answers.flush()


def _inspect_apart(folder: Path) -> str | None:
    """Return what is wrong with a folder; None where nothing is."""
    answer, asked = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(asked, json.dumps(_inspect_bounded(folder)).encode()[:_ANSWER])
        finally:
            os._exit(0)
    os.close(asked)
    if not select.select([answer], [], [], SECONDS)[0]:
        os.kill(child, signal.SIGKILL)
    told = os.read(answer, _ANSWER)
    os.close(answer)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if told:
        reason: str | None = json.loads(told)
        return reason
    return f"reading it takes more memory or time than a run may, or is not survived (exit code {code})"


def _inspect_bounded(folder: Path) -> str | None:
    if sys.platform != "win32":
        for limit, value in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_CPU, CPU_SECONDS),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(ValueError, OSError):  # one that is lower already stays
                resource.setrlimit(limit, (value, value))
    try:
        inspect_folder(folder)
    except UserError as error:
        return str(error)
    return None


if __name__ == "__main__":
    _serve()
