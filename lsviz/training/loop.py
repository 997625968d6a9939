"""The training loop: policy, engine, update rule and recorder around any task. It writes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lsviz.runs.config import RunConfig
from lsviz.runs.schema import ExponentRow, StepRow
from lsviz.runs.series import AmaxRows, OutcomeRow
from lsviz.runs.updatecheck import UpdateRow
from lsviz.training.engine import Engine
from lsviz.training.step import TrainingStep, due
from lsviz.training.tasks.base import Drawing, Task

EVALUATIONS: Final = 20
"""How often a run measures its metric, the last step included."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step as it goes to the run folder and the progress display.

    Attributes:
        step: Its row.
        exponents: What was recorded.
        amax: The largest magnitudes of its gradients.
        outcomes: What each of its tries told the policy.
        picture: What the model draws, where the metric was measured and the task is one to be seen.
        updates: Its update beside float64, where that is checked and it was applied.
    """

    step: StepRow
    exponents: list[ExponentRow]
    amax: list[AmaxRows]
    outcomes: list[OutcomeRow]
    picture: npt.NDArray[np.uint8] | None = None
    updates: list[UpdateRow] = field(default_factory=list)


def train(task: Task, config: RunConfig, engine: Engine) -> Iterator[StepResult]:
    """Train and yield each step's rows; the caller stores and shows them.

    The same config gives the same weights bit for bit, whatever is recorded.

    Raises:
        ScaleVanishedError: The policy's scale fell so low that gradients can't be unscaled.
        PolicyStoppedError: The policy gave up, as the library it follows would.
    """
    torch.manual_seed(config.seed)
    model = with_gain(task.build_model(), config.init_gain).to(engine.device)
    once = TrainingStep(task, model, config, engine)
    batches = task.batches(config.seed)
    policy = config.initial_policy
    evaluate_every = max(1, config.steps // EVALUATIONS)

    with engine.active():
        for step in range(config.steps):
            batch = tuple(t.to(engine.device) for t in next(batches))
            started = time.perf_counter()
            recorded: list[ExponentRow] = []
            recording_s = 0.0
            if due(step, config.reference_every):
                recorded = once.reference_rows(batch, step)
                recording_s = time.perf_counter() - started

            done, policy, stopped = once.take(batch, step, policy)
            recorded = done.exponents + recorded
            recording_s += done.recording_s
            ms = (time.perf_counter() - started - recording_s) * 1e3

            metric, picture = None, None
            if step == config.steps - 1 or (step + 1) % evaluate_every == 0:
                metric, picture = _evaluate(task, model, engine)
            yield StepResult(
                StepRow(
                    step=step,
                    loss=done.loss,
                    metric=metric,
                    loss_scale=done.loss_scale,
                    finite=done.finite_at_first,
                    skipped=done.update.skipped,
                    lr=once.lr,
                    grad_norm=done.update.grad_norm,
                    ms=ms,
                    ms_recording=recording_s * 1e3,
                ),
                recorded,
                done.amax,
                done.outcomes,
                picture,
                [done.checked] if done.checked else [],
            )
            if stopped is not None:
                raise stopped


@torch.no_grad()
def with_gain(model: nn.Module, gain: float) -> nn.Module:
    """Multiply a model's weights of two or more dimensions, which excludes biases and norms; return it."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.mul_(gain)
    return model


def _evaluate(task: Task, model: nn.Module, engine: Engine) -> tuple[float, npt.NDArray[np.uint8] | None]:
    model.eval()
    with engine.autocast():
        metric = task.evaluate(model, engine.device)
        drawn = task.picture(model, engine.device).numpy() if isinstance(task, Drawing) else None
    model.train()
    return metric, drawn
