"""What was counted of a backward pass, perhaps still on its device, and the rows that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lsviz.exponents import ExponentHistogram
from lsviz.runs.schema import ExponentRow, Kind
from lsviz.runs.series import AmaxRows, TensorName
from lsviz.training.counting import extremes, histograms

Magnitudes = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Part(NamedTuple):
    """What one call of a module, or one backward pass, contributed to a tensor.

    Attributes:
        tally: What was counted.
        binades: By how many it is to be moved first.
        order: When its gradient came, among all of the step.
    """

    tally: Any
    binades: int
    order: float


@dataclass(frozen=True, slots=True)
class CountedTensor:
    """One tensor of one step, counted and perhaps still on its device.

    Attributes:
        tensor: Its name.
        kind: Activation or weight.
        loss_scale: S of its gradient; None where all gradients of the step have the same.
        counts: What adds up to it.
        dtype: The type that it had, as ``float16``.
        half: As in `lsviz.runs.series.TensorName`.
    """

    tensor: str
    kind: Kind
    loss_scale: float | None
    counts: tuple[Part, ...]
    dtype: str
    half: bool


@dataclass(frozen=True, slots=True)
class CountedStep:
    """What was counted at one step.

    Attributes:
        step: Its number.
        loss_scale: S.
        reference: Whether this was the FP32 pass.
        tensors: Activations in the order of modules, then weights.
    """

    step: int
    loss_scale: float
    reference: bool
    tensors: tuple[CountedTensor, ...]


def exponent_rows(steps: Sequence[CountedStep]) -> list[list[ExponentRow]]:
    """Return each step's rows; whatever lies on a device is fetched in one go."""
    parts = [part.tally for step in steps for tensor in step.tensors for part in tensor.counts]
    unique = list({id(part): part for part in parts}.values())  # names that share a tensor share its tally
    known = dict(zip(map(id, unique), histograms(unique), strict=True))

    def merged(tensor: CountedTensor) -> ExponentHistogram:
        moved = [known[id(part.tally)].shift(part.binades) for part in tensor.counts]
        first, *rest = moved
        for other in rest:
            first = first.merge(other)
        return first

    return [
        [
            ExponentRow(
                step.step,
                tensor.tensor,
                tensor.kind,
                step.reference,
                step.loss_scale if tensor.loss_scale is None else tensor.loss_scale,
                merged(tensor),
            )
            for tensor in step.tensors
        ]
        for step in steps
    ]


def amax_rows(step: CountedStep, rows: Sequence[ExponentRow] | None = None) -> AmaxRows:
    """Return the largest magnitude of each of a step's gradients, in backward order.

    Args:
        step: What was counted.
        rows: Its `exponent_rows`, where they are made anyway; else nothing more is fetched than needed.
    """
    if rows is None:
        amax, inf, nan = _extremes(step.tensors)
    else:
        found = [row.histogram for row in rows]
        amax = np.array([h.amax for h in found], np.float64)
        inf, nan = (np.array([getattr(h, name) for h in found], np.int64) for name in ("inf", "nan"))
    scales = [step.loss_scale if t.loss_scale is None else t.loss_scale for t in step.tensors]
    places = [_place(t, spoilt) for t, spoilt in zip(step.tensors, (inf + nan > 0).tolist(), strict=True)]
    order = sorted(range(len(places)), key=places.__getitem__)
    tensors = [step.tensors[i] for i in order]
    return AmaxRows(
        step=step.step,
        reference=step.reference,
        names=tuple(TensorName(t.tensor, t.kind, t.dtype, t.half) for t in tensors),
        loss_scale=np.array(scales, np.float64)[order],
        amax=amax[order],
        inf=inf[order],
        nan=nan[order],
    )


def _place(tensor: CountedTensor, spoilt: bool) -> float:
    """Return when its gradient first came; of one with Inf or NaN, when that first did."""
    if not spoilt or len(tensor.counts) == 1:
        return tensor.counts[0].order
    _, inf, nan = extremes([part.tally for part in tensor.counts])
    return tensor.counts[int((inf + nan > 0).argmax())].order


def _extremes(tensors: Sequence[CountedTensor]) -> tuple[Magnitudes, Counts, Counts]:
    amax, inf, nan = extremes([part.tally for tensor in tensors for part in tensor.counts])
    if len(amax) > len(tensors):  # some were seen in several passes
        shifts = np.array([part.binades for tensor in tensors for part in tensor.counts])
        starts = np.cumsum([0, *(len(tensor.counts) for tensor in tensors[:-1])])
        amax = np.maximum.reduceat(np.ldexp(amax, shifts), starts)
        inf, nan = np.add.reduceat(inf, starts), np.add.reduceat(nan, starts)
    return amax, inf, nan
