"""One training step: forward, backward, recording and update, tried again where that is asked for."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from lsviz.policies import (
    MAX_RETRIES,
    Layerwise,
    NoScaling,
    Outcome,
    Policy,
    PolicyStoppedError,
    can_fall,
)
from lsviz.runs.config import RunConfig
from lsviz.runs.schema import ExponentRow
from lsviz.runs.series import AmaxRows, OutcomeRow
from lsviz.runs.updatecheck import UpdateRow
from lsviz.training.counted import CountedStep, amax_rows, exponent_rows
from lsviz.training.engine import Engine
from lsviz.training.injection import FaultInjector
from lsviz.training.layerscale import LayerScaling
from lsviz.training.optimizers import build_optimizers
from lsviz.training.recorder import GradientRecorder, Snapshot, untouched
from lsviz.training.tasks.base import Batch, Task
from lsviz.training.update import UpdateResult, UpdateRule, WeightUpdate
from lsviz.training.updatecheck import UpdateCheck

_WEIGHTS: Final = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class StepDone:
    """What became of a batch.

    Attributes:
        loss: Unscaled.
        loss_scale: S that the loss was multiplied by, at the last try.
        update: The last try's result.
        finite_at_first: Whether the first try's gradients were finite.
        exponents: What was recorded at the last try.
        amax: Largest magnitudes at the last try, and of a skipped step those that FP32 has.
        outcomes: What each try told the policy.
        recording_s: Seconds that recording took, all tries together.
        checked: The update beside float64; None where it was skipped, or nobody asked.
    """

    loss: float
    loss_scale: float
    update: UpdateResult
    finite_at_first: bool
    exponents: list[ExponentRow]
    amax: list[AmaxRows]
    outcomes: list[OutcomeRow]
    recording_s: float
    checked: UpdateRow | None = None


class TrainingStep:
    """One batch through forward, backward and update, again and again if it is to be retried."""

    def __init__(self, task: Task, model: torch.nn.Module, config: RunConfig, engine: Engine) -> None:
        self._task, self._model, self._config, self._engine = task, model, config, engine
        optimizers = build_optimizers(model, task.spec, config.optimizer, config.lr)
        rule = _update_rule(config)
        self._update = WeightUpdate(model, optimizers, rule)
        self._check = (
            UpdateCheck(model, task.spec, rule, config.optimizer, config.lr) if config.check_update else None
        )
        self._recorder = GradientRecorder(model)
        self._layers = LayerScaling(model) if config.initial_policy.per_layer else None
        self._records = config.record_every > 0
        self._faults = FaultInjector(model, config.injections)

    @property
    def lr(self) -> float:
        """The learning rate, before 1/S is folded into it."""
        return self._update.lr

    def take(
        self, batch: Batch, step: int, policy: Policy
    ) -> tuple[StepDone, Policy, PolicyStoppedError | None]:
        """Try a batch, and again with ``on_overflow=retry``; tell whether the policy gave up."""
        retries = MAX_RETRIES if self._config.on_overflow == "retry" else 0
        started = time.perf_counter()
        before = Snapshot(self._model) if retries or self._records else None
        recording_s = 0.0 if retries else time.perf_counter() - started
        done, outcome = self._once(batch, step, policy)
        recording_s += done.recording_s
        finite_at_first, outcomes = done.update.finite, [*done.outcomes]
        stopped: PolicyStoppedError | None = None
        while True:
            try:
                after = policy.update(outcome)
            except PolicyStoppedError as error:
                after, stopped = policy, error
            if stopped or done.update.finite or before is None or not retries or not can_fall(policy, after):
                break
            policy = after
            retries -= 1
            before.restore()
            done, outcome = self._once(batch, step, policy)
            recording_s += done.recording_s
            outcomes += done.outcomes
        if not done.update.finite and before is not None and self._records:
            started = time.perf_counter()
            curable, reference = self._examined(batch, step, done, before)
            outcomes[-1] = replace(outcomes[-1], curable=curable)
            done.amax.extend(reference)
            recording_s += time.perf_counter() - started
        done = replace(done, finite_at_first=finite_at_first, recording_s=recording_s, outcomes=outcomes)
        return done, after, stopped

    def reference_rows(self, batch: Batch, step: int) -> list[ExponentRow]:
        """Gradients of the same weights and batch in FP32 with S = 1, leaving the training as it was."""
        return exponent_rows([self._reference(batch, step, rounding=True)])[0]

    def _reference(self, batch: Batch, step: int, *, rounding: bool) -> CountedStep:
        with untouched(self._model):
            with self._faults.at(step), self._recorder.recording(rounding=rounding):
                loss = self._task.loss(self._model, batch)
                (loss * self._config.loss_weight).backward()  # type: ignore[no-untyped-call]
            return self._recorder.counted(step, 1.0, reference=True)

    def _examined(
        self, batch: Batch, step: int, done: StepDone, before: Snapshot
    ) -> tuple[bool | None, list[AmaxRows]]:
        """Examine a batch where there is memory for it: training goes on where there is none."""
        after = Snapshot(self._model)
        try:
            return self._examine(batch, step, done, before)
        except torch.OutOfMemoryError:
            return None, []
        finally:
            after.restore()

    def _examine(
        self, batch: Batch, step: int, done: StepDone, before: Snapshot
    ) -> tuple[bool, list[AmaxRows]]:
        """Tell whether a batch that overflowed is finite at S = 1, and how large it is in FP32."""
        if not math.isfinite(done.loss):
            return False, []  # the forward pass knows nothing of S
        curable = self._layers is not None or done.loss_scale != 1.0
        if curable:
            with untouched(self._model), self._faults.at(step):
                before.restore()
                self._backward(batch, NoScaling())
                curable = all(
                    bool(torch.isfinite(p.grad).all()) for p in self._model.parameters() if p.grad is not None
                )
        before.restore()
        return curable, [amax_rows(self._reference(batch, step, rounding=False))]

    def _once(self, batch: Batch, step: int, policy: Policy) -> tuple[StepDone, Outcome]:
        for parameter in self._model.parameters():
            parameter.grad = None
        exponents: list[ExponentRow] = []
        amax: list[AmaxRows] = []
        seconds = 0.0
        layers = self._layers
        with ExitStack() as during:
            during.enter_context(self._faults.at(step))  # first, so that the recorder sees the fault
            if self._records:
                scale_at = layers.scale_at if layers else None
                # What FP32 has is as good as a reference, and so are its finer counts.
                whole = self._config.precision == "fp32" and due(step, self._config.record_every)
                during.enter_context(self._recorder.recording(rounding=whole, scale_at=scale_at))
            loss, loss_scale = self._backward(batch, policy)
        if self._records:
            weights = layers.weight_scales if layers else None
            counted = self._recorder.counted(step, loss_scale, weight_scales=weights)
            started = time.perf_counter()
            due_now = due(step, self._config.record_every)
            exponents = exponent_rows([counted])[0] if due_now else []
            amax = [amax_rows(counted, exponents if due_now else None)]
            seconds = self._recorder.seconds + time.perf_counter() - started
        by_layer = None
        if layers:
            by_layer = layers.outcomes()
            layers.unscale()
        update, checked, check_s = self._apply(step, 1.0 if layers else loss_scale, policy)
        seconds += check_s
        outcome = Outcome(update.finite, update.amax, update.large_share, by_layer)
        told = OutcomeRow(
            step=step,
            loss_scale=loss_scale,
            finite=outcome.finite,
            amax=outcome.amax,
            large_value=policy.large_value,
            large_share=outcome.large_share,
            layers=layers.told(by_layer) if layers and by_layer is not None else None,
            loss_layer=layers.loss_layer if layers else None,
        )
        done = StepDone(
            loss, loss_scale, update, update.finite, exponents, amax, [told], seconds, checked=checked
        )
        return done, outcome

    def _apply(
        self, step: int, loss_scale: float, policy: Policy
    ) -> tuple[UpdateResult, UpdateRow | None, float]:
        """Update the weights; tell how that compares with float64, and the seconds that this took."""
        if self._check is None:
            return self._update.apply(loss_scale, policy), None, 0.0
        started = time.perf_counter()
        before = self._check.look(loss_scale)
        looked = time.perf_counter()
        update = self._update.apply(loss_scale, policy)
        applied = time.perf_counter()
        checked = self._check.compare(step, before, update)
        return update, checked, time.perf_counter() - applied + looked - started

    def _backward(self, batch: Batch, policy: Policy) -> tuple[float, float]:
        """Forward under autocast, backward from loss x S; return the unscaled loss and S."""
        loss: Tensor
        if self._layers is not None and isinstance(policy, Layerwise):
            with self._layers.forward(policy), self._engine.autocast():
                loss = self._task.loss(self._model, batch)
            loss_scale = self._layers.scale_of_loss(loss)
        else:
            with self._engine.autocast():
                loss = self._task.loss(self._model, batch)
            loss_scale = policy.loss_scale
        (loss.float() * self._config.loss_weight * loss_scale).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), loss_scale


def _update_rule(config: RunConfig) -> UpdateRule:
    return UpdateRule(
        update=config.update,
        clip=config.clip,
        clip_order=config.clip_order,
        l2=config.l2,
        l2_order=config.l2_order,
        weights=None if config.master_weights else _WEIGHTS[config.precision],
    )


def due(step: int, every: int) -> bool:
    """Return whether something that happens every N steps happens at this one; never for 0."""
    return every > 0 and step % every == 0
