"""GradScaler's rule against torch's own class, driven for real."""

from __future__ import annotations

import math
import random

import pytest
import torch

from lsviz.policies import GradScaler, Outcome


def drive_torch(pattern: str, **settings: float) -> list[float]:
    """Return torch's scale after each step; O puts an Inf into the gradient."""
    scaler = torch.amp.GradScaler("cpu", **settings)  # type: ignore[arg-type]
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scales = []
    for char in pattern:
        scaler.scale(weight.sum())  # makes the scaler build its state
        weight.grad = torch.tensor([1.0, math.inf if char == "O" else 1.0])
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


def drive_ours(pattern: str, **settings: float) -> list[float]:
    policy = GradScaler(**settings)  # type: ignore[arg-type]
    scales = []
    for char in pattern:
        policy = policy.update(Outcome(finite=char == "."))
        scales.append(policy.loss_scale)
    return scales


@pytest.mark.parametrize("seed", range(40))
def test_scales_are_torchs_on_random_overflows(seed: int) -> None:
    chance = random.Random(seed)
    settings = {
        "init_scale": chance.choice([2.0**16, 2.0**-3, 1000.0, 3.3]),
        "growth_factor": chance.choice([2.0, 1.5, 1.001, 4.0]),
        "backoff_factor": chance.choice([0.5, 0.25, 0.9]),
        "growth_interval": chance.choice([1, 2, 3, 7, 50]),
    }
    odds = chance.choice([0.02, 0.2, 0.6])
    pattern = "".join("O" if chance.random() < odds else "." for _ in range(300))
    assert drive_ours(pattern, **settings) == drive_torch(pattern, **settings)


def test_growth_stops_where_fp32_ends() -> None:
    settings = {"init_scale": 2.0**120, "growth_interval": 1}
    ours = drive_ours("." * 12, **settings)
    assert ours == drive_torch("." * 12, **settings)
    assert ours[-1] == 2.0**127


def test_there_is_no_floor_down_to_zero() -> None:
    settings = {"init_scale": 2.0**-120}
    ours = drive_ours("O" * 40, **settings)
    assert ours == drive_torch("O" * 40, **settings)
    assert ours[-1] == 0.0


def test_defaults_are_torchs() -> None:
    theirs = torch.amp.GradScaler("cpu")
    ours = GradScaler()
    assert ours.growth_factor == theirs.get_growth_factor()
    assert ours.backoff_factor == theirs.get_backoff_factor()
    assert ours.growth_interval == theirs.get_growth_interval()
    assert ours.loss_scale == theirs.get_scale()


def test_an_update_leaves_the_old_value_as_it_was() -> None:
    before = GradScaler()
    after = before.update(Outcome(finite=False))
    assert before.loss_scale == 2.0**16
    assert after.loss_scale == 2.0**15
