"""The finding of a picture in one sentence: what a person should see, said from the numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from lsviz.analysis.shares import flushed_frame, shown_rows, total_flushed_frame
from lsviz.runs.config import RunConfig

STARVED: Final = 0.99
"""From this flushed share on, a layer receives next to nothing."""
NOTHING: Final = 0.9995
"""Beyond this share, what is left is nothing as people round it."""
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
HEAVY: Final = 0.5
"""From this share on, of a layer's values flushed or of steps skipped, a run has not learned as it should."""
HEALTHY: Final = 0.05
"""Up to this flushed share, we call a layer's gradient intact."""


@dataclass(frozen=True, slots=True)
class RunShares:
    """What a finding is made from.

    Attributes:
        precision: ``fp16``, ``bf16`` or ``fp32``.
        policy: The policy's string form.
        loss_scale: S at the step shown; the smallest, where every layer has its own.
        flushed: Layer -> flushed share, lowest layer first; empty where nothing was recorded.
        total: Flushed share of all layers' values together.
        overflow: Layer -> share of its values that became Inf or NaN.
        highest_scale: The largest S of any layer.
        zero: Share of all layers' values that are zero, for whatever reason; None where none was recorded.
        task: What was trained: only runs of one task can be held against each other.
    """

    precision: str
    policy: str
    loss_scale: float
    flushed: Mapping[str, float]
    total: float
    overflow: Mapping[str, float] = field(default_factory=dict)
    highest_scale: float = 0.0
    zero: float | None = None
    task: str = ""

    @property
    def scale_words(self) -> str:
        """S in words: ``S = 1,024``, or ``S from 8 to 1,024, by layer``."""
        low, high = format_scale(self.loss_scale), format_scale(self.highest_scale)
        return f"S from {low} to {high}, by layer" if self.highest_scale > self.loss_scale else f"S = {low}"

    @property
    def overflowed(self) -> list[str]:
        """Layers with an Inf or NaN that the reference does not have: the step was skipped."""
        return [layer for layer, share in self.overflow.items() if share > 0]

    @property
    def starved(self) -> list[str]:
        """Layers that receive nothing."""
        return [layer for layer, share in self.flushed.items() if share >= STARVED]


def run_shares(
    config: RunConfig,
    exponents: pd.DataFrame,
    step: int,
    layers: Sequence[str],
    by_layer: pd.DataFrame | None = None,
) -> RunShares:
    """Return what one run's exponents table says of one step.

    ``loss_scale`` is 0 where the step was not recorded.

    Args:
        config: The run's.
        exponents: Its exponents table, or part of it.
        step: A recorded step.
        layers: Which tensors count.
        by_layer: `flushed_frame` of that table, where it is known already.
    """
    here = shown_rows(exponents, step)
    recorded = here[~here["reference"].to_numpy(bool)]
    flushed = flushed_frame(here) if by_layer is None else shown_rows(by_layer, step)
    total = total_flushed_frame(flushed, layers)
    lost = dict(zip(flushed["tensor"], flushed["flushed"], strict=True))
    gone = dict(zip(flushed["tensor"], flushed["overflow"], strict=True))
    return RunShares(
        precision=config.precision,
        policy=config.policy,
        loss_scale=float(recorded["loss_scale"].min()) if len(recorded) else 0.0,
        highest_scale=float(recorded["loss_scale"].max()) if len(recorded) else 0.0,
        flushed={k: float(lost[k]) for k in layers if k in lost},
        total=float(total["flushed"].iloc[0]) if len(total) else 0.0,
        overflow={k: float(gone[k]) for k in layers if k in gone},
        zero=float(recorded["zero"].sum() / numel) if (numel := recorded["numel"].sum()) else None,
        task=config.task,
    )


def format_percent(share: float) -> str:
    """Return a share as people read it: 0 %, 0.2 %, 35 %, 99.7 %, 100 %."""
    percent = share * 100
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if 99.95 < percent < 100:
        return "> 99.9 %"
    if percent in (0.0, 100.0):
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent < 1 or percent > 99 else f"{percent:.0f} %"


def format_scale(loss_scale: float) -> str:
    """Return S as people read it: 1, 8, 1,024, 2¹⁶, 0.1."""
    mantissa, exponent = math.frexp(loss_scale)
    if mantissa == 0.5 and not -4 < exponent - 1 < 14:
        return f"2{str(exponent - 1).translate(_SUPERSCRIPTS)}"
    return f"{loss_scale:,.0f}" if float(loss_scale).is_integer() else f"{loss_scale:g}"


def format_magnitude(value: float) -> str:
    """Return a gradient's magnitude with three digits as people read them: 2,470, 0.0147, 3.1e-07."""
    return f"{float(f'{value:.3g}'):,.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"


def format_powers(text: str) -> str:
    """Return text with powers such as 2^-5 as people write them: 2⁻⁵."""
    return re.sub(r"(\d)\^(-?\d+)", lambda m: m[1] + m[2].translate(_SUPERSCRIPTS), text)


def finding(runs: Sequence[RunShares]) -> str:
    """Return one or two sentences on what the spectra of one to four runs show."""
    shown = [run for run in runs if run.flushed]
    if not shown:
        return _without_reference(runs)
    worst = max(shown, key=lambda run: (bool(run.overflowed), run.total))
    if worst.overflowed or worst.total > HEALTHY:
        sentences = [_loss(worst)]
        if len({run.task for run in shown}) > 1:
            return f"{worst.task}: {sentences[0]} The runs train different tasks."
        # FP32 always keeps all: the rescue worth telling is that of a run in a half format.
        others = [run for run in shown if run is not worst and not run.overflowed]
        rescues = [run for run in others if run.precision != "fp32"] or others
        if rescues:
            best = min(rescues, key=lambda run: run.total)
            kept = format_percent(1 - best.total)
            kept = "all" if best.total == 0 else "nearly all" if best.total <= 0.01 else kept
            sentences.append(f"{lead_words(best)}, {kept} of the gradient survives.")
        return " ".join(sentences)
    if len(shown) == 1:
        return _loss(worst)
    most, layer, run = max(
        ((share, layer, run) for run in shown for layer, share in run.flushed.items()), key=lambda one: one[0]
    )
    hit = f" {lead_words(run)}, {layer} loses most: {format_percent(most)}." if most > HEALTHY else ""
    return f"Nearly all gradients survive in every run.{hit}"


def _without_reference(runs: Sequence[RunShares]) -> str:
    """Tell of recorded loops, which have no FP32 pass beside them: what FP16 lost can't be told there."""
    known = [run for run in runs if run.zero is not None]
    if not known:
        return "No gradients were recorded at this step."
    if len(known) == 1 and known[0].precision == "fp32":
        return f"In FP32, {format_percent(known[0].zero or 0.0)} of the gradient values are zero."
    lost = ", ".join(f"{format_percent(run.zero or 0.0)} {lead_words(run, lower=True)}" for run in known)
    return (
        f"Zero among the gradient values: {lost}. Without an FP32 reference nobody can tell which FP16 lost."
    )


def _loss(run: RunShares) -> str:
    lead, layers = lead_words(run), list(run.flushed)
    if run.overflowed:
        return f"{lead}, gradients overflow to Inf and the step is skipped."
    starved = run.starved
    if len(starved) == len(layers):
        return f"{lead}, no layer receives any gradient."
    if starved:
        one = len(starved) == 1
        if starved != layers[: len(starved)]:
            who = starved[0] if one else f"{len(starved)} of {len(layers)} layers"
        else:
            who = "the lowest layer" if one else f"the lowest {len(starved)} of {len(layers)} layers"
        nothing = min(run.flushed[layer] for layer in starved) > NOTHING
        what = "nothing" if nothing else "almost nothing"
        return f"{lead}, {who} {'receives' if one else 'receive'} {what}."
    if run.total <= HEALTHY:
        return f"{lead}, nearly all gradients survive."
    hit = max(layers, key=lambda layer: run.flushed[layer])
    return f"{lead}, {hit} loses {format_percent(run.flushed[hit])} of its gradient."


def lead_words(run: RunShares, *, lower: bool = False) -> str:
    """Return how a sentence on a run begins, as 'With S = 1,024'; in lower case within one."""
    if run.precision == "fp32":
        lead = "In FP32"
    else:
        lead = "Without loss scaling" if run.policy == "none" else f"With {run.scale_words}"
        lead = lead if run.precision == "fp16" else f"{lead} in {run.precision.upper()}"
    return lead[0].lower() + lead[1:] if lower else lead


def ordinal(number: int) -> str:
    """Return a place in words: 1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
