"""Weight updates against float64 references of unscaled training, and against torch's own scaler."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lsviz.errors import UserError
from lsviz.policies import parse_policy
from lsviz.runs.updates import update_warnings
from lsviz.training.catalog import TaskSpec
from lsviz.training.optimizers import build_optimizer
from lsviz.training.update import (
    ScaleVanishedError,
    UpdateRule,
    WeightUpdate,
    largest,
    share_at_or_above,
)

SIZE = 50
STEPS = 20


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
    result = WeightUpdate(layer, optimizer).apply(scale)
    assert result.finite
    assert not result.skipped
    assert torch.equal(layer.weight, drive_torch(values, scale))
    assert result.grad_norm == pytest.approx(math.hypot(*values) / scale, rel=1e-6)


RULES = [
    UpdateRule(),
    UpdateRule(update="fold-lr"),
    UpdateRule(update="none"),
    UpdateRule(clip=1.0, clip_order="before"),
    UpdateRule(l2=0.1, l2_order="scaled"),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_step_with_inf_or_nan_is_skipped_under_every_rule(rule: UpdateRule, bad: float) -> None:
    layer, optimizer = layer_with_gradient([1.0, bad])
    result = WeightUpdate(layer, optimizer, rule).apply(8.0)
    assert result.skipped
    assert not result.finite
    assert torch.equal(layer.weight, torch.zeros(1, 2))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [0.0, 2.0**-149, 2.0**-128])
def test_a_scale_without_a_finite_inverse_is_refused(rule: UpdateRule, scale: float) -> None:
    layer, optimizer = layer_with_gradient([1.0])
    with pytest.raises(ScaleVanishedError, match="1/S is infinite"):
        WeightUpdate(layer, optimizer, rule).apply(scale)
    assert torch.equal(layer.weight, torch.zeros(1, 1))


def test_the_smallest_scales_that_can_be_undone_are_taken() -> None:
    layer, optimizer = layer_with_gradient([2.0**-127])
    WeightUpdate(layer, optimizer).apply(2.0**-127)
    assert layer.weight.item() == -1.0


def test_a_model_without_gradients_steps_in_peace() -> None:
    layer = nn.Linear(2, 1)
    result = WeightUpdate(layer, torch.optim.SGD(layer.parameters(), lr=1.0)).apply(4.0)
    assert result.finite
    assert result.grad_norm == 0.0


def gradient_of(weight: Tensor, step: int) -> Tensor:
    """The gradient of 1/2 |A (w - target_t)|^2 / n, which pulls towards a target that moves."""
    generator = torch.Generator().manual_seed(step)
    noise = torch.randn(SIZE, generator=generator, dtype=torch.float64)
    curvature = torch.linspace(0.1, 3.0, SIZE, dtype=torch.float64)
    return curvature * (weight.double() - 1.0 - 0.5 * noise) / SIZE


Rates = {"sgd": 0.1, "momentum": 0.1, "adam": 0.1, "adamw": 0.1}


def reference(
    optimizer: str,
    *,
    clip: float | None = None,
    l2: float = 0.0,
    l2_before_clip: bool = False,
    gradient_factor: float = 1.0,
    lr_factor: float = 1.0,
) -> Tensor:
    """The weights after float64 training, every optimizer written out."""
    w = torch.zeros(SIZE, dtype=torch.float64)
    buffer = torch.zeros_like(w)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    lr = Rates[optimizer] * lr_factor
    for step in range(STEPS):
        g = gradient_of(w, step) * gradient_factor
        if l2_before_clip:
            g = g + l2 * w
        if clip is not None:
            g = g * min(1.0, clip / (float(g.norm()) + 1e-6))
        if not l2_before_clip:
            g = g + l2 * w
        if optimizer == "sgd":
            w = w - lr * g
        elif optimizer == "momentum":
            buffer = 0.9 * buffer + g
            w = w - lr * buffer
        else:
            if optimizer == "adamw":
                w = w * (1 - lr * 0.01)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            w = w - lr * m_hat / (v_hat.sqrt() + 1e-8)
    return w


SPEC = TaskSpec("weights", "", "", "", "accuracy", 10, 1, 3e-3)


def test_a_run_takes_the_tasks_optimizer_and_rate_unless_it_chooses() -> None:
    def built(name: str, lr: float | None, spec: TaskSpec = SPEC) -> tuple[str, float, float]:
        optimizer = build_optimizer(Weights().parameters(), spec, name, lr)
        group = optimizer.param_groups[0]
        return type(optimizer).__name__, group["lr"], group.get("momentum", 0.0)

    assert built("task", None) == ("Adam", 3e-3, 0.0)
    assert built("task", 0.2) == ("Adam", 0.2, 0.0)
    assert built("adamw", None) == ("AdamW", 3e-3, 0.0)
    assert built("sgd", None) == ("SGD", 0.5, 0.0)
    assert built("momentum", 0.2) == ("SGD", 0.2, 0.9)
    assert built("task", None, replace(SPEC, optimizer="sgd")) == ("SGD", 3e-3, 0.0)


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(SIZE))


def trained(optimizer: str, rule: UpdateRule, scale: Callable[[int], float] | float = 1024.0) -> Tensor:
    """The weights after the same training through `WeightUpdate`, with scaled FP32 gradients."""
    model = Weights()
    update = WeightUpdate(model, build_optimizer(model.parameters(), SPEC, optimizer, Rates[optimizer]), rule)
    for step in range(STEPS):
        s = scale(step) if callable(scale) else scale
        model.w.grad = (gradient_of(model.w.detach(), step) * s).float()
        assert update.apply(s).finite
    return model.w.detach().double()


def worst(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


EXACT = 1e-5
OPTIMIZERS = ["sgd", "momentum", "adam", "adamw"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scale", [1.0, 1024.0, 2.0**-10, 777.7])
def test_unscaling_is_right_for_every_optimizer(optimizer: str, scale: float) -> None:
    assert worst(trained(optimizer, UpdateRule(), scale), reference(optimizer)) < EXACT


def changing(step: int) -> float:
    return 1024.0 if step < STEPS // 2 else 512.0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_unscaling_is_right_while_s_changes(optimizer: str) -> None:
    assert worst(trained(optimizer, UpdateRule(), changing), reference(optimizer)) < EXACT


def test_folding_into_the_learning_rate_is_right_for_sgd_always() -> None:
    fold = UpdateRule(update="fold-lr")
    assert worst(trained("sgd", fold), reference("sgd")) < EXACT
    assert worst(trained("sgd", fold, changing), reference("sgd")) < EXACT


def test_folding_is_right_for_momentum_only_while_s_stays() -> None:
    fold = UpdateRule(update="fold-lr")
    assert worst(trained("momentum", fold), reference("momentum")) < EXACT
    assert worst(trained("momentum", fold, changing), reference("momentum")) > 0.005


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_folding_is_wrong_for_adam_whose_step_shrinks_by_s(optimizer: str) -> None:
    folded = trained(optimizer, UpdateRule(update="fold-lr"))
    assert worst(folded, reference(optimizer)) > 0.5
    # It is Adam on scaled gradients with lr / S: it hardly leaves the start.
    assert worst(folded, reference(optimizer, gradient_factor=1024, lr_factor=1 / 1024)) < EXACT
    assert float(folded.abs().max()) < 2 * STEPS * 0.1 / 1024


def test_leaving_1_over_s_out_multiplies_sgds_steps_and_hardly_touches_adam() -> None:
    none = UpdateRule(update="none")
    assert worst(trained("sgd", none, 8.0), reference("sgd", gradient_factor=8)) < EXACT
    assert worst(trained("sgd", none, 8.0), reference("sgd")) > 0.05
    assert worst(trained("adam", none), reference("adam", gradient_factor=1024)) < EXACT
    assert worst(trained("adam", none), reference("adam")) < 1e-4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_clipping_after_unscaling_or_at_threshold_times_s_is_right(optimizer: str) -> None:
    right = reference(optimizer, clip=0.05)
    assert worst(trained(optimizer, UpdateRule(clip=0.05)), right) < EXACT
    # Up to the 1e-6 in torch's formula, which is not scaled.
    assert worst(trained(optimizer, UpdateRule(clip=0.05, clip_order="scaled")), right) < 1e-4


def test_clipping_at_threshold_times_s_stands_scales_whose_squares_leave_fp32() -> None:
    scaled = trained("sgd", UpdateRule(clip=0.05, clip_order="scaled"), 2.0**80)
    assert worst(scaled, reference("sgd", clip=0.05)) < 1e-4


def test_an_l2_penalty_times_s_past_fp32_is_refused() -> None:
    layer, optimizer = layer_with_gradient([1.0])
    update = WeightUpdate(layer, optimizer, UpdateRule(l2=1e3, l2_order="scaled"))
    with pytest.raises(UserError, match=r"l2 x S = .* is no FP32 number"):
        update.apply(2.0**126)


def test_an_l2_penalty_that_leaves_fp32_on_its_weight_skips_the_step() -> None:
    layer, optimizer = layer_with_gradient([1.0])
    with torch.no_grad():
        layer.weight.fill_(1e4)
    update = WeightUpdate(layer, optimizer, UpdateRule(l2=1.0, l2_order="scaled"))
    assert update.apply(2.0**120).skipped
    assert layer.weight.item() == 1e4


def test_a_parameter_without_elements_is_no_obstacle() -> None:
    model = nn.ParameterList([torch.zeros(2, 0), torch.zeros(2)])
    for parameter, gradient in zip(model, (torch.zeros(2, 0), torch.tensor([3.0, -8.0])), strict=True):
        parameter.grad = gradient
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    assert WeightUpdate(model, optimizer).apply(2.0, parse_policy("patent")).amax == 4.0


def test_clipping_scaled_gradients_is_s_times_too_strict() -> None:
    early = trained("sgd", UpdateRule(clip=0.05, clip_order="before"))
    assert worst(early, reference("sgd", clip=0.05 / 1024)) < EXACT
    assert worst(early, reference("sgd", clip=0.05)) > 0.005


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_l2_after_unscaling_or_times_s_is_right(optimizer: str) -> None:
    assert worst(trained(optimizer, UpdateRule(l2=0.3)), reference(optimizer, l2=0.3)) < EXACT
    scaled = trained(optimizer, UpdateRule(l2=0.3, l2_order="scaled"))
    assert worst(scaled, reference(optimizer, l2=0.3)) < EXACT


def test_l2_is_clipped_too_where_it_joins_before() -> None:
    rule = UpdateRule(l2=0.3, l2_order="scaled", clip=0.05)
    assert worst(trained("sgd", rule), reference("sgd", clip=0.05, l2=0.3, l2_before_clip=True)) < EXACT


def test_l2_on_scaled_gradients_is_s_times_too_weak() -> None:
    early = trained("sgd", UpdateRule(l2=0.3, l2_order="before"))
    assert worst(early, reference("sgd", l2=0.3 / 1024)) < EXACT
    assert worst(early, reference("sgd", l2=0.3)) > 0.005


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_scaling_every_rule_is_the_same_as_plain_training(optimizer: str, rule: UpdateRule) -> None:
    expected = reference(optimizer, clip=rule.clip, l2=rule.l2)
    assert worst(trained(optimizer, rule, 1.0), expected) < EXACT


def test_learning_rates_are_put_back() -> None:
    model = Weights()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    update = WeightUpdate(model, optimizer, UpdateRule(update="fold-lr"))
    model.w.grad = torch.ones(SIZE)
    update.apply(8.0)
    assert optimizer.param_groups[0]["lr"] == update.lr == 0.3
    assert torch.allclose(model.w, torch.full((SIZE,), -0.3 / 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_lose_updates_below_half_their_last_digit(dtype: torch.dtype) -> None:
    model = Weights()
    with torch.no_grad():
        model.w.fill_(1.0 + 1e-5)
    update = WeightUpdate(model, torch.optim.SGD(model.parameters(), lr=1.0), UpdateRule(weights=dtype))
    assert torch.equal(model.w, torch.ones(SIZE))
    for _ in range(1000):
        # Towards 0 the digits are twice as fine: half the epsilon below 1, so a quarter is lost.
        model.w.grad = torch.full((SIZE,), torch.finfo(dtype).eps / 5)
        update.apply(1.0)
    assert torch.equal(model.w, torch.ones(SIZE))
    master = copy.deepcopy(model)
    update = WeightUpdate(master, torch.optim.SGD(master.parameters(), lr=1.0))
    for _ in range(1000):
        master.w.grad = torch.full((SIZE,), torch.finfo(dtype).eps / 5)
        update.apply(1.0)
    assert float(master.w.detach().max()) < 0.9


def test_policies_are_told_what_they_ask_for() -> None:
    layer, optimizer = layer_with_gradient([3.0, -8188.0, 20000.0, 0.0])
    result = WeightUpdate(layer, optimizer).apply(4.0, parse_policy("histogram"))
    assert (result.amax, result.large_share) == (None, 0.5)
    layer, optimizer = layer_with_gradient([3.0, -8188.0, 20000.0, 0.0])
    result = WeightUpdate(layer, optimizer).apply(4.0, parse_policy("patent"))
    assert (result.amax, result.large_share) == (5000.0, None)
    layer, optimizer = layer_with_gradient([3.0, math.nan])
    assert WeightUpdate(layer, optimizer).apply(4.0, parse_policy("patent")).amax == math.inf
    assert share_at_or_above([torch.tensor([1.0, math.nan, -math.inf, 8188.0])], 8188.0) == 0.75
    assert largest([]) == share_at_or_above([], 1.0) == 0.0


def warnings_of(**changes: object) -> list[str]:
    choice = {
        "optimizer": "adam", "update": "unscale", "clip": None, "clip_order": "after", "l2": 0.0,
        "l2_order": "after", "policy": "constant:1024",
    }  # fmt: skip
    return update_warnings(**{**choice, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"update": "fold-lr"}, ["fold-lr with Adam"]),
        ({"update": "fold-lr", "optimizer": "sgd"}, []),
        ({"update": "fold-lr", "optimizer": "momentum"}, ["only while S stays"]),
        ({"update": "none", "optimizer": "sgd"}, ["S times too large"]),
        ({"clip": 1.0}, []),
        ({"clip": 1.0, "clip_order": "before"}, ["too strict"]),
        ({"clip": 1.0, "clip_order": "scaled"}, []),
        ({"clip": 1.0, "update": "fold-lr", "optimizer": "sgd"}, ["too strict"]),
        ({"l2": 0.1, "l2_order": "before"}, ["too weak"]),
        ({"l2": 0.1, "l2_order": "scaled"}, []),
        ({"update": "none", "clip": 1.0, "l2_order": "before", "l2": 1.0, "policy": "none"}, []),
        ({"update": "none", "policy": "constant:1"}, []),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, object], said: list[str]) -> None:
    warnings = warnings_of(**changes)
    assert len(warnings) == len(said)
    for warning, words in zip(warnings, said, strict=True):
        assert words in warning
