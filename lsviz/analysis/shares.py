"""How much of a gradient FP16 flushed: recorded zeros against the FP32 reference's zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Column = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

COUNTED_COLUMNS = ("step", "tensor", "kind", "reference", "loss_scale", "numel", "zero", "inf", "nan")
"""What `flushed_frame` and `layer_names` need of the exponents table."""
FLUSHED_COLUMNS = [
    "step",
    "tensor",
    "kind",
    "loss_scale",
    "numel",
    "structural_zero",
    "lost",
    "flushed",
    "overflow",
]


def flushed_frame(exponents: pd.DataFrame) -> pd.DataFrame:
    """Return what was really flushed, for every tensor and step that has a reference too.

    A value is flushed where the reference is not zero and the recorded gradient is. Histograms hold
    no positions, so the number is the difference of the two zero counts, never below 0.

    Args:
        exponents: The exponents table (`Run.exponents`), or part of it.

    Returns:
        Columns step, tensor, kind, loss_scale, numel, structural_zero (share of numel that is zero in
        the reference too), lost (number of values flushed), flushed (its share of the values that
        are not zero in the reference; 0 where there are none) and overflow (share of numel that is Inf
        or NaN and is neither in the reference). Order as recorded.
    """
    if exponents.empty:
        return pd.DataFrame({name: [] for name in FLUSHED_COLUMNS})
    recorded, reference = _pairs(exponents)
    numel, zero, inf, nan = (exponents[name].to_numpy(np.float64) for name in ("numel", "zero", "inf", "nan"))
    numel, zero_before = numel[recorded], zero[reference]
    lost, flushed, overflow = lost_shares(
        numel, zero[recorded], (inf + nan)[recorded], zero_before, (inf + nan)[reference]
    )
    kept = exponents[["step", "tensor", "kind", "loss_scale", "numel"]].take(recorded).reset_index(drop=True)
    found = kept.assign(
        structural_zero=zero_before / numel, lost=lost.astype(np.int64), flushed=flushed, overflow=overflow
    )
    return found[FLUSHED_COLUMNS]


def _pairs(exponents: pd.DataFrame) -> tuple[Places, Places]:
    """Return where each tensor was recorded at a step that has its reference too, and where that stands."""
    key = np.zeros(len(exponents), np.int64)
    for name in ("step", "tensor", "kind"):
        codes, values = pd.factorize(exponents[name])
        key = key * len(values) + codes
    is_reference = exponents["reference"].to_numpy(bool)
    reference, recorded = np.flatnonzero(is_reference), np.flatnonzero(~is_reference)
    known, first = np.unique(key[reference], return_index=True)
    place = np.searchsorted(known, key[recorded])
    there = place < len(known)
    there[there] = known[place[there]] == key[recorded][there]
    return recorded[there], reference[first[place[there]]]


def lost_shares(
    numel: Column, zero: Column, beyond: Column, reference_zero: Column, reference_beyond: Column
) -> tuple[Column, Column, Column]:
    """Return lost, flushed and overflow as `flushed_frame` tells them, of counts in arrays of one shape.

    Args:
        numel: Of all values.
        zero: Of zeros recorded.
        beyond: Of Inf and NaN recorded.
        reference_zero: Of zeros in the reference.
        reference_beyond: Of Inf and NaN in the reference.
    """
    at_risk = numel - reference_zero
    lost = np.maximum(zero - reference_zero, 0)
    flushed = np.minimum(lost / np.where(at_risk > 0, at_risk, np.inf), 1)
    overflow = np.maximum(beyond - reference_beyond, 0) / np.where(numel > 0, numel, np.inf)
    return lost, flushed, overflow


def layer_names(exponents: pd.DataFrame) -> list[str]:
    """Return the modules that own weights, in the order of the model.

    These are the rows of a picture by layer: an ``activation_grad`` called ``t`` counts where a
    ``weight_grad`` called ``t.something`` was recorded too. Without weight gradients, every recorded
    module counts.
    """
    activations = exponents.loc[exponents["kind"] == "activation_grad", "tensor"]
    weights = exponents.loc[exponents["kind"] == "weight_grad", "tensor"]
    recorded = list(dict.fromkeys(activations))
    owners = {str(name).rpartition(".")[0] for name in weights.unique()}
    layers = [name for name in recorded if name in owners]
    return layers or recorded


def shown_rows(frame: pd.DataFrame, step: int) -> pd.DataFrame:
    """Return the rows of a step that pictures show: of outputs, or of weights where no outputs were recorded.

    Args:
        frame: The exponents table, `flushed_frame`, or part of either.
        step: The step.
    """
    here = frame["step"].to_numpy() == step
    outputs = here & (frame["kind"].to_numpy() == "activation_grad")
    found: pd.DataFrame = frame[outputs if outputs.any() else here]
    return found


def shown_names(exponents: pd.DataFrame) -> list[str]:
    """Return the rows of pictures by layer: `layer_names`, or the weights where no outputs were recorded."""
    return layer_names(exponents) or [str(name) for name in dict.fromkeys(exponents["tensor"])]


def total_flushed_frame(flushed: pd.DataFrame, layers: Sequence[str]) -> pd.DataFrame:
    """Return, a step, the flushed share of all values at the given layers' outputs together.

    Returns:
        Columns step, flushed; ordered by step.
    """
    if flushed.empty:
        return pd.DataFrame({"step": pd.Series(dtype="int64"), "flushed": pd.Series(dtype="float64")})
    outputs = (flushed["kind"] == "activation_grad").to_numpy(bool)
    chosen = outputs & flushed["tensor"].isin(list(layers)).to_numpy(bool)
    lost, numel, zero = (
        flushed[name].to_numpy(np.float64)[chosen] for name in ("lost", "numel", "structural_zero")
    )
    steps, at = np.unique(flushed["step"].to_numpy(np.int64)[chosen], return_inverse=True)
    at_risk = np.bincount(at, numel * (1 - zero), minlength=len(steps))
    share = np.bincount(at, lost, minlength=len(steps)) / np.where(at_risk > 0, at_risk, np.inf)
    return pd.DataFrame({"step": steps, "flushed": share})


def last_flushed(flushed: pd.DataFrame) -> dict[str, float]:
    """Return tensor -> flushed share at the last step that has both, in recorded order."""
    if flushed.empty:
        return {}
    last = flushed[flushed["step"] == flushed["step"].max()]
    return {str(t): float(f) for t, f in zip(last["tensor"], last["flushed"], strict=True)}
