"""Every layer's exponents at one step, and one layer's over all steps: what a map of layers is drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lsviz.analysis.findings import RunShares, format_percent, lead_words
from lsviz.analysis.shares import layer_names, lost_shares
from lsviz.exponents import BINS, MIN_EXPONENT
from lsviz.formats import FP16, FloatFormat

LAYER_COLUMNS: Final = (
    *("step", "tensor", "kind", "reference", "loss_scale"),
    *("numel", "zero", "inf", "nan", "counts"),
)
"""What is read of the exponents table."""
RARE: Final = 0.001
"""Of a share below this, the format's limit alone tells what was flushed: a few values prove nothing."""
MOST_STEPS: Final = 400
"""Steps of a history that are drawn; of more, some, evenly spread."""
WORTH_TELLING: Final = 0.01
"""From this flushed share on, a layer's loss is told."""
MOST_TELLING: Final = 0.5
SMALL: Final = FP16.min_exponent - MIN_EXPONENT
"""How many bins lie below FP16's normal range."""


def layers_frame(
    exponents: pd.DataFrame, kind: str, fmt: FloatFormat, *, expected: bool, half: bool = True
) -> pd.DataFrame:
    """Return the exponents of one kind of gradient, a row a tensor and step.

    Args:
        exponents: The exponents table, or some steps or tensors of it (LAYER_COLUMNS).
        kind: ``activation_grad`` or ``weight_grad``. Of the former only layers that own weights count.
        fmt: The format whose limit tells what is flushed.
        expected: Show what FP32 has, times S, where there is a reference; else what was recorded.
        half: Whether the run's gradients were in a format that flushes at all.

    Returns:
        Columns step, tensor, loss_scale, ``flushed`` (NaN without a reference) and ``overflow`` as
        `flushed_frame` has them, ``compared`` (whether there is a reference), ``at_risk`` (how many
        values are not zero in it, or were recorded as not zero), ``shares`` (shape (128,): of those, by
        exponent; what became Inf or NaN is in the last) and ``lost`` (shape (128,), bool: whether FP16
        flushed most of what is there). Order as recorded. Where S is no power of two, FP32's values
        are moved by whole bins.
    """
    chosen = exponents[exponents["kind"].to_numpy() == kind]
    if kind == "activation_grad":
        chosen = chosen[chosen["tensor"].isin(layer_names(exponents))]
    is_reference = chosen["reference"].to_numpy(bool)
    rows, reference = np.flatnonzero(~is_reference), np.flatnonzero(is_reference)
    steps, tensors = chosen["step"].to_numpy(), chosen["tensor"].to_numpy(object)
    keys = list(zip(steps, tensors, strict=True))
    place = {keys[at]: at for at in reference}
    beside = np.array([place.get(keys[at], -1) for at in rows], np.int64)
    compared = beside >= 0
    numel, zero, inf, nan, scale = (
        chosen[name].to_numpy(np.float64) for name in ("numel", "zero", "inf", "nan", "loss_scale")
    )
    gone, spoilt = (inf + nan)[rows], (inf + nan)[beside]
    _, flushed, overflow = lost_shares(numel[rows], zero[rows], gone, zero[beside], spoilt)
    overflow = np.where(compared, overflow, gone / np.maximum(numel[rows], 1))
    counts = chosen["counts"].to_numpy(object)
    kept = _stacked(counts[rows])
    kept[:, -1] += gone
    whole = kept.sum(axis=1)
    shown, lost = kept, np.zeros(kept.shape, bool)
    if compared.any():
        has = np.zeros_like(kept)
        places = np.rint(np.log2(scale[rows][compared])).astype(np.int64)
        has[compared] = _moved(_stacked(counts[beside[compared]]), places)
        whole = np.where(compared, (numel - zero)[beside], whole)
        if expected:
            shown = np.where(compared[:, None], has, kept)
            if half:
                lost = _lost(has, kept, whole, gone > 0, fmt) & compared[:, None]
    shares = shown / np.where(whole > 0, whole, 1.0)[:, None]
    return pd.DataFrame(
        {
            "step": steps[rows],
            "tensor": tensors[rows],
            "loss_scale": scale[rows],
            "flushed": np.where(compared, flushed, np.nan),
            "overflow": overflow,
            "at_risk": whole,
            "compared": compared,
            "shares": list(shares),
            "lost": list(lost),
        }
    )


def thinned_steps(exponents: pd.DataFrame, *, compared: bool) -> pd.DataFrame:
    """Return a tensor's rows at no more than MOST_STEPS steps, the first and every so manieth after it.

    Where all steps lie evenly, so do these: a browser draws such a heat map ten times as fast.

    Args:
        exponents: The exponents table, or part of it.
        compared: Only steps that have a reference, where there is any.
    """
    references = exponents.loc[exponents["reference"].astype(bool), "step"]
    steps = np.unique(references if compared and len(references) else exponents["step"])
    steps = steps[:: math.ceil(len(steps) / MOST_STEPS) or 1]
    return exponents[exponents["step"].isin(steps)]


def named_like(names: Sequence[str], wanted: str) -> list[str]:
    """Return the names that hold any of some comma-separated parts; all where none is given."""
    parts = [part.strip().lower() for part in wanted.split(",") if part.strip()]
    return [name for name in names if not parts or any(part in name.lower() for part in parts)]


def all_names(frames: Sequence[pd.DataFrame]) -> list[str]:
    """Return the tensors of several runs' `layers_frame`, each once, in the order of the models."""
    return list(dict.fromkeys(str(name) for frame in frames for name in frame["tensor"]))


def telling_names(frames: Sequence[pd.DataFrame], names: Sequence[str], most: int, keep: str) -> list[str]:
    """Return the names of those that overflow or lose most in any run, in the order given.

    Where none is known to, those with most values below the normal range.

    Args:
        frames: Of each run, `layers_frame` of one step.
        names: To choose from.
        most: How many to return at most.
        keep: One that is always among them, if it is among the names.
    """
    columns = ["overflow", "flushed", "small"]
    together = pd.concat(
        [frame.assign(small=[row[:SMALL].sum() for row in frame["shares"]]) for frame in frames]
    )
    worst = together.groupby("tensor")[columns].max().fillna(0.0)
    rank = {str(name): tuple(-row) for name, row in zip(worst.index, worst.to_numpy(), strict=True)}
    ranked = sorted(names, key=lambda name: (name != keep, rank[name]))
    chosen = set(ranked[:most])
    return [name for name in names if name in chosen]


def told_shares(layers: pd.DataFrame, precision: str, policy: str) -> RunShares:
    """Return what a sentence on one run at one step is made from.

    Args:
        layers: Its `layers_frame`.
        precision: The run's.
        policy: Its string form.
    """
    known = layers[layers["compared"]]
    weight = known["at_risk"].to_numpy(np.float64)
    return RunShares(
        precision=precision,
        policy=policy,
        loss_scale=float(layers["loss_scale"].min()) if len(layers) else 0.0,
        highest_scale=float(layers["loss_scale"].max()) if len(layers) else 0.0,
        flushed={str(t): float(f) for t, f in zip(known["tensor"], known["flushed"], strict=True)},
        total=float((known["flushed"] * weight).sum() / weight.sum()) if weight.sum() else 0.0,
        overflow={str(t): float(o) for t, o in zip(layers["tensor"], layers["overflow"], strict=True)},
    )


def layers_finding(runs: Sequence[RunShares], noun: str) -> str:
    """Return in one or two sentences which layers lose how much.

    Args:
        runs: One to four runs at one step.
        noun: What a row is: ``layer`` or ``weight``.
    """
    known = [run for run in runs if run.flushed or run.overflowed]
    if not known:
        return f"Where each {noun}'s gradients lie; without an FP32 reference nobody can tell what FP16 lost."
    worst = max(known, key=lambda run: (bool(run.overflowed), _most(run)))
    sentences = [f"{_told(worst, noun)}."]
    others = [run for run in known if run is not worst and not run.overflowed and run.flushed]
    rescues = [run for run in others if run.precision != "fp32"] or others
    if rescues and (worst.overflowed or _most(worst) >= WORTH_TELLING):
        sentences.append(f"{_told(min(rescues, key=_most), noun)}.")
    elif len(known) > 1:
        most = format_percent(max(map(_most, known))).removeprefix("< ")
        return f"In none of these runs does a {noun} lose more than {most}."
    return " ".join(sentences)


def tidy_frame(layers: pd.DataFrame, run_id: str) -> pd.DataFrame:
    """Return `layers_frame` as a table of one row a tensor, step and exponent that has any value."""
    shares, lost = _stacked(layers["shares"]), np.array(layers["lost"].to_list(), bool).reshape(-1, BINS)
    row, place = np.nonzero(shares)
    named = layers.iloc[row][["step", "tensor", "loss_scale"]].reset_index(drop=True)
    named.insert(0, "run", run_id)
    return named.assign(exponent=place + MIN_EXPONENT, share=shares[row, place], flushed=lost[row, place])


def _told(run: RunShares, noun: str) -> str:
    lead = lead_words(run)
    if run.overflowed:
        first, more = run.overflowed[0], len(run.overflowed) - 1
        others = f" and {more} other {noun}{'s' if more > 1 else ''}" if more else ""
        return f"{lead}, {first}{others} overflow{'' if more else 's'}: the step is skipped"
    most = _most(run)
    if most < WORTH_TELLING:
        return (
            f"{lead}, no {noun} loses more than {format_percent(most).removeprefix('< ')}"
            if most
            else f"{lead}, none loses any"
        )
    name = max(run.flushed, key=lambda tensor: run.flushed[tensor])
    half = sum(share > MOST_TELLING for share in run.flushed.values())
    if half > 1:
        most_words = f"{half} of {len(run.flushed)} {noun}s lose more than half of their gradient"
        return f"{lead}, {most_words}, {name} most ({format_percent(most)})"
    return f"{lead}, {name} loses {format_percent(most)} of its gradient"


def _most(run: RunShares) -> float:
    return max(run.flushed.values(), default=0.0)


def _stacked(arrays: Any) -> npt.NDArray[np.float64]:
    return np.array(list(arrays), np.float64).reshape(-1, BINS)


def _moved(counts: npt.NDArray[np.float64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Move each row by its own number of bins; what would leave the range piles up in the end bins."""
    rows = np.arange(len(counts))[:, None] * BINS
    targets = rows + np.clip(np.arange(BINS) + places[:, None], 0, BINS - 1)
    sums = np.bincount(targets.ravel(), counts.ravel(), minlength=counts.size)
    return np.asarray(sums.reshape(counts.shape), np.float64)


def _lost(has: Any, kept: Any, whole: Any, overflowed: Any, fmt: FloatFormat) -> npt.NDArray[np.bool_]:
    """Tell where more than half is missing: past the limit, or above it since it was lost further up."""
    lowest = fmt.min_subnormal_exponent
    low, under = lowest - MIN_EXPONENT, lowest - 1 - MIN_EXPONENT
    present = has.copy()
    present[:, low] += present[:, under]  # what lies just under the smallest subnormal rounds up to it
    lost = (kept < present / 2) & (present >= RARE * np.maximum(whole, 1.0)[:, None])
    lost[:, under] = lost[:, low]
    lost[:, fmt.max_exponent + 1 - MIN_EXPONENT :] = False  # that is Inf, not zero
    lost[overflowed] = False  # what is missing there may be Inf as well
    missing = whole - kept.sum(axis=1) - has[:, :under].sum(axis=1)
    lost[missing < WORTH_TELLING * whole] = False  # only moved a little: no more is gone than must be
    lost[:, :under] = True
    return np.asarray(lost & (has > 0))
