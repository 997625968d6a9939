"""The largest S that every step of a run allows, by the largest gradients that were kept of all steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from lsviz.analysis.blame import largest_scale
from lsviz.analysis.findings import format_magnitude, format_scale
from lsviz.analysis.whatif import MAX_SCALE, MIN_SCALE
from lsviz.formats import FloatFormat

NO_SCALE_CURES: Final = ("forward", "reference", "injected")
"""Causes of an overflow that tell nothing of how large S may be."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Which S all steps of a run allow, and which layer forbids a larger one.

    Attributes:
        allows: The largest power of two, up to 2^40, at which no step overflows; None where none from 2^-10
            on is small enough.
        layer: The layer that forbids a larger one.
        step: Where it does.
        largest: Its largest magnitude there, unscaled; None where a step overflowed whose gradients are not
            known in FP32.
        overflowed_at: S at which that step overflowed, where that is what tells; None where the magnitude
            does.
        steps: How many steps' largest gradients are known.
        unseen: Of how many other steps nothing tells: of a loop of one's own only recorded ones do.
    """

    allows: float | None
    layer: str
    step: int
    largest: float | None
    overflowed_at: float | None
    steps: int
    unseen: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def clause(self) -> str:
        """Which S is the largest that all steps allow, and why, in a clause."""
        top = "no S from 2⁻¹⁰ on" if self.allows is None else f"S = {format_scale(self.allows)} at most"
        if self.overflowed_at is not None:
            return (
                f"step {self.step:,} overflowed at S = {format_scale(self.overflowed_at)}, which leaves {top}"
            )
        largest = f"{format_magnitude(self.largest or 0.0)} at step {self.step:,}"
        whose = f"{self.layer or 'the model'}'s largest gradient, {largest},"
        over = f"over all {self.steps:,} steps" if self.steps > 1 else "at the one step"
        if self.unseen:
            over = f"over {self.steps:,} of {self.steps + self.unseen:,} steps"
        return f"{over} {whose} allows {top}"


def without_steps(frame: pd.DataFrame, steps: Iterable[int]) -> pd.DataFrame:
    """Return a frame without the rows of some steps: those at which a fault was put in on purpose."""
    return frame[~frame["step"].isin(list(steps))]


def find_ceiling(
    headroom: pd.DataFrame,
    blame: pd.DataFrame,
    outcomes: pd.DataFrame,
    fmt: FloatFormat,
    *,
    computed: FloatFormat,
    left_out: Iterable[int] = (),
    run_steps: Iterable[int] = (),
) -> Ceiling | None:
    """Return what all steps of a run allow; None where no step tells.

    Largest magnitudes tell, and in the run's own format the steps that overflowed: S has to be below theirs,
    whatever was seen of their gradients.

    Args:
        headroom: `lsviz.analysis.blame.headroom_frame`.
        blame: `lsviz.analysis.blame.blame_frame`.
        outcomes: `Run.outcomes`.
        fmt: The format cast to.
        computed: The format that the run computed in.
        left_out: Steps that do not count.
        run_steps: All steps of the run, to tell of how many nothing is known.
    """
    rows = without_steps(headroom, left_out)
    found: Ceiling | None = None
    steps = int(rows["step"].nunique())
    unseen = len({*run_steps} - {*rows["step"].unique().tolist(), *blame["step"].tolist(), *left_out})
    if len(rows):
        worst = rows.iloc[int(rows["largest"].to_numpy().argmax())]
        largest = float(worst["largest"])
        allows = min(largest_scale(largest, fmt), MAX_SCALE)
        found = Ceiling(
            _in_reach(allows), str(worst["layer"]), int(worst["step"]), largest, None, steps, unseen
        )
    seen = _overflowed(without_steps(blame, left_out), outcomes, left_out) if fmt == computed else None
    if seen is None:
        return found
    step, scale, layer = seen
    below = _in_reach(2.0 ** (math.ceil(math.log2(scale)) - 1))
    if found is not None and (found.allows is None or (below is not None and found.allows <= below)):
        return found
    return Ceiling(below, layer, step, None, scale, steps, unseen)


def layer_ceilings(
    headroom: pd.DataFrame, fmt: FloatFormat, left_out: Iterable[int] = ()
) -> dict[str, float]:
    """Return the largest power of two that each layer's own gradients allow over all steps."""
    rows = without_steps(headroom, left_out)
    largest = rows.groupby(rows["layer"].astype(str))["largest"].max()
    return {str(name): largest_scale(float(value), fmt) for name, value in largest.items()}


def _in_reach(scale: float) -> float | None:
    return scale if scale >= MIN_SCALE else None


def _overflowed(
    blame: pd.DataFrame, outcomes: pd.DataFrame, left_out: Iterable[int]
) -> tuple[int, float, str] | None:
    """Return the least S at which a try overflowed that a smaller S could have saved: step, S and layer."""
    hopeless = blame.loc[blame["cause"].isin(NO_SCALE_CURES), "step"]
    skipped = blame[~blame["cause"].isin(NO_SCALE_CURES)]
    seen = [
        (float(row["loss_scale"]), int(row["step"]), str(row["layer"] or ""))
        for row in skipped.to_dict("records")
    ]
    tries = without_steps(outcomes, {*hopeless.tolist(), *blame["step"].tolist(), *left_out})
    spoilt = tries["finite"].eq(False) & tries["curable"].ne(False) & tries["layers"].isna()
    seen += [(float(s), int(step), "") for s, step in tries.loc[spoilt, ["loss_scale", "step"]].to_numpy()]
    if not seen:
        return None
    scale, step, layer = min(seen)
    return step, scale, layer
