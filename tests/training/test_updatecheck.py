"""The check of the update against a float64 loop of its own, torch's optimizers and torch's own scaler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lsviz.runs.config import RunConfig
from lsviz.runs.updatecheck import LOWEST_RATIO, RATIO_BINS, UpdateRow
from lsviz.training.catalog import TaskSpec
from lsviz.training.engine import Engine
from lsviz.training.loop import StepResult, train
from lsviz.training.optimizers import build_optimizer
from lsviz.training.tasks.base import build_task
from lsviz.training.update import UpdateRule, WeightUpdate
from lsviz.training.updatecheck import UpdateCheck

SPEC = TaskSpec("weights", "", "", "", "accuracy", 10, 1, 0.1)
STEPS = 20
S = 1024.0

DOUBLE: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda w: torch.optim.SGD(w, lr=0.1),
    "momentum": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9),
    "adam": lambda w: torch.optim.Adam(w, lr=0.1),
    "adamw": lambda w: torch.optim.AdamW(w, lr=0.1, weight_decay=0.01),
}


class Two(nn.Module):
    """Two weights with gradients, one of them partly zero, and one that never has any."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.a = nn.Parameter(torch.randn(30, generator=generator))
        self.b = nn.Parameter(torch.cat([torch.zeros(3), torch.randn(7, generator=generator)]))
        self.idle = nn.Parameter(torch.ones(2))


@dataclass
class Watched:
    """A training through `WeightUpdate`, with what it was given and what the check said."""

    first: list[Tensor]
    weights: list[Tensor]
    """a and b after every step, as one."""
    gradients: list[list[Tensor]]
    """Scaled, of a and b at every step."""
    rows: list[UpdateRow]


def gradients_of(model: Two, step: int) -> list[Tensor]:
    """Half-precision gradients of a bowl with noise, scaled; the last two of b's are zero."""
    generator = torch.Generator().manual_seed(step)
    gradients = []
    for weight in (model.a, model.b):
        noise = torch.randn(weight.shape, generator=generator) * 0.3
        gradients.append(((weight.detach() - 0.5 + noise) * S / 64).half().float())
    gradients[1][-2:] = 0
    return gradients


def watch(optimizer: str, rule: UpdateRule) -> Watched:
    model = Two()
    update = WeightUpdate(model, build_optimizer(model.parameters(), SPEC, optimizer, 0.1), rule)
    check = UpdateCheck(model, SPEC, rule, optimizer, 0.1)
    first = [model.a.detach().clone(), model.b.detach().clone()]
    watched = Watched(first, [], [], [])
    for step in range(STEPS):
        gradients = gradients_of(model, step)
        watched.gradients.append([g.clone() for g in gradients])
        model.a.grad, model.b.grad = gradients
        before = check.look(S)
        row = check.compare(step, before, update.apply(S))
        assert row is not None
        watched.rows.append(row)
        watched.weights.append(torch.cat([model.a, model.b]).detach().double())
    return watched


def ideal(watched: Watched, optimizer: str, *, clip: float | None = None, l2: float = 0.0) -> list[Tensor]:
    """The weights after every step of torch's optimizer in double, on the unscaled gradients."""
    weights = [w.double().requires_grad_() for w in watched.first]
    stepper = DOUBLE[optimizer](weights)
    after = []
    for gradients in watched.gradients:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.double() / S
        if clip is not None:
            nn.utils.clip_grad_norm_(weights, clip)
        for weight in weights:
            weight.grad = weight.grad + l2 * weight.detach() if weight.grad is not None else None
        stepper.step()
        after.append(torch.cat([w.detach().clone() for w in weights]))
    return after


RULES = {
    "right": UpdateRule(),
    "fold-lr": UpdateRule(update="fold-lr"),
    "none": UpdateRule(update="none"),
    "clip": UpdateRule(clip=0.05),
    "clip before": UpdateRule(clip=0.05, clip_order="before"),
    "clip scaled": UpdateRule(clip=0.05, clip_order="scaled"),
    "l2": UpdateRule(l2=0.3),
    "clip, l2": UpdateRule(clip=0.05, l2=0.3),
    "fp16 weights": UpdateRule(weights=torch.float16),
}


@pytest.mark.parametrize("optimizer", list(DOUBLE))
@pytest.mark.parametrize("name", list(RULES))
def test_rows_are_what_a_float64_loop_of_its_own_says(name: str, optimizer: str) -> None:
    rule = RULES[name]
    watched = watch(optimizer, rule)
    first = torch.cat(watched.first).double()
    if rule.weights:
        watched.first = [w.half().float() for w in watched.first]
        first = first.half().double()
    right = ideal(watched, optimizer, clip=rule.clip, l2=rule.l2)
    idle = 2
    for step, row in enumerate(watched.rows):
        before = watched.weights[step - 1] if step else first
        before_ideal = right[step - 1] if step else first
        distance = float((right[step] - first).norm())
        assert row.distance == pytest.approx(distance, rel=1e-9)
        error = float((watched.weights[step] - right[step]).norm()) / distance
        assert row.weight_error == pytest.approx(error, rel=1e-6, abs=1e-12)
        assert row.step_size == pytest.approx(float((watched.weights[step] - before).norm()), rel=1e-9)
        change = (right[step] - before_ideal).numpy()
        assert row.ideal_step_size == pytest.approx(float(np.linalg.norm(change)), rel=1e-6)
        moves, stays = change != 0, (watched.weights[step] == before).numpy()
        assert row.stalled == pytest.approx((moves & stays).sum() / moves.sum())
        stored = before.numpy()
        kept = moves & (stored != 0)
        exponents = np.floor(np.log2(np.abs(change[kept] / stored[kept])))
        expected = np.bincount(np.clip(exponents - LOWEST_RATIO, 0, RATIO_BINS - 1).astype(int))
        np.testing.assert_array_equal(np.trim_zeros(row.counts, "b"), np.trim_zeros(expected, "b"))
        assert row.counts.sum() + row.zero_weights + row.zero_updates == row.numel == 40 + idle
        assert row.moved.sum() == (kept & ~stays).sum()
        assert (row.moved <= row.counts).all()


@pytest.mark.parametrize("optimizer", list(DOUBLE))
@pytest.mark.parametrize("clip", [None, 0.05])
def test_the_ideal_weights_are_those_of_torchs_scaler_in_double(optimizer: str, clip: float | None) -> None:
    watched = watch(optimizer, UpdateRule(clip=clip))
    weights = [w.double().requires_grad_() for w in watched.first]
    stepper = DOUBLE[optimizer](weights)
    scaler = torch.amp.GradScaler("cpu", init_scale=S, growth_interval=10_000)
    for gradients, weight, row in zip(watched.gradients, watched.weights, watched.rows, strict=True):
        loss = sum((w * g.double() / S).sum() for w, g in zip(weights, gradients, strict=True))
        scaler.scale(loss).backward()
        scaler.unscale_(stepper)
        if clip is not None:
            nn.utils.clip_grad_norm_(weights, clip)
        scaler.step(stepper)
        scaler.update()
        stepper.zero_grad()
        theirs = torch.cat([w.detach() for w in weights])
        way = float((theirs - torch.cat(watched.first)).norm())
        assert row.distance == pytest.approx(way, rel=1e-9)
        assert row.weight_error == pytest.approx(float((weight - theirs).norm()) / way, rel=1e-5, abs=1e-12)


def test_the_norm_that_clipping_sees_and_what_it_makes_of_it() -> None:
    def last(rule: UpdateRule) -> tuple[UpdateRow, float]:
        watched = watch("sgd", rule)
        return watched.rows[-1], float(torch.cat(watched.gradients[-1]).double().norm()) / S

    for clip in (None, 0.05):
        row, norm = last(UpdateRule(clip=clip))
        assert (row.norm, row.norm_seen) == (pytest.approx(norm, rel=1e-12), pytest.approx(norm, rel=1e-6))
        assert row.clip_threshold == clip
        assert row.clip_factor == pytest.approx(1.0 if clip is None else clip / norm, rel=1e-4)
    row, norm = last(UpdateRule(clip=0.05, clip_order="before"))
    assert row.norm_seen == pytest.approx(S * norm, rel=1e-6)
    assert (row.clip_threshold, row.clip_factor) == (0.05, pytest.approx(0.05 / norm / S, rel=1e-4))
    row, norm = last(UpdateRule(clip=0.05, clip_order="scaled"))
    assert row.norm_seen == pytest.approx(S * norm, rel=1e-6)
    assert (row.clip_threshold, row.clip_factor) == (0.05 * S, pytest.approx(0.05 / norm, rel=1e-4))
    # Where nothing is unscaled, after is as early as before, clipping or not.
    for clip in (None, 0.05):
        row, norm = last(UpdateRule(update="fold-lr", clip=clip))
        assert row.norm_seen == pytest.approx(S * norm, rel=1e-6)


@pytest.mark.parametrize("order", ["before", "scaled"])
@pytest.mark.parametrize("clip", [None, 1e6])
def test_a_penalty_that_joins_before_clipping_is_in_both_norms(order: str, clip: float | None) -> None:
    rule = UpdateRule(l2=0.3, l2_order=order, clip=clip)  # type: ignore[arg-type]
    watched = watch("sgd", rule)
    row, gradient = watched.rows[0], torch.cat(watched.gradients[0]).double() / S
    first = torch.cat(watched.first).double()
    factor = 0.3 if order == "scaled" else 0.3 / S
    assert row.norm_seen == pytest.approx(float((gradient + factor * first).norm()), rel=1e-6)
    assert row.norm == pytest.approx(float((gradient + 0.3 * first).norm()), rel=1e-12)


def test_right_rules_stay_at_fp32s_rounding_and_wrong_ones_part() -> None:
    def error(optimizer: str, **rule: object) -> float:
        return watch(optimizer, UpdateRule(**rule)).rows[-1].weight_error  # type: ignore[arg-type]

    for right in ({}, {"l2": 0.3}, {"l2": 0.3, "l2_order": "scaled"}, {"clip": 0.05}):
        assert error("sgd", **right) < 1e-5
    assert error("sgd", update="fold-lr") < 1e-5
    assert error("adam", update="fold-lr") > 0.9
    assert error("sgd", update="none") > 100
    assert 1e-9 < error("adam", update="none") < 1e-3
    assert error("sgd", clip=0.05, clip_order="before") > 0.9
    assert error("sgd", l2=0.3, l2_order="before") > 0.1
    assert error("sgd", weights=torch.float16) > 10 * error("sgd")


def test_weights_that_have_not_moved_have_no_error() -> None:
    model = Two()
    rule = UpdateRule()
    update = WeightUpdate(model, build_optimizer(model.parameters(), SPEC, "sgd", 0.1), rule)
    check = UpdateCheck(model, SPEC, rule, "sgd", 0.1)
    model.a.grad = torch.zeros(30)
    row = check.compare(0, check.look(S), update.apply(S))
    assert row is not None
    assert math.isnan(row.weight_error)
    assert math.isnan(row.stalled)
    assert (row.distance, row.step_size, row.zero_updates, row.zero_weights) == (0, 0, 39, 3)


def trained(monkeypatch: pytest.MonkeyPatch, **settings: object) -> tuple[list[StepResult], list[Tensor]]:
    """A task's real training, and its weights at the end."""
    config = RunConfig.build(**{"task": "digits-mlp", "steps": 12, "policy": "constant:1024", **settings})
    task = build_task(config.task)
    models: list[nn.Module] = []
    build = task.build_model

    def keep() -> nn.Module:
        models.append(build())
        return models[-1]

    monkeypatch.setattr(task, "build_model", keep)
    results = list(train(task, config, Engine.resolve(config.precision, "cpu")))
    return results, [p.detach().clone() for p in models[0].parameters()]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "sgd", "clip": 0.1, "clip_order": "before", "update": "fold-lr"},
        {"master_weights": False, "l2": 0.01, "l2_order": "scaled", "record_every": 1},
        {"policy": "layerwise", "optimizer": "momentum", "clip": 0.1},
        {"policy": "gradscaler:init_scale=2^30", "on_overflow": "retry", "optimizer": "adamw"},
        {"task": "dcgan", "steps": 3},
    ],
)
def test_training_is_the_same_bit_for_bit(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, weights = trained(monkeypatch, **settings)
    checked, same = trained(monkeypatch, check_update=True, **settings)
    assert [r.step.loss for r in plain] == [r.step.loss for r in checked]
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert not any(r.updates for r in plain)
    applied = [r.step.step for r in checked if not r.step.skipped]
    assert [u.step for r in checked for u in r.updates] == applied
    assert applied


def test_skipped_steps_move_neither_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    results, _ = trained(monkeypatch, policy="gradscaler:init_scale=2^30", steps=30, check_update=True)
    assert results[0].step.skipped
    rows = [u for r in results for u in r.updates]
    assert 0 < len(rows) < 30
    assert rows[0].loss_scale == next(r.step.loss_scale for r in results if not r.step.skipped)
    assert max(row.weight_error for row in rows) < 1e-4


def test_under_layerwise_gradients_are_taken_as_they_are_unscaled(monkeypatch: pytest.MonkeyPatch) -> None:
    results, _ = trained(monkeypatch, policy="layerwise", check_update=True)
    rows = [u for r in results for u in r.updates]
    assert {row.loss_scale for row in rows} == {1.0}
    assert max(row.weight_error for row in rows) < 1e-4


def test_half_weights_lose_what_lies_below_half_their_last_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"optimizer": "sgd", "lr": 0.02, "check_update": True, "steps": 40}
    for master, lost in ((True, -26), (False, -13)):
        results, _ = trained(monkeypatch, master_weights=master, **settings)
        counts = np.sum([u.counts for r in results for u in r.updates], axis=0, dtype=np.int64)
        moved = np.sum([u.moved for r in results for u in r.updates], axis=0, dtype=np.int64)
        exponents = np.arange(RATIO_BINS) + LOWEST_RATIO
        certain = exponents > lost + 2
        assert moved[exponents < lost].sum() == 0
        assert counts[certain].sum() > 1000
        assert moved[certain].sum() / counts[certain].sum() > 0.999
