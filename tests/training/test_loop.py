from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from lsviz.policies import POLICIES, PolicyStoppedError
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

    spec = TaskSpec("hopeless", "", "", "", "accuracy", 10, 1, 0.1, optimizer="sgd")

    def build_model(self) -> nn.Module:
        return nn.Linear(2, 1)

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


@pytest.mark.parametrize("policy", ["constant:2^-20", "constant:8", "constant:2^24", "megatron", "layerwise"])
@pytest.mark.parametrize("update", [{}, {"clip": 0.1}, {"l2": 0.01}, {"optimizer": "momentum", "lr": 0.1}])
def test_scaling_by_powers_of_two_leaves_fp32_training_bit_for_bit(
    policy: str, update: dict[str, object]
) -> None:
    plain = unscaled(**update)
    assert losses(precision="fp32", policy=policy, **update) == plain


@cache
def unscaled(**update: object) -> list[float]:
    return losses(precision="fp32", policy="none", **update)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_trains(policy: str) -> None:
    config = RunConfig.build(task="digits-mlp", policy=policy, steps=60, record_every=20)
    rows = [r.step for r in run(config)]
    assert rows[-1].loss < 0.8 * rows[0].loss
    assert sum(not row.finite for row in rows[40:]) < 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("policy", ["megatron", "patent", "logmax", "histogram", "layerwise"])
def test_policies_train_on_a_gpu(policy: str) -> None:
    config = RunConfig.build(task="digits-mlp", policy=policy, steps=60, record_every=20, device="cuda")
    rows = [r.step for r in run(config)]
    assert rows[-1].loss < 0.8 * rows[0].loss


def test_statistics_raise_the_scale_before_anything_overflows() -> None:
    for policy in ("patent", "logmax", "histogram"):
        config = RunConfig.build(task="sigmoid-mlp", policy=policy, steps=40, record_every=0)
        rows = [r.step for r in run(config)]
        assert rows[-1].loss_scale >= 2**10, policy
        assert sum(row.skipped for row in rows) < 10, policy


def test_layerwise_gives_each_layer_its_own_scale_in_the_recorded_rows() -> None:
    policy = "layerwise:init_scale=2^16,growth_interval=4"
    config = RunConfig.build(task="sigmoid-mlp", policy=policy, steps=60, record_every=59)
    results = run(config)
    last = {r.tensor: r for r in results[-1].exponents if not r.reference}
    assert last["layer1"].loss_scale > last["output"].loss_scale
    assert last["layer1"].loss_scale == last["layer1.weight"].loss_scale
    skipped = [r.step.step for r in results if r.step.skipped]
    assert 0 < len(skipped) < 30


def test_a_retried_batch_trains_with_a_smaller_scale_and_is_not_skipped() -> None:
    policy = "gradscaler:init_scale=2^30"
    config = RunConfig.build(task="digits-mlp", policy=policy, steps=30, on_overflow="retry")
    rows = [r.step for r in run(config)]
    assert not any(row.skipped for row in rows)
    assert not rows[0].finite
    assert rows[0].loss_scale < 2**30
    # The weights are those of a run that had that scale from the start.
    known = f"gradscaler:init_scale={rows[0].loss_scale}"
    assert [r.loss for r in rows] == losses(task="digits-mlp", policy=known, steps=30, on_overflow="retry")


def test_a_retry_that_changes_nothing_is_not_tried_again() -> None:
    config = RunConfig.build(task="digits-mlp", policy="constant:2^40", steps=3, on_overflow="retry")
    rows = [r.step for r in run(config)]
    assert all(row.skipped for row in rows)


class Dropping(Hopeless):
    """Dropout before a layer: a retried batch must meet the same mask."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 1))

    def batches(self, seed: int) -> Iterator[Batch]:
        while True:
            yield (torch.arange(1.0, 9.0).repeat(4, 1),)


def test_a_retried_batch_meets_the_same_dropout() -> None:
    def loss_curve(policy: str) -> list[float]:
        config = RunConfig.build(
            task="hopeless", policy=policy, steps=20, on_overflow="retry", record_every=0, reference_every=0
        )
        return [r.step.loss for r in train(Dropping(), config, Engine.resolve("fp16", "cpu"))]

    assert loss_curve("gradscaler:init_scale=2^40") == loss_curve("gradscaler:init_scale=2^8")


class Normed(Hopeless):
    """NaN at every scale, and running statistics that count the batches."""

    def build_model(self) -> nn.Module:
        self.model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
        self.tries = 0
        self.model.register_forward_hook(lambda *_: setattr(self, "tries", self.tries + 1))
        return self.model

    def batches(self, seed: int) -> Iterator[Batch]:
        while True:
            yield (torch.tensor([[1.0, torch.nan], [2.0, 3.0]]),)


@pytest.mark.parametrize(
    ("policy", "most"),
    [("logmax", 2), ("mindformers:init_scale=1", 1), ("constant:8", 1), ("gradscaler:init_scale=4", 30)],
)
def test_a_retry_ends_where_the_policy_no_longer_reduces_s(policy: str, most: int) -> None:
    task = Normed()
    config = RunConfig.build(
        task="hopeless", policy=policy, steps=1, on_overflow="retry", record_every=0, reference_every=0
    )
    results = train(task, config, Engine.resolve("fp32", "cpu"))
    if policy.startswith("gradscaler"):  # to the end, where S can't be undone
        with pytest.raises(ScaleVanishedError):
            next(results)
    else:
        assert next(results).step.skipped
        assert task.tries <= most
        assert task.model[0].num_batches_tracked == 1  # type: ignore[index]


def test_a_policy_that_gives_up_ends_the_run_after_its_last_row() -> None:
    config = RunConfig.build(
        task="hopeless", policy="deepspeed:init_scale=4", steps=50, record_every=0, reference_every=0
    )
    rows = []
    results = train(Hopeless(), config, Engine.resolve("fp32", "cpu"))
    with pytest.raises(PolicyStoppedError, match="already at its floor"):
        rows.extend(result.step for result in results)
    assert [row.loss_scale for row in rows] == [4, 4, 2, 1]
    assert all(row.skipped for row in rows)


def test_without_master_weights_small_updates_are_lost() -> None:
    settings = {"precision": "fp16", "policy": "constant:1024", "optimizer": "sgd", "lr": 1e-3}
    master = losses(task="digits-mlp", steps=200, **settings)
    half = losses(task="digits-mlp", steps=200, master_weights=False, **settings)
    assert half[-1] > master[-1]


def test_folding_1_over_s_starves_adam_and_not_sgd() -> None:
    settings = {"task": "digits-mlp", "precision": "fp16", "policy": "constant:1024", "steps": 60}
    assert losses(update="fold-lr", **settings)[-1] > 0.95 * losses(**settings)[0]
    sgd = {**settings, "optimizer": "sgd", "lr": 0.1}
    assert losses(update="fold-lr", **sgd) == pytest.approx(losses(**sgd), rel=1e-3)
