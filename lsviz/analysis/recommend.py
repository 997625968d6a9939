"""Which S a run's own reference gradients ask for: the window in which FP16 neither flushes nor overflows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lsviz.analysis.ceiling import Ceiling
from lsviz.analysis.findings import format_magnitude, format_percent, format_scale
from lsviz.analysis.scalemap import SCALES, scale_map_frame
from lsviz.analysis.whatif import Histograms, WhatIfError
from lsviz.formats import FP16, FloatFormat
from lsviz.policies.base import format_number

THRESHOLD: Final = 0.01
"""Share of a tensor's values that may be flushed over the run."""
MARGIN: Final = 2
"""Binades that the best constant leaves free where it can: between two recorded steps gradients grow too."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A tensor that bounds S.

    Attributes:
        tensor: Its name.
        kind: Activation or weight.
        step: Where it does.
        value: Its largest unscaled magnitude (upper end), or its flushed share at S = 1 (lower end).
    """

    tensor: str
    kind: str
    step: int | None
    value: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What S to use, and why.

    Attributes:
        format: Name of the format cast to.
        threshold: Share of each tensor's values, over the whole run, that may be flushed.
        low: Least power of two at which no tensor loses more; None where none is large enough.
        high: Largest power of two at which nothing overflows; None where none is small enough.
        best: The constant to use, 1 where that is safe; None where the window is empty.
        patent_bound: log2 S up to which the run's largest weight gradient (where none was recorded: largest
            gradient) stays in range, 15 - log2 max|g| for FP16; None where all are zero. From US 2024/0078433
            A1, which has it for automatic scaling.
        upper: The tensor with the largest value, which bounds S from above.
        lower: The tensor that asks for the largest S; None where S = 2^-10 already serves all.
        grounds: What both ends of the window are read from, in a sentence.
        room: How much of it the constant leaves free, in a sentence; empty where there is no constant.
        ceiling: What the largest gradients of every step allow, where they are known: between two recorded
            steps a gradient can be larger.
    """

    format: str
    threshold: float
    low: float | None
    high: float | None
    best: float | None
    patent_bound: float | None
    upper: Limit | None
    lower: Limit | None
    grounds: str
    room: str
    ceiling: Ceiling | None = None

    @property
    def reason(self) -> str:
        """Why, in two sentences."""
        return f"{self.grounds} {self.room}".strip()

    def room_at(self, scale: float) -> str:
        """Return how much of the window another S that serves leaves free, in a sentence."""
        return "" if self.high is None else _room(scale, self.high, self.ceiling)

    @property
    def most(self) -> float | None:
        """Largest power of two at which nothing overflows, at any step that tells; None where none is."""
        return _most(self.high, self.ceiling)

    @property
    def safe(self) -> tuple[float, float] | None:
        """The window as far as every step allows it; None where nothing is left of it."""
        if self.low is None or self.most is None or self.low > self.most:
            return None
        return self.low, self.most

    @property
    def window(self) -> tuple[float, float] | None:
        """The scales safe at recorded steps, from least to largest; None where there are none."""
        if self.low is None or self.high is None or self.low > self.high:
            return None
        return self.low, self.high

    @property
    def policy(self) -> str | None:
        """The policy to use, in its string form; None where no constant will do."""
        if self.best is None:
            return None
        return "none" if self.best == 1 else f"constant:{format_number(self.best)}"

    @property
    def headline(self) -> str:
        """What to use, in one short sentence."""
        if self.best == 1:
            return f"This run needs no loss scaling in {self.format.upper()}"
        if self.best is not None:
            return f"Use S = {format_scale(self.best)}: it would serve all layers of this run"
        return "No S would serve all layers of this run"

    def serves(self, scale: float) -> bool:
        """Return whether an S is one of those that are safe."""
        return self.safe is not None and self.safe[0] <= scale <= self.safe[1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""

        def limit(found: Limit | None) -> dict[str, Any] | None:
            return None if found is None else {name: getattr(found, name) for name in Limit.__slots__}

        return {
            "format": self.format,
            "threshold": self.threshold,
            "window": None if self.window is None else list(self.window),
            "low": self.low,
            "high": self.high,
            "best": self.best,
            "policy": self.policy,
            "patent_bound": self.patent_bound,
            "upper": limit(self.upper),
            "lower": limit(self.lower),
            "reason": self.reason,
            **({} if self.ceiling is None else {"ceiling_every_step": self.ceiling.to_dict()}),
        }


def recommend(
    rows: Histograms,
    fmt: FloatFormat = FP16,
    *,
    threshold: float = THRESHOLD,
    margin: int = MARGIN,
    scale_map: pd.DataFrame | None = None,
    ceiling: Ceiling | None = None,
) -> Recommendation:
    """Return what S a constant should have, by all of a run's references.

    Only recorded steps are seen, and only what hooks see: not what lies inside attention, say. The window is
    theirs; the constant is one that every step allows, where a ceiling tells.

    Args:
        rows: As `Histograms.of` returns them.
        fmt: The format cast to.
        threshold: Share of each tensor's non-zero values, over the whole run, that may be flushed.
        margin: Binades to leave free above the largest value where the window has room.
        scale_map: `scale_map_frame` of the same rows and format, where there is one already.
        ceiling: `lsviz.analysis.ceiling.find_ceiling` of the same run and format.

    Raises:
        WhatIfError: The threshold is no share.
    """
    if not 0 <= threshold < 1:
        raise WhatIfError(f"threshold: a share from 0 to less than 1 is needed, got {threshold:g}")
    upper, endless, at = _upper(rows.keys)
    largest = upper.value if upper else 0.0
    fits = [s for s in SCALES if not fmt.overflows(largest * s)]
    high = None if endless is not None or not fits else fits[-1]
    lost = scale_map_frame(rows, fmt) if scale_map is None else scale_map
    worst = lost.groupby("scale")["flushed"].max().sort_index().to_numpy()
    enough = [s for s, share in zip(SCALES, worst, strict=True) if share <= threshold]
    low = enough[0] if enough else None
    best, most = None, _most(high, ceiling)
    if low is not None and high is not None and most is not None and low <= most:
        best = 1.0 if low <= 1 <= most else _best(low, high, most, margin)
    needs = _needs(lost, threshold)
    scaled = best is not None and high is not None and best != 1
    return Recommendation(
        format=fmt.name,
        threshold=threshold,
        low=low,
        high=high,
        best=best,
        patent_bound=_patent_bound(rows.keys, fmt),
        upper=endless or upper,
        lower=needs,
        grounds=_grounds(
            fmt, threshold, low, high, best, upper, endless, at, needs, lost, ceiling, censored=rows.censored
        ),
        room=_room(best, high, ceiling) if scaled and best is not None and high is not None else "",
        ceiling=ceiling,
    )


def _most(high: float | None, ceiling: Ceiling | None) -> float | None:
    if high is None or ceiling is None:
        return high
    return None if ceiling.allows is None else min(high, ceiling.allows)


def _best(low: float, high: float, most: float, margin: int) -> float:
    """Return the middle of the window, but lower where that leaves too little room under the most."""
    bottom, top = round(math.log2(low)), round(math.log2(high))
    return float(2.0 ** max(bottom, min((bottom + top + 1) // 2, round(math.log2(most)) - margin)))


def _unscaled(keys: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return each row's largest finite magnitude at S = 1."""
    largest: npt.NDArray[np.float64] = keys["amax"].to_numpy(np.float64) / keys["loss_scale"].to_numpy()
    return largest


def _upper(keys: pd.DataFrame) -> tuple[Limit | None, Limit | None, float]:
    """Return the tensor with the largest unscaled value, the first that held Inf or NaN, and its S."""

    def limit(place: int, value: float) -> Limit:
        row = keys.iloc[place]
        return Limit(str(row["tensor"]), str(row["kind"]), int(row["step"]), value)

    unscaled = _unscaled(keys)
    largest = limit(int(unscaled.argmax()), float(unscaled.max())) if unscaled.any() else None
    endless = np.flatnonzero((keys["inf"] > 0) | (keys["nan"] > 0))
    if not len(endless):
        return largest, None, 1.0
    first = int(endless[keys["step"].to_numpy()[endless].argmin()])
    return largest, limit(first, math.inf), float(keys["loss_scale"].iloc[first])


def limiting_tensor(rows: Histograms) -> str | None:
    """Return the tensor that overflows first as S grows; None where all gradients are zero."""
    upper, endless, _ = _upper(rows.keys)
    limit = endless or upper
    return None if limit is None else limit.tensor


def _needs(lost: pd.DataFrame, threshold: float) -> Limit | None:
    """Return the tensor that needs the largest S."""
    too_much = lost[lost["flushed"] > threshold].sort_values(["scale", "flushed"])
    if too_much.empty:
        return None
    tensor, kind = too_much.iloc[-1][["tensor", "kind"]]
    at_one = lost[(lost["tensor"] == tensor) & (lost["kind"] == kind) & (lost["scale"] == 1.0)]
    return Limit(str(tensor), str(kind), None, float(at_one["flushed"].iloc[0]))


def _patent_bound(keys: pd.DataFrame, fmt: FloatFormat) -> float | None:
    weights = keys[keys["kind"] == "weight_grad"]
    largest = float(_unscaled(weights if len(weights) else keys).max(initial=0.0))
    return fmt.max_exponent - math.log2(largest) if largest > 0 else None


def _room(scale: float, high: float, ceiling: Ceiling | None) -> str:
    """Return how many binades lie above an S in the window, in a sentence."""
    most = _most(high, ceiling) or high
    free = round(math.log2(most / scale))
    if free <= 0:
        return "The window is narrow: a dynamic policy is safer."
    number = f"{'at least ' if most == SCALES[-1] else ''}{free} binade{'' if free == 1 else 's'}"
    known = _tells_of_every_step(high, ceiling) and not (ceiling is not None and ceiling.unseen)
    unseen = "" if known else " for steps not recorded"
    return f"S = {format_scale(scale)} leaves {number} free{unseen}."


def _tells_of_every_step(high: float, ceiling: Ceiling | None) -> bool:
    return ceiling is not None and ceiling.allows is not None and ceiling.allows <= high


def _grounds(
    fmt: FloatFormat,
    threshold: float,
    low: float | None,
    high: float | None,
    best: float | None,
    upper: Limit | None,
    endless: Limit | None,
    at: float,
    needs: Limit | None,
    lost: pd.DataFrame,
    ceiling: Ceiling | None,
    *,
    censored: bool,
) -> str:
    its_values = "what FP16 left of its values" if censored else "its values"
    name, share = fmt.name.upper(), format_percent(threshold)
    if endless is not None:
        held = f"{endless.tensor} holds Inf or NaN at step {endless.step} in FP32 with S = {format_scale(at)}"
        if at != 1:
            return f"{held}, before any cast. Recorded with S = 1 the run would tell whether S is to blame."
        cause = "look at the forward pass, the learning rate and the data"
        return f"{held}, before any cast. No loss scale cures that: {cause}."
    if upper is None:
        return "All recorded gradients are zero. Any loss scale does as well as any other."
    if high is None:
        return (
            f"{upper.tensor} reaches {format_magnitude(upper.value)} at step {upper.step}, which no S from "
            f"2⁻¹⁰ on brings into {name}'s range. Use BF16, whose range is FP32's."
        )
    most = _most(high, ceiling)
    every = _tells_of_every_step(high, ceiling)
    if ceiling is not None and most is None:
        return f"{_begun(ceiling.clause)}. Use BF16, whose range is FP32's."
    high = high if most is None else most
    end = format_scale(high)
    reached = f"{upper.tensor} reaches {format_magnitude(upper.value)} at step {upper.step}"
    top = f"{reached} and overflows above S = {end}"
    if high == SCALES[-1]:
        top = f"nothing overflows up to S = {end}, as far as this looks"
    elif ceiling is not None and every:
        top = ceiling.clause
    if best is not None and low is not None:
        if low <= 1 <= high:
            served = f"at S = 1 no tensor loses more than {share} of {its_values}"
            above = _begun(top) if every or high == SCALES[-1] else top  # else it begins with a tensor's name
            return f"No loss scaling is needed: {served}. {above}."
        need = f"Even at S = {format_scale(low)} no tensor loses more than {share} of {its_values}"
        if needs is not None:
            need = (
                f"{needs.tensor} needs S = {format_scale(low)} to lose no more than {share} of {its_values}"
            )
        return f"{need}; {top}."
    left = lost[lost["scale"] == high]
    worst = left.sort_values("flushed").iloc[-1]
    still = format_percent(float(worst["flushed"]))
    if high == SCALES[-1]:
        return (
            f"Even at S = {end}, as far as this looks, {worst['tensor']} loses {still} of its values. "
            "BF16 would keep them, whose range is FP32's."
        )
    top = _begun(top) if every else top
    culprit = ceiling.layer if ceiling is not None and every else upper.tensor
    cure = "No one S serves both: a scale per layer (layerwise) or BF16 would."
    if culprit in (worst["tensor"], worst["tensor"].rpartition(".")[0]):
        cure = "No S serves it, nor would one of its own: BF16 would, whose range is FP32's."
    return f"{top}, while {worst['tensor']} still loses {still} there. {cure}"


def _begun(clause: str) -> str:
    """Return a clause as a sentence begins."""
    return f"{clause[0].upper()}{clause[1:]}"
