"""One training step: forward, backward, recording and update, tried again where that is asked for."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from lsviz.policies import Layerwise, Outcome, Policy, PolicyStoppedError
from lsviz.runs.config import RunConfig
from lsviz.runs.schema import ExponentRow
from lsviz.training.engine import Engine
from lsviz.training.layerscale import LayerScaling
from lsviz.training.optimizers import build_optimizers
from lsviz.training.recorder import GradientRecorder, Snapshot, untouched
from lsviz.training.tasks.base import Batch, Task
from lsviz.training.update import UpdateResult, UpdateRule, WeightUpdate

MAX_RETRIES: Final = 300
"""After so many tries a batch is given up; halving S takes 252 from its highest to its lowest."""
FORESIGHT: Final = 64
"""How many further overflows are tried out to learn whether a policy would still reduce S."""

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
        recording_s: Seconds that recording took, all tries together.
    """

    loss: float
    loss_scale: float
    update: UpdateResult
    finite_at_first: bool
    exponents: list[ExponentRow]
    recording_s: float


class TrainingStep:
    """One batch through forward, backward and update, again and again if it is to be retried."""

    def __init__(self, task: Task, model: torch.nn.Module, config: RunConfig, engine: Engine) -> None:
        self._task, self._model, self._config, self._engine = task, model, config, engine
        optimizers = build_optimizers(model, task.spec, config.optimizer, config.lr)
        self._update = WeightUpdate(model, optimizers, _update_rule(config))
        self._recorder = GradientRecorder(model)
        self._layers = LayerScaling(model) if config.initial_policy.per_layer else None

    @property
    def lr(self) -> float:
        """The learning rate, before 1/S is folded into it."""
        return self._update.lr

    def take(
        self, batch: Batch, step: int, policy: Policy
    ) -> tuple[StepDone, Policy, PolicyStoppedError | None]:
        """Try a batch, and again with ``on_overflow=retry``; tell whether the policy gave up."""
        retries = MAX_RETRIES if self._config.on_overflow == "retry" else 0
        before = Snapshot(self._model) if retries else None
        done, outcome = self._once(batch, step, policy)
        finite_at_first, recording_s = done.update.finite, done.recording_s
        while True:
            try:
                after = policy.update(outcome)
            except PolicyStoppedError as error:
                return done, policy, error
            if done.update.finite or before is None or not retries or not _can_fall(policy, after):
                return done, after, None
            policy = after
            retries -= 1
            before.restore()
            done, outcome = self._once(batch, step, policy)
            recording_s += done.recording_s
            done = replace(done, finite_at_first=finite_at_first, recording_s=recording_s)

    def reference_rows(self, batch: Batch, step: int) -> list[ExponentRow]:
        """Gradients of the same weights and batch in FP32 with S = 1, leaving the training as it was."""
        with untouched(self._model):
            with self._recorder.recording(rounding=True):
                loss = self._task.loss(self._model, batch)
                (loss * self._config.loss_weight).backward()  # type: ignore[no-untyped-call]
            return self._recorder.rows(step, 1.0, reference=True)

    def _once(self, batch: Batch, step: int, policy: Policy) -> tuple[StepDone, Outcome]:
        for parameter in self._model.parameters():
            parameter.grad = None
        exponents: list[ExponentRow] = []
        seconds = 0.0
        layers = self._layers
        with ExitStack() as during:
            recording = due(step, self._config.record_every)
            if recording:
                scale_at = layers.scale_at if layers else None
                during.enter_context(self._recorder.recording(scale_at=scale_at))
            loss, loss_scale = self._backward(batch, policy)
        if recording:
            weights = layers.weight_scales if layers else None
            exponents = self._recorder.rows(step, loss_scale, weight_scales=weights)
            seconds = self._recorder.seconds
        by_layer = None
        if layers:
            by_layer = layers.outcomes()
            layers.unscale()
        update = self._update.apply(1.0 if layers else loss_scale, policy)
        outcome = Outcome(update.finite, update.amax, update.large_share, by_layer)
        return StepDone(loss, loss_scale, update, update.finite, exponents, seconds), outcome

    def _backward(self, batch: Batch, policy: Policy) -> tuple[float, float]:
        """Forward under autocast, backward from loss x S; return the unscaled loss and S."""
        loss: Tensor
        if self._layers is not None and isinstance(policy, Layerwise):
            with self._layers.forward(policy), self._engine.autocast():
                loss = self._task.loss(self._model, batch)
            loss_scale = self._layers.scale_at(loss)
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


def _can_fall(policy: Policy, after: Policy) -> bool:
    """Whether an overflow has changed S, or further ones would: hysteresis lets some pass first."""
    start = policy.loss_scale
    for _ in range(FORESIGHT):
        if after.loss_scale != start:
            return True
        try:
            after = after.update(Outcome(finite=False))
        except PolicyStoppedError:
            return False
    return False
