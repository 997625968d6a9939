"""How many runs train at once and how many may wait: what the machine has, or what the environment says."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from lsviz.errors import UserError

SLOTS: Final = "LSVIZ_SLOTS"
MAX_QUEUED: Final = "LSVIZ_MAX_QUEUED"
DEFAULT_QUEUED: Final = 200
_MOST: Final = 10_000


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots() -> int:
    """Return how many queued runs train at once: LSVIZ_SLOTS; else one a GPU, else one a CPU.

    A run of most tasks computes on one thread.

    Raises:
        UserError: LSVIZ_SLOTS is no number from 1 to 10,000.
    """
    return _number(SLOTS) or gpus() or cores()


def max_queued() -> int:
    """Return how many runs may wait: LSVIZ_MAX_QUEUED, else 200.

    Raises:
        UserError: LSVIZ_MAX_QUEUED is no number from 1 to 10,000.
    """
    return _number(MAX_QUEUED) or DEFAULT_QUEUED


def _number(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= _MOST:
        raise UserError(f"{name}: {text[:40]!r} is no whole number from 1 to {_MOST:,}")
    return int(text)


def gpus() -> int:
    """Return how many NVIDIA GPUs this process may use, without asking CUDA."""
    try:
        found = sum(1 for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit())
    except OSError:
        found = 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    named = [part for part in visible.split(",") if part.strip() not in ("", "-1")]
    return min(found, len(named))
