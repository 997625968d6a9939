"""A step of a recorded loop before anything of it was fetched from a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lsviz.runs.schema import ExponentRow, StepRow
from lsviz.runs.series import OutcomeRow
from lsviz.training.counted import CountedTensor


@dataclass(slots=True)
class PendingStep:
    """What is known as a step ends. Tensors stay where they are until `row`.

    Attributes:
        number: Of the step.
        loss: Unscaled, if told.
        metric: On held-out data, if told.
        lr: Learning rate, if an optimizer ever stepped.
        scale: S in force.
        stepped: Whether an optimizer of the model stepped.
        overflowed: What a fused optimizer, which skips by itself, found: not 0 for Inf or NaN.
        norm: L2 norm of the scaled weight gradients, where they were counted.
        ms: Milliseconds of training, without recording.
        ms_recording: Milliseconds of recording.
        tensors: What was counted.
        knows_weights: Whether weights' gradients are among them.
    """

    number: int
    loss: Any
    metric: Any
    lr: Any
    scale: float | Tensor
    stepped: bool
    overflowed: Tensor | None
    norm: Tensor | None
    ms: float
    ms_recording: float
    tensors: list[CountedTensor] = field(default_factory=list)
    knows_weights: bool = False

    def row(self, scale: float, counted: Sequence[ExponentRow], *, skips: bool) -> StepRow:
        """Return the step's row.

        Args:
            scale: S, fetched.
            counted: The step's exponent rows.
            skips: Whether whatever scales the loss leaves out steps with Inf or NaN.
        """
        weights = [row.histogram for row in counted if row.kind == "weight_grad"]
        finite = all(h.inf == 0 and h.nan == 0 for h in weights) if self.knows_weights else None
        skipped = self._was_skipped(finite, skips)
        return StepRow(
            step=self.number,
            loss=_number(self.loss),
            metric=_number(self.metric),
            loss_scale=scale,
            finite=False if skipped else True if finite is None and skips else finite,
            skipped=skipped,
            lr=_number(self.lr),
            grad_norm=None if self.norm is None else float(self.norm) / scale,
            ms=self.ms,
            ms_recording=self.ms_recording,
        )

    def outcome(self, row: StepRow, counted: Sequence[ExponentRow]) -> OutcomeRow:
        """Return what the step told whatever chooses S, by its own row and its exponent rows.

        Whether the batch is finite at a smaller S nobody tried; a forward pass that is not is no matter of S.
        """
        weights = [row.histogram for row in counted if row.kind == "weight_grad"]
        whole = all(h.inf == 0 and h.nan == 0 for h in weights)
        largest = max((h.amax for h in weights), default=0.0) / row.loss_scale if whole else math.inf
        hopeless = row.skipped and row.loss is not None and not math.isfinite(row.loss)
        return OutcomeRow(
            step=row.step,
            loss_scale=row.loss_scale,
            finite=row.finite,
            amax=largest if self.knows_weights else None,
            curable=False if hopeless else None,
        )

    def _was_skipped(self, finite: bool | None, skips: bool) -> bool:
        if self.overflowed is not None:
            return bool(float(self.overflowed))
        if self.stepped:
            return False
        return skips or finite is False


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
