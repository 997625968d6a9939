from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lsviz.runs.config import RunConfig
from lsviz.training.catalog import TASKS, TaskError, TaskSpec
from lsviz.training.engine import Engine
from lsviz.training.loop import StepResult, train
from lsviz.training.tasks.base import Batch, build_task
from lsviz.training.update import ScaleVanishedError


def run(config: RunConfig) -> list[StepResult]:
    return list(train(build_task(config.task), config, Engine.resolve(config.precision, config.device)))


def losses(**settings: object) -> list[float]:
    values = {"task": "sigmoid-mlp", "steps": 25, **settings}
    return [result.step.loss for result in run(RunConfig.build(**values))]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_recording_changes_nothing_bit_for_bit(precision: str) -> None:
    plain = losses(precision=precision, policy="constant:1024", record_every=0, reference_every=0)
    recorded = losses(precision=precision, policy="constant:1024", record_every=1, reference_every=1)
    apart = losses(precision=precision, policy="constant:1024", record_every=3, reference_every=7)
    assert plain == recorded == apart


def test_a_power_of_two_changes_nothing_in_fp32() -> None:
    plain = losses(precision="fp32", policy="none")
    assert losses(precision="fp32", policy="constant:1024") == plain
    assert losses(precision="fp32", policy="constant:2^40") == plain


def test_seeds_differ_and_repeat() -> None:
    assert losses(seed=1) == losses(seed=1)
    assert losses(seed=1) != losses(seed=2)


def test_rows_carry_the_scale_in_force_and_references_carry_1() -> None:
    config = RunConfig.build(
        task="digits-mlp", policy="constant:8", steps=7, record_every=2, reference_every=3
    )
    results = run(config)
    recorded = [r.step.step for r in results if any(not row.reference for row in r.exponents)]
    references = [r.step.step for r in results if any(row.reference for row in r.exponents)]
    assert recorded == [0, 2, 4, 6]
    assert references == [0, 3, 6]
    for result in results:
        assert result.step.loss_scale == 8
        for row in result.exponents:
            assert row.loss_scale == (1.0 if row.reference else 8.0)
            assert row.histogram.exact == row.reference


def test_reference_is_fp32_of_the_same_weights_and_batch() -> None:
    settings = {"task": "sigmoid-mlp", "steps": 3, "record_every": 1, "reference_every": 1}
    full = run(RunConfig.build(precision="fp32", policy="none", **settings))[2]
    rows = {(row.tensor, row.reference): row.histogram for row in full.exponents}
    for (tensor, reference), histogram in rows.items():
        if not reference:
            # In FP32 without scaling the recorded gradient is the reference.
            assert (histogram.counts == rows[tensor, True].counts).all()
            assert histogram.amax == rows[tensor, True].amax


def test_gradscaler_backs_off_at_overflow_and_the_step_is_skipped() -> None:
    config = RunConfig.build(task="digits-mlp", policy="gradscaler:init_scale=2^30", steps=30, record_every=0)
    rows = [r.step for r in run(config)]
    assert rows[0].skipped
    assert not rows[0].finite
    assert rows[1].loss_scale == rows[0].loss_scale / 2
    first = next(i for i, row in enumerate(rows) if not row.skipped)
    assert all(row.skipped for row in rows[:first])
    assert rows[first].finite
    assert rows[-1].loss < rows[first].loss


class Hopeless:
    """A task whose gradients are NaN at every scale."""

    spec = TaskSpec("hopeless", "", "", "", "accuracy", 10, 1, 0.1)

    def build_model(self) -> nn.Module:
        return nn.Linear(2, 1)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def batches(self, seed: int) -> Iterator[Batch]:
        while True:
            yield (torch.tensor([[1.0, torch.nan]]),)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        total: Tensor = model(batch[0]).sum()
        return total

    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        return 0.0


def test_a_scale_that_vanished_stops_the_run_with_a_clear_error() -> None:
    config = RunConfig.build(
        task="hopeless", policy="gradscaler", steps=300, record_every=0, reference_every=0
    )
    with pytest.raises(ScaleVanishedError, match=r"the loss scale fell to .* can't be undone"):
        list(train(Hopeless(), config, Engine.resolve("fp32", "cpu")))


def test_the_metric_is_measured_at_the_end_and_on_the_way() -> None:
    config = RunConfig.build(task="digits-mlp", policy="none", steps=45)
    metrics = [r.step.metric for r in run(config)]
    assert metrics[-1] is not None
    assert 15 <= sum(m is not None for m in metrics) <= 25


@pytest.mark.parametrize("name", TASKS)
def test_every_task_builds_and_repeats_its_batches(name: str) -> None:
    task = build_task(name)
    first, again = next(task.batches(3)), next(build_task(name).batches(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first[0]) == TASKS[name].batch_size
    assert task.loss(task.build_model(), first).ndim == 0


def test_an_unknown_task_lists_the_known() -> None:
    with pytest.raises(TaskError, match="unknown task 'foo'; choose one of: sigmoid-mlp, digits-mlp"):
        build_task("foo")
