"""How a worker's process is started: with this process's own way of finding modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

RUN_ID: Final = "LSVIZ_RUN_ID"
"""What a run's process, and all that is started from it, has in its environment: the run's id."""
RAY_ADDRESS: Final = "RAY_ADDRESS"
"""Where a machine's owner names the Ray cluster for sweeps; Ray reads it too."""


def worker_command(*arguments: str) -> list[str]:
    """Return the command of ``python -m lsviz.jobs.worker``."""
    return module_command("lsviz.jobs.worker", *arguments)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours.

    The folder that it starts in is not searched for modules: a user's ``random.py`` there is not ours.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def worker_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a worker, which finds modules where this process does.

    It is no part of the run, if any, whose process starts it.
    """
    path = os.pathsep.join(str(Path(entry).absolute()) if entry else str(Path.cwd()) for entry in sys.path)
    inherited = {key: value for key, value in os.environ.items() if key != RUN_ID}
    return {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}
