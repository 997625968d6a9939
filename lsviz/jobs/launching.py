"""How a worker's process is started: with this process's own way of finding modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def worker_command(*arguments: str) -> list[str]:
    """Return the command of ``python -m lsviz.jobs.worker``.

    The folder that it starts in is not searched for modules: a user's ``random.py`` there is not ours.
    """
    return [sys.executable, "-P", "-m", "lsviz.jobs.worker", *arguments]


def worker_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a worker, which finds modules where this process does."""
    path = os.pathsep.join(str(Path(entry).absolute()) if entry else str(Path.cwd()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}
