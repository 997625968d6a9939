"""A scale per layer: exact on models of every shape, blamed on the right layer, on real gradients."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lsviz.policies import Layerwise, Outcome
from lsviz.policies.layerwise import LayerScale
from lsviz.training.engine import Engine
from lsviz.training.layerscale import LayerScaling, UntrackedTensorError
from lsviz.training.recorder import GradientRecorder


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bottom, self.middle, self.top = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        top: Tensor = self.top(torch.sigmoid(self.middle(torch.sigmoid(self.bottom(x)))))
        return top


class Everything(nn.Module):
    """Embedding, attention, LSTM, batch norm, convolution; branches that meet, tied weights, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.norm = nn.BatchNorm1d(16)
        self.convolution = nn.Conv1d(16, 16, 3, padding=1)
        self.bias = nn.Parameter(torch.zeros(16))
        self.output = nn.Linear(16, 11)
        self.output.weight = self.embedding.weight
        self.frozen = nn.Linear(16, 16).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        h = h + self.encoder(h)
        recurrent, _ = self.lstm(h)
        h = torch.cat([h[:, :2], recurrent[:, 2:]], 1) + self.bias
        h = self.norm(self.frozen(h).transpose(1, 2))
        h = h + torch.relu_(self.convolution(h))
        h += 0.5 * h.mean(-1, keepdim=True)
        logits: Tensor = self.output(h.mean(-1))
        return logits


def scaled(model: nn.Module, choose: Callable[[str], float]) -> tuple[LayerScaling, Layerwise]:
    layers = LayerScaling(model)
    names = set(layers._owners.values())
    policy = Layerwise(layers=tuple(LayerScale(name, choose(name), 0) for name in sorted(names)))
    return layers, policy


def backward(layers: LayerScaling, policy: Layerwise, loss_of: Callable[[], Tensor]) -> None:
    with layers.forward(policy):
        loss = loss_of()
    (loss.float() * layers.scale_at(loss)).backward()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [Chain, Everything])
def test_updates_are_exact_whatever_the_scales(kind: type[nn.Module], seed: int) -> None:
    torch.manual_seed(0)
    model = kind()
    x = torch.randn(4, 8) if kind is Chain else torch.randint(0, 11, (4, 7))
    y = torch.randint(0, 4, (4,))

    def loss_of() -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    loss_of().backward()
    expected = gradients(model)
    model.zero_grad()
    chance = random.Random(seed)
    layers, policy = scaled(model, lambda name: 2.0 ** chance.randint(-20, 20))
    backward(layers, policy, loss_of)
    before = gradients(model)
    for name, scale in layers.weight_scales.items():
        assert torch.equal(before[name], expected[name] * scale), name
    layers.unscale()
    after = gradients(model)
    assert after.keys() == expected.keys()
    for name in expected:
        assert torch.equal(after[name], expected[name]), name
    assert all(layers.outcomes().values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_only_the_guilty_layer_is_blamed_and_updates_are_exact() -> None:
    torch.manual_seed(0)
    model, x = Chain().cuda(), torch.randn(4, 8, device="cuda")
    y = torch.randint(0, 4, (4,), device="cuda")
    engine = Engine.resolve("fp16", "cuda")

    def loss_of() -> Tensor:
        with engine.autocast():
            return nn.functional.cross_entropy(model(x), y)

    layers, policy = scaled(model, lambda name: 2.0**40 if name == "middle" else 64.0)
    backward(layers, policy, loss_of)
    assert layers.outcomes() == {"middle": False, "top": True}
    model.zero_grad()
    layers, policy = scaled(model, lambda name: {"bottom": 2.0**12, "middle": 2.0**10, "top": 2.0**8}[name])
    backward(layers, policy, loss_of)
    layers.unscale()
    after = gradients(model)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    for name, gradient in gradients(model).items():
        assert torch.allclose(after[name], gradient, rtol=2e-2, atol=1e-5), name


def test_one_scale_for_all_is_the_constant_policy_bit_for_bit_in_fp16() -> None:
    torch.manual_seed(1)
    model, x, y = Chain(), torch.randn(4, 8), torch.randint(0, 4, (4,))
    engine = Engine.resolve("fp16", "cpu")
    with engine.active():
        with engine.autocast():
            loss = nn.functional.cross_entropy(model(x), y)
        (loss.float() * 1024).backward()
        expected = gradients(model)
        model.zero_grad()
        layers, policy = scaled(model, lambda name: 1024.0)

        def loss_of() -> Tensor:
            with engine.autocast():
                return nn.functional.cross_entropy(model(x), y)

        backward(layers, policy, loss_of)
    assert all(torch.equal(g, expected[n]) for n, g in gradients(model).items())


@pytest.mark.parametrize("guilty", ["bottom", "middle", "top"])
def test_only_the_layer_where_the_overflow_begins_is_blamed(guilty: str) -> None:
    torch.manual_seed(2)
    model, x, y = Chain(), torch.randn(4, 8), torch.randint(0, 4, (4,))
    engine = Engine.resolve("fp16", "cpu")
    layers, policy = scaled(model, lambda name: 2.0**40 if name == guilty else 64.0)

    def loss_of() -> Tensor:
        with engine.autocast():
            return nn.functional.cross_entropy(model(x), y)

    with engine.active():
        backward(layers, policy, loss_of)
    outcomes = layers.outcomes()
    assert [name for name, finite in outcomes.items() if not finite] == [guilty]
    order = ["top", "middle", "bottom"]
    # What lies below received Inf or NaN: nothing is known of it. What lies above is clean.
    assert sorted(outcomes, key=order.index) == order[: order.index(guilty) + 1]


def test_a_layer_below_recovers_what_one_global_scale_flushes() -> None:
    """Each layer's gradient, at its own S, keeps values that S = 1 loses."""
    torch.manual_seed(3)
    model, x, y = Chain(), torch.randn(64, 8), torch.randint(0, 4, (64,))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.02)
    engine = Engine.resolve("fp16", "cpu")

    def loss_of() -> Tensor:
        with engine.autocast():
            return nn.functional.cross_entropy(model(x), y)

    zeros = {}
    for scale in (1.0, 2.0**16):
        model.zero_grad()
        layers, policy = scaled(model, lambda name, s=scale: s if name == "bottom" else 8.0)  # type: ignore[misc]
        with engine.active():
            backward(layers, policy, loss_of)
        assert model.bottom.weight.grad is not None
        zeros[scale] = int((model.bottom.weight.grad == 0).sum())
    assert zeros[2.0**16] < zeros[1.0] / 2


def test_recorded_rows_carry_each_layers_scale() -> None:
    torch.manual_seed(4)
    model, x, y = Chain(), torch.randn(4, 8), torch.randint(0, 4, (4,))
    scales = {"bottom": 2.0**12, "middle": 2.0**6, "top": 4.0}
    layers, policy = scaled(model, lambda name: scales[name])
    recorder = GradientRecorder(model)
    with recorder.recording(scale_at=layers.scale_at):
        backward(layers, policy, lambda: nn.functional.cross_entropy(model(x), y))
    rows = recorder.rows(0, 4.0, weight_scales=layers.weight_scales)
    by_name = {row.tensor: row for row in rows}
    for name, scale in scales.items():
        assert by_name[name].loss_scale == by_name[f"{name}.weight"].loss_scale == scale
    model.zero_grad()
    plain = GradientRecorder(model)
    with plain.recording():
        nn.functional.cross_entropy(model(x), y).backward()
    for row in plain.rows(0, 1.0):
        scale = by_name[row.tensor].loss_scale
        assert by_name[row.tensor].histogram.amax == row.histogram.amax * scale


class Tied(nn.Module):
    """The head owns nothing, so its layer has no gradient of its own to be seen by."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden = nn.Embedding(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 8, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.hidden(self.embedding(x))))
        return logits


class Twice(nn.Module):
    """A layer below and above another one: each receives what the other made."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.again, self.between = nn.Embedding(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.again(self.between(self.again(self.embedding(x))))
        return logits


class Spare(Twice):
    """A parameter of the whole model that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return 1.0 * self.between(self.embedding(x))


@pytest.mark.parametrize("kind", [Tied, Twice, Spare])
def test_after_overflows_the_scales_fall_until_gradients_are_finite(kind: type[nn.Module]) -> None:
    torch.manual_seed(5)
    model, x, y = kind(), torch.randint(0, 8, (16,)), torch.randint(0, 8, (16,))
    layers, policy = LayerScaling(model), Layerwise(init_scale=2.0**24)
    engine = Engine.resolve("fp16", "cpu")
    with engine.active():
        for _ in range(80):
            model.zero_grad()
            with layers.forward(policy), engine.autocast():
                loss = nn.functional.cross_entropy(model(x), y)
            (loss.float() * layers.scale_at(loss)).backward()
            finite = all(bool(torch.isfinite(g).all()) for g in gradients(model).values())
            if finite:
                break
            outcomes = layers.outcomes()
            assert False in outcomes.values()
            policy = policy.update(Outcome(finite, layers=outcomes))
    assert finite


def transposed(m: Chain, x: Tensor) -> Tensor:
    return m.top(m.bottom(x).T.T.mT.mT)  # type: ignore[no-any-return]


def by_hand(m: Chain, x: Tensor) -> Tensor:
    return m.bottom(x) @ m.top.weight.T + m.top.bias


def put_into_zeros(m: Chain, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 2, 4)
    out[:, 0] = m.top(m.middle(x))
    out[:, 1] = m.top(m.bottom(x))
    return out


def changed_in_place(m: Chain, x: Tensor) -> Tensor:
    hidden = m.bottom(x)
    hidden[:, 0] = m.middle(x)[:, 1]
    hidden += nn.functional.hardtanh(m.middle(x), -1.0, 1.0, True)
    hidden = nn.functional.relu(hidden.mul_(2.0), inplace=True)
    return m.top(hidden)  # type: ignore[no-any-return]


def from_an_input_with_a_gradient(m: Chain, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return m.top(m.bottom(torch.tanh(2 * x)) + x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "forward", [transposed, by_hand, put_into_zeros, changed_in_place, from_an_input_with_a_gradient]
)
def test_code_as_people_write_it_is_followed(forward: Callable[[Chain, Tensor], Tensor]) -> None:
    torch.manual_seed(6)
    model, x = Chain(), torch.randn(4, 8)
    forward(model, x).pow(2).mean().backward()
    expected = gradients(model)
    model.zero_grad()
    scales = {"bottom": 2.0**9, "middle": 2.0**-3, "top": 2.0**5}
    layers, policy = scaled(model, lambda name: scales[name])
    backward(layers, policy, lambda: forward(model, x).pow(2).mean())
    layers.unscale()
    after = gradients(model)
    assert after.keys() == expected.keys()
    assert all(torch.equal(after[name], expected[name]) for name in expected)


class SharedActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bottom, self.top, self.act = nn.Linear(8, 8), nn.Linear(8, 4), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.top(self.act(self.bottom(x))))
        return out


def test_a_module_that_serves_two_layers_is_counted_at_one_scale() -> None:
    torch.manual_seed(7)
    model, x = SharedActivation(), torch.randn(4, 8)
    plain = GradientRecorder(model)
    with plain.recording():
        model(x).pow(2).mean().backward()
    expected = {row.tensor: row.histogram for row in plain.rows(0, 1.0)}
    model.zero_grad()
    layers, policy = scaled(model, lambda name: 2.0**10 if name == "bottom" else 2.0**-10)
    recorder = GradientRecorder(model)
    with recorder.recording(scale_at=layers.scale_at):
        backward(layers, policy, lambda: model(x).pow(2).mean())
    rows = {row.tensor: row for row in recorder.rows(0, 1.0, weight_scales=layers.weight_scales)}
    binades = round(math.log2(rows["act"].loss_scale))
    assert (rows["act"].histogram.counts == expected["act"].shift(binades).counts).all()


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


def test_what_can_not_be_followed_is_said() -> None:
    model, x = Chain(), torch.randn(4, 8)
    layers, policy = scaled(model, lambda name: 1.0)

    def loss_of() -> Tensor:
        return torch.sum(Hidden.apply(model(x)))  # type: ignore[no-any-return]

    with pytest.raises(UntrackedTensorError, match="custom autograd Function; choose another policy"):
        backward(layers, policy, loss_of)
