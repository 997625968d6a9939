"""The training loop: policy, engine, update rule and recorder around any task. It writes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lsviz.policies import Outcome
from lsviz.runs.config import RunConfig
from lsviz.runs.schema import ExponentRow, StepRow
from lsviz.training.engine import Engine
from lsviz.training.recorder import GradientRecorder, untouched
from lsviz.training.tasks.base import Batch, Task
from lsviz.training.update import unscaled_step

EVALUATIONS = 20
"""How often a run measures its metric, the last step included."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step as it goes to the run folder and the progress display."""

    step: StepRow
    exponents: list[ExponentRow]


def train(task: Task, config: RunConfig, engine: Engine) -> Iterator[StepResult]:
    """Train and yield each step's rows; the caller stores and shows them.

    The same config gives the same weights bit for bit, whatever is recorded.

    Raises:
        ScaleVanishedError: The policy's scale fell so low that gradients can't be unscaled.
    """
    torch.manual_seed(config.seed)
    model = task.build_model().to(engine.device)
    optimizer = task.build_optimizer(model)
    batches = task.batches(config.seed)
    recorder = GradientRecorder(model)
    policy = config.initial_policy
    evaluate_every = max(1, config.steps // EVALUATIONS)

    with engine.active():
        for step in range(config.steps):
            batch = tuple(t.to(engine.device) for t in next(batches))
            started = time.perf_counter()
            recorded: list[ExponentRow] = []
            recording_s = 0.0
            if _due(step, config.reference_every):
                recorded = _reference_rows(task, model, batch, recorder, step)
                recording_s = time.perf_counter() - started

            loss_scale = policy.loss_scale
            optimizer.zero_grad(set_to_none=True)
            if _due(step, config.record_every):
                with recorder.recording():
                    loss = _backward(task, model, batch, engine, loss_scale)
                recorded = recorder.rows(step, loss_scale) + recorded
                recording_s += recorder.seconds
            else:
                loss = _backward(task, model, batch, engine, loss_scale)
            update = unscaled_step(model, optimizer, loss_scale)
            policy = policy.update(Outcome(finite=update.finite))
            ms = (time.perf_counter() - started - recording_s) * 1e3

            last = step == config.steps - 1
            metric = None
            if last or (step + 1) % evaluate_every == 0:
                metric = _evaluate(task, model, engine)
            yield StepResult(
                StepRow(
                    step=step,
                    loss=loss,
                    metric=metric,
                    loss_scale=loss_scale,
                    finite=update.finite,
                    skipped=update.skipped,
                    lr=optimizer.param_groups[0]["lr"],
                    grad_norm=update.grad_norm,
                    ms=ms,
                    ms_recording=recording_s * 1e3,
                ),
                recorded,
            )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _backward(task: Task, model: torch.nn.Module, batch: Batch, engine: Engine, loss_scale: float) -> float:
    """Forward under autocast, then backward from loss x S, and return the unscaled loss."""
    with engine.autocast():
        loss = task.loss(model, batch)
    (loss.float() * loss_scale).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _reference_rows(
    task: Task, model: torch.nn.Module, batch: Batch, recorder: GradientRecorder, step: int
) -> list[ExponentRow]:
    """Gradients of the same weights and batch in FP32 with S = 1, leaving the training as it was."""
    with untouched(model):
        with recorder.recording(rounding=True):
            task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        return recorder.rows(step, 1.0, reference=True)


def _evaluate(task: Task, model: torch.nn.Module, engine: Engine) -> float:
    model.eval()
    with engine.autocast():
        metric = task.evaluate(model, engine.device)
    model.train()
    return metric
