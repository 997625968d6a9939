"""What another program's log tells of a training, and how its steps read as a run's.

The files come from strangers: every bound on them stands here.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from lsviz.errors import UserError
from lsviz.exponents import ExponentHistogram
from lsviz.runs.config import MAX_STEPS
from lsviz.runs.schema import Kind

MAX_LOG_BYTES: Final = 200_000_000
"""Of one event file, or of all in one folder: a minute of reading."""
MAX_JSON_BYTES: Final = 100_000_000
"""Of a log with an object a line."""
MAX_LIST_BYTES: Final = 32_000_000
"""Of a log that is one list, which is decoded at once."""
MAX_LINE: Final = 1_000_000
MAX_FILES: Final = 1_000
"""Event files in a log folder and all that lie in it."""
MAX_LOGS: Final = 100
"""Folders with event files in a log folder: each becomes a run."""
MAX_DEPTH: Final = 6
MAX_RECORD: Final = 4_000_000
"""Bytes of one event; larger ones are pictures, sounds and graphs, and left out."""
MAX_VALUES: Final = 5_000_000
"""Numbers, histograms and all else in the events of one log."""
MAX_TAGS: Final = 20_000
MAX_TAG: Final = 250
"""Characters; of a tensor's name a run takes 1,000 bytes."""
MAX_HISTOGRAMS: Final = 200_000
MAX_BUCKETS: Final = 20_000
MAX_COUNT: Final = 2**32 - 1
"""Of values in one bin, as a run's table holds them."""
MIN_SCALE: Final = 2.0**-126
MAX_SCALE: Final = 2.0**127


class ForeignLogError(UserError):
    """A log can't be taken in; the message says what is wrong and what would be right."""


def is_scale(value: float) -> bool:
    """Return whether a number can be S: it and 1/S are normal FP32 numbers."""
    return MIN_SCALE <= value <= MAX_SCALE


@dataclass(frozen=True, slots=True)
class LoggedGradient:
    """One histogram of a gradient, of values as they were logged."""

    step: int
    tensor: str
    kind: Kind
    histogram: ExponentHistogram


@dataclass(slots=True)
class ForeignLog:
    """All of a log that a run can hold.

    Attributes:
        source: What it was read from, as "a TensorBoard event file".
        columns: Column of the steps table (`lsviz.runs.lognames.COLUMNS`) -> step -> value; of ``skipped``
            other than 0 where it was.
        gradients: In the order of the log.
        times: Step -> seconds since 1970 at which it was first logged; empty where nothing tells.
        notes: What its reader should know, a sentence each.
    """

    source: str
    columns: dict[str, dict[int, float]] = field(default_factory=dict)
    gradients: list[LoggedGradient] = field(default_factory=list)
    times: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def steps(self) -> list[int]:
        """Return the steps of which anything is told, in order.

        Raises:
            ForeignLogError: One is no step that a run can have, or they are too many.
        """
        found = sorted({g.step for g in self.gradients}.union(*self.columns.values()))
        if found and (found[0] < 0 or found[-1] >= MAX_STEPS):
            wrong = found[0] if found[0] < 0 else found[-1]
            raise ForeignLogError(f"step {wrong:,} is not from 0 to {MAX_STEPS - 1:,}")
        return found

    def values(self, column: str, steps: list[int]) -> list[float | None]:
        """Return a column at these steps; None where it is not told."""
        told = self.columns.get(column, {})
        return [told.get(step) for step in steps]


@dataclass(frozen=True, slots=True)
class Scaling:
    """What became of S.

    Attributes:
        scales: In force during each step.
        overflowed: Whether each step's gradients held Inf or NaN; None where nothing tells.
        read_late: Whether the log had S as it was after each step.
    """

    scales: list[float]
    overflowed: list[bool | None]
    read_late: bool


def settle_scaling(log: ForeignLog, steps: list[int]) -> Scaling:
    """Return S and the overflows of a log's steps.

    Where the log tells both, they tell too whether S was read before or after the scaler's update: a fall of
    S comes with an overflow, or one step after it. Where it does not say which steps overflowed, a gradient
    norm that is Inf or NaN tells, and a fall of S at the next step.

    Args:
        log: The log.
        steps: `ForeignLog.steps`.
    """
    scales = _carried(log.columns.get("loss_scale", {}), steps)
    told = _told_overflows(log, steps)
    read_late = _is_read_late(scales, told)
    if read_late:
        first = scales[0] * 2 if told[0] else scales[0]  # nearly everybody's scaler halves S
        scales = [first, *scales[:-1]]
    falls = [after < before for before, after in pairwise(scales)]
    overflowed: list[bool | None] = [
        known if known is not None else fell for known, fell in zip(told, [*falls, None], strict=True)
    ]
    return Scaling(scales, overflowed, read_late)


def _carried(told: dict[int, float], steps: list[int]) -> list[float]:
    """Return S at every step: as last told, before that as first told, 1 where it never is."""
    known = sorted(told)
    if not known:
        return [1.0] * len(steps)
    return [told[known[max(0, bisect.bisect_right(known, step) - 1)]] for step in steps]


def _told_overflows(log: ForeignLog, steps: list[int]) -> list[bool | None]:
    said, norms = log.values("skipped", steps), log.values("grad_norm", steps)
    return [
        bool(skipped) if skipped is not None else None if norm is None or math.isfinite(norm) else True
        for skipped, norm in zip(said, norms, strict=True)
    ]


def _is_read_late(scales: list[float], told: list[bool | None]) -> bool:
    """Return whether S falls with an overflow rather than after it; the last step can't tell which.

    Before the first step nothing is known: there, an S that does not fall afterwards had fallen already.
    """
    with_it = after_it = 0
    for i, overflowed in enumerate(told[:-1]):
        if overflowed:
            falls = scales[i + 1] < scales[i]
            fell = i > 0 and scales[i] < scales[i - 1]
            with_it += (fell or i == 0) and not falls
            after_it += falls and not fell and not told[i + 1]  # a fall at the next may be that one's own
    return with_it > after_it
