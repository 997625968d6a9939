from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lsviz.training.update import ScaleVanishedError, unscaled_step


def layer_with_gradient(values: list[float]) -> tuple[nn.Linear, torch.optim.SGD]:
    layer = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    layer.weight.grad = torch.tensor([values])
    return layer, torch.optim.SGD(layer.parameters(), lr=1.0)


def drive_torch(values: list[float], scale: float) -> torch.Tensor:
    """The weights after GradScaler("cpu") unscaled and stepped."""
    layer, optimizer = layer_with_gradient(values)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    return layer.weight.detach()


@pytest.mark.parametrize("scale", [1.0, 1024.0, 3.0, 1e5, 2.0**-20])
def test_weights_are_those_of_torchs_scaler(scale: float) -> None:
    values = [1.0, -3e-5, 1e4, 0.1, 0.0]
    layer, optimizer = layer_with_gradient(values)
    result = unscaled_step(layer, optimizer, scale)
    assert result.finite
    assert not result.skipped
    assert torch.equal(layer.weight, drive_torch(values, scale))
    assert result.grad_norm == pytest.approx(math.hypot(*values) / scale, rel=1e-6)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_step_with_inf_or_nan_is_skipped(bad: float) -> None:
    layer, optimizer = layer_with_gradient([1.0, bad])
    result = unscaled_step(layer, optimizer, 8.0)
    assert result.skipped
    assert not result.finite
    assert torch.equal(layer.weight, torch.zeros(1, 2))


@pytest.mark.parametrize("scale", [0.0, 2.0**-149, 2.0**-130])
def test_a_scale_without_a_finite_inverse_is_refused(scale: float) -> None:
    layer, optimizer = layer_with_gradient([1.0])
    with pytest.raises(ScaleVanishedError, match="1/S is infinite"):
        unscaled_step(layer, optimizer, scale)


def test_a_model_without_gradients_steps_in_peace() -> None:
    layer = nn.Linear(2, 1)
    result = unscaled_step(layer, torch.optim.SGD(layer.parameters(), lr=1.0), 4.0)
    assert result.finite
    assert result.grad_norm == 0.0
