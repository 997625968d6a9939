"""What a run tells of every step: how large its gradients were at S = 1, and what became of each try.

Replay and blame read it. Magnitudes are those of the run itself; where a step was skipped, whose own
gradients are spoilt, those that FP32 had with S = 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lsviz.formats import BF16, FP16, FloatFormat
from lsviz.runs.reader import Run
from lsviz.runs.schema import OWN_LOOP

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Tried:
    """One try of a step as it was recorded.

    Attributes:
        loss_scale: S that the loss was multiplied by.
        finite: Whether all weight gradients were finite.
        amax: Largest unscaled weight gradient; None where nobody asked.
        large_value: Magnitude from which large values were counted; None where nobody asked.
        large_share: Their share.
        layers: Layer -> whether it stayed finite, without those that nothing is known of; None where all
            layers had one S.
        scales: Layer -> its S, where each had its own.
        curable: Whether the batch is finite at S = 1; None where it is finite anyway, or nobody looked.
    """

    loss_scale: float
    finite: bool
    amax: float | None
    large_value: float | None
    large_share: float | None
    layers: Mapping[str, bool] | None
    scales: Mapping[str, float] | None
    curable: bool | None


@dataclass(frozen=True)
class GradientSeries:
    """A run's steps in order. Magnitudes are unscaled; nan where nothing tells.

    Attributes:
        steps: Their numbers.
        loss_scale: S in force, at the last try.
        skipped: Whether the update was left out.
        tries: Of each step, in order.
        top: Largest value of the tensors that the format limits, shape (steps,).
        weights: Largest weight gradient, shape (steps,).
        outputs: Largest gradient at each layer's output, shape (steps, layers); 0 of one that the format
            does not limit.
        own: Largest of each layer's weight gradients, likewise.
        layers: The layers in backward order: modules with weights of their own.
        loss_layer: Whose S the loss is multiplied by, where each layer has one; None where that is unknown.
        weight_values: How many weights there are; 0 where nothing tells.
        hopeless: Whether a step's Inf or NaN has nothing to do with S: the loss has it, or FP32 too.
        format: What gradients are held in, or would be.
        retries: Whether a batch with Inf or NaN is tried again.
        policy: The policy that ran, in its string form.
        partial: Whether only some of the model's gradients were recorded.
    """

    steps: npt.NDArray[np.int64]
    loss_scale: Floats
    skipped: npt.NDArray[np.bool_]
    tries: list[list[Tried]]
    top: Floats
    weights: Floats
    outputs: Floats
    own: Floats
    layers: list[str]
    loss_layer: str | None
    weight_values: int
    hopeless: npt.NDArray[np.bool_]
    format: FloatFormat = FP16
    retries: bool = False
    policy: str = ""
    partial: bool = False


def gradient_series(
    steps: pd.DataFrame,
    outcomes: pd.DataFrame,
    amax: pd.DataFrame,
    *,
    precision: str,
    retries: bool = False,
    weight_values: int = 0,
    policy: str = "",
    partial: bool = False,
    falls_tell: bool = False,
) -> GradientSeries:
    """Return a run's series.

    Args:
        steps: `Run.steps`.
        outcomes: `Run.outcomes`; of a run without them, steps tell what they can.
        amax: `Run.amax`.
        precision: The run's. Of an FP32 run every tensor counts, as if FP16 were to hold it.
        retries: Whether the run tried batches again.
        weight_values: How many weights there are.
        policy: That ran, in its string form.
        partial: Whether only some of the model's gradients were recorded.
        falls_tell: Whether a fall of S tells of an overflow that nobody else noticed, as of one in a step
            that was not recorded.
    """
    numbers = steps["step"].to_numpy(np.int64)
    known = magnitudes_frame(amax, precision)
    known = known[known["step"].isin(numbers)]
    layers = [str(name) for name in known["layer"].cat.categories]
    rows = np.searchsorted(numbers, known["step"].to_numpy(np.int64))
    values, limited = known["unscaled"].to_numpy(np.float64), known["limited"].to_numpy(bool)
    weights = (known["kind"] == "weight_grad").to_numpy(bool)
    owner = known["layer"].cat.codes.to_numpy(np.int64)
    shape = (len(numbers), len(layers))
    cell = rows * len(layers) + owner

    def by_layer(chosen: npt.NDArray[np.bool_]) -> Floats:
        mine = chosen & (owner >= 0)
        return _largest(cell[mine], np.where(limited[mine], values[mine], 0.0), shape[0] * shape[1]).reshape(
            shape
        )

    top = _largest(rows[limited], values[limited], len(numbers))
    tries = _tries(steps, outcomes, falls_tell=falls_tell)
    blamed = np.array([any(tried.curable is False for tried in step) for step in tries], bool)
    return GradientSeries(
        steps=numbers,
        loss_scale=steps["loss_scale"].to_numpy(np.float64),
        skipped=steps["skipped"].to_numpy(bool),
        tries=tries,
        top=top,
        weights=_largest(rows[weights], values[weights], len(numbers)),
        outputs=by_layer(~weights),
        own=by_layer(weights),
        layers=layers,
        loss_layer=_loss_layer(outcomes),
        weight_values=weight_values,
        hopeless=blamed & np.isnan(top),
        format=run_format(precision),
        retries=retries,
        policy=policy,
        partial=partial,
    )


def load_series(run: Run) -> GradientSeries:
    """Return the series of a run's folder.

    Raises:
        RunError: Its JSON files can't be read.
    """
    config = run.config
    columns = ["tensor", "numel"]
    weights = run.exponents(kind="weight_grad", columns=columns).drop_duplicates("tensor")
    return gradient_series(
        run.steps(),
        run.outcomes(),
        run.amax(),
        precision=config.precision,
        retries=config.on_overflow == "retry",
        weight_values=int(weights["numel"].sum()),
        policy=config.policy,
        partial=not run.record.whole,
        falls_tell=run.record.engine == OWN_LOOP,
    )


def run_format(precision: str) -> FloatFormat:
    """Return what a run's gradients are held in, or would be: FP16 for one in FP32."""
    return BF16 if precision == "bf16" else FP16


def magnitudes_frame(amax: pd.DataFrame, precision: str, layout: TensorLayout | None = None) -> pd.DataFrame:
    """Return the largest unscaled magnitude of every tensor at every step where one is known.

    Args:
        amax: `Run.amax`.
        precision: The run's.
        layout: `tensor_layout`, where it is known.

    Returns:
        Columns step, tensor, kind, layer (as `TensorLayout.owners` has it; categories in backward order),
        loss_scale (in force), unscaled, and limited: whether it is held in the half format, where a value can
        be too large. A step with Inf or NaN has its FP32 reference's magnitudes, or none, where that has
        Inf or NaN too.
    """
    steps, scales = amax["step"].to_numpy(np.int64), amax["loss_scale"].to_numpy(np.float64)
    is_reference = amax["reference"].to_numpy(bool)
    beyond = (amax["inf"].to_numpy() > 0) | (amax["nan"].to_numpy() > 0)
    at_spoilt = np.isin(steps, steps[beyond & ~is_reference])
    place = np.flatnonzero(~is_reference & ~at_spoilt)
    unscaled = amax["amax"].to_numpy(np.float64)
    unscaled, scales = unscaled[place] / scales[place], scales[place]
    if at_spoilt.any():
        told = is_reference & at_spoilt & ~np.isin(steps, steps[beyond & is_reference])
        known = _told_frame(amax, np.flatnonzero(told), np.flatnonzero(~is_reference & at_spoilt))
        place = np.concatenate([place, known["place"].to_numpy(np.int64)])
        order = np.argsort(steps[place], kind="stable")
        place = place[order]
        unscaled = np.concatenate([unscaled, known["amax"].to_numpy(np.float64)])[order]
        scales = np.concatenate([scales, known["loss_scale"].to_numpy(np.float64)])[order]
    layout = layout or tensor_layout(amax, precision)
    tensor, kind = (pd.Categorical(amax[name])[place] for name in ("tensor", "kind"))
    limited = np.array([[(t, k) in layout.limited for k in kind.categories] for t in tensor.categories], bool)
    number = {name: i for i, name in enumerate(layout.layers)}
    owner = [number.get(layout.owners.get(t, ""), -1) for t in tensor.categories]
    return pd.DataFrame(
        {
            "step": steps[place],
            "tensor": tensor,
            "kind": kind,
            "layer": pd.Categorical.from_codes(
                np.array(owner, np.int64)[tensor.codes] if len(place) else [],
                categories=pd.Index(layout.layers, dtype=object),
            ),
            "loss_scale": scales,
            "unscaled": unscaled,
            "limited": limited[tensor.codes, kind.codes] if len(place) else np.zeros(0, bool),
        }
    )


def _told_frame(amax: pd.DataFrame, references: Places, recorded: Places) -> pd.DataFrame:
    """Return place and amax of these references, with the S of what was recorded of the same values."""
    keys = ["step", "tensor", "kind"]
    told = amax[[*keys, "amax"]].take(references).assign(place=references)
    return told.merge(amax[[*keys, "loss_scale"]].take(recorded), on=keys)


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Which layer each tensor belongs to, and which tensors a half format limits.

    Attributes:
        layers: Modules with weights of their own, in backward order; where no weights were recorded, all.
        owners: Tensor -> its layer. What a module without weights makes (a ReLU, a whole block) belongs to
            the layer before it in the forward pass.
        limited: (tensor, kind) of all that is held in the run's half format on its way.
    """

    layers: list[str]
    owners: dict[str, str]
    limited: set[tuple[str, str]]


def tensor_layout(amax: pd.DataFrame, precision: str) -> TensorLayout:
    """Return the layout of a run's tensors.

    Args:
        amax: `Run.amax`.
        precision: The run's; in FP32 every tensor counts, as if a half format were to hold it.
    """
    tensors, kinds = (pd.Categorical(amax[name]) for name in ("tensor", "kind"))
    half, recorded = amax["half"].to_numpy(bool), np.flatnonzero(~amax["reference"].to_numpy(bool))
    key = (tensors.codes.astype(np.int64) * len(kinds.categories) + kinds.codes) * 2 + half
    first_seen = recorded[np.sort(np.unique(key[recorded], return_index=True)[1])]
    unique = [(str(tensors[i]), str(kinds[i]), bool(half[i])) for i in first_seen]
    weights = {tensor for tensor, kind, _ in unique if kind == "weight_grad"}
    names = list(dict.fromkeys(tensor for tensor, _, _ in unique))
    owned = {name.rpartition(".")[0] for name in weights} or set(names)
    owners: dict[str, str] = {}
    layers: dict[str, None] = {}
    layer: str | None = None
    for name in reversed(names):  # as the forward pass has them
        if name in weights or name in owned:
            layer = name.rpartition(".")[0] if name in weights else name
            layers.setdefault(layer)
        owners[name] = "" if layer is None else layer
    first = next(iter(layers), "")
    owners = {name: owners[name] if owners[name] in layers else first for name in names}
    limited = {(tensor, kind) for tensor, kind, half in unique if half or precision == "fp32"}
    return TensorLayout(list(layers)[::-1], owners, limited)


def _largest(place: npt.NDArray[np.int64], values: Floats, number: int) -> Floats:
    """Return the largest value of each place; nan where there is none."""
    found = np.full(number, -1.0)
    np.maximum.at(found, place, values)
    return np.where(found < 0, math.nan, found)


def _tries(steps: pd.DataFrame, outcomes: pd.DataFrame, *, falls_tell: bool) -> list[list[Tried]]:
    by_step: dict[int, list[Tried]] = {step: [] for step in steps["step"].tolist()}
    told: list[Any] = list(outcomes.itertuples(index=False))
    for row in told:
        if row.step in by_step:
            by_step[row.step].append(_tried(row))
    plain: list[Any] = list(steps[["step", "loss_scale", "finite", "skipped"]].itertuples(index=False))
    for row in plain:
        if not by_step[row.step]:
            finite = not row.skipped if _missing(row.finite) else bool(row.finite)
            by_step[row.step] = [Tried(row.loss_scale, finite, None, None, None, None, None, None)]
    tries = list(by_step.values())
    if falls_tell:
        scales = steps["loss_scale"].to_numpy(np.float64)
        for i in np.flatnonzero(scales[1:] < scales[:-1]):
            tries[i] = [replace(tried, finite=False) for tried in tries[i]]
    return tries


def _tried(row: Any) -> Tried:
    layers, scales = None, None
    if row.layers is not None:
        layers = {e["layer"]: bool(e["finite"]) for e in row.layers if e["finite"] is not None}
        scales = {e["layer"]: float(e["scale"]) for e in row.layers}
    return Tried(
        loss_scale=row.loss_scale,
        finite=True if _missing(row.finite) else bool(row.finite),
        amax=_optional(row.amax),
        large_value=_optional(row.large_value),
        large_share=_optional(row.large_share),
        layers=layers,
        scales=scales,
        curable=None if _missing(row.curable) else bool(row.curable),
    )


def _loss_layer(outcomes: pd.DataFrame) -> str | None:
    known = outcomes["loss_layer"].dropna()
    return str(known.iloc[0]) if len(known) else None


def _optional(value: Any) -> float | None:
    return None if _missing(value) else float(value)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value != value
