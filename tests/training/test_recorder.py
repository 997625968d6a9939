from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lsviz.runs.schema import ExponentRow
from lsviz.training.engine import Engine
from lsviz.training.recorder import GradientRecorder, untouched
from tests.training.test_counting import assert_counts


class Block(nn.Module):
    """A residual block: its output is a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.block = Block()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.block(self.embed(x)))
        return result


def record(model: nn.Module, x: Tensor, scale: float = 1.0) -> dict[str, ExponentRow]:
    recorder = GradientRecorder(model)
    with recorder.recording():
        (model(x).pow(2).sum() * scale).backward()
    return {row.tensor: row for row in recorder.rows(7, scale)}


def test_every_modules_output_and_every_weight_is_recorded() -> None:
    rows = record(Model(), torch.randn(5, 4))
    activations = [name for name, row in rows.items() if row.kind == "activation_grad"]
    weights = [name for name, row in rows.items() if row.kind == "weight_grad"]
    assert activations == ["embed", "block", "block.inner", "block.inner.0", "block.inner.1", "head"]
    assert weights == [name for name, _ in Model().named_parameters()]
    assert all(row.step == 7 and not row.reference for row in rows.values())


def test_counts_are_those_of_the_gradients_that_autograd_hands_out() -> None:
    torch.manual_seed(0)
    model, x = Model(), torch.randn(5, 4)
    rows = record(model, x, scale=8.0)
    # Independently: keep every intermediate by hand and ask autograd for its gradient.
    model.zero_grad()
    embedded = model.embed(x)
    linear = model.block.inner[0](embedded)
    relu = model.block.inner[1](linear)
    block = embedded + relu
    head = model.head(block)
    loss = head.pow(2).sum() * 8.0
    expected = torch.autograd.grad(loss, [embedded, linear, relu, block, head], retain_graph=True)
    names = ["embed", "block.inner.0", "block.inner.1", "block", "head"]
    for name, gradient in zip(names, expected, strict=True):
        assert_counts(rows[name].histogram, gradient)
        assert rows[name].loss_scale == 8.0
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_counts(rows[name].histogram, parameter.grad)


def test_a_container_shares_its_childs_tensor() -> None:
    rows = record(Model(), torch.randn(5, 4))
    assert rows["block.inner"].histogram == rows["block.inner.1"].histogram
    assert "" not in rows


def test_an_in_place_operation_is_not_taken_for_its_input() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 6), torch.randn(50, 6)
    rows = record(nn.Sequential(layer, nn.ReLU(inplace=True)), x)
    before = layer(x)
    after = torch.relu(before)
    expected = torch.autograd.grad(after.pow(2).sum(), [before, after])
    assert_counts(rows["0"].histogram, expected[0])
    assert_counts(rows["1"].histogram, expected[1])


def test_the_model_itself_is_recorded_where_its_output_is_its_own() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.layer(x))

    assert set(record(Scaled(), torch.randn(2, 4))) == {"layer", "", "layer.weight", "layer.bias"}


def test_hooks_see_scaled_half_gradients_under_the_engine() -> None:
    engine = Engine("fp16", torch.device("cpu"))
    model, x = Model(), torch.randn(5, 4)
    recorder = GradientRecorder(model)
    with engine.active(), recorder.recording():
        with engine.autocast():
            loss = model(x).float().pow(2).sum() * 2.0**-30
        loss.backward()
    rows = {row.tensor: row.histogram for row in recorder.rows(0, 2.0**-30)}
    assert rows["head"].zero > 0  # FP32 has no zeros there
    assert rows["embed"].counts[: -25 + 80].sum() == 0  # half holds nothing below 2^-24


def test_a_module_called_twice_adds_up() -> None:
    layer = nn.Linear(4, 4)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.layer(self.layer(x)))

    rows = record(Twice(), torch.randn(3, 4))
    assert rows["layer"].histogram.numel == 24


def test_frozen_and_unused_parts_are_left_out() -> None:
    model = Model()
    model.embed.requires_grad_(False)
    rows = record(model, torch.randn(5, 4))
    assert "embed" not in rows
    assert "embed.weight" not in rows
    assert "head" in rows


def test_hooks_are_gone_afterwards() -> None:
    model, x = Model(), torch.randn(5, 4)
    recorder = GradientRecorder(model)
    with recorder.recording():
        model(x).sum().backward()
    before = [row.histogram.numel for row in recorder.rows(0, 1.0)]
    model(x).sum().backward()
    assert [row.histogram.numel for row in recorder.rows(0, 1.0)] == before
    assert not any(module._forward_hooks for module in model.modules())


def test_untouched_puts_back_generators_buffers_and_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    x = torch.randn(8, 4)
    model(x).sum().backward()
    gradients = [p.grad for p in model.parameters()]
    buffers = [b.clone() for b in model.buffers()]
    state = torch.get_rng_state()
    with untouched(model):
        assert all(p.grad is None for p in model.parameters())
        model(x + 1).sum().backward()
        torch.rand(5)
        assert not torch.equal(buffers[0], next(model.buffers()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert all(a is p.grad for a, p in zip(gradients, model.parameters(), strict=True))


def test_untouched_puts_back_after_an_error_too() -> None:
    model = nn.Linear(2, 2)
    state = torch.get_rng_state()

    def fail() -> None:
        with untouched(model):
            torch.rand(3)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert torch.equal(torch.get_rng_state(), state)


def test_outputs_in_tuples_and_dicts_are_seen() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            out, (h, _) = self.lstm(x)
            return {"out": out * 2, "state": h * 3}

    model = Both()
    recorder = GradientRecorder(model)
    with recorder.recording():
        result = model(torch.randn(3, 2, 4))
        (result["out"].sum() + result["state"].sum()).backward()
    rows = {row.tensor: row.histogram for row in recorder.rows(0, 1.0)}
    assert rows["lstm"].numel == 3 * 2 * 4 + 2 * 4  # outputs and last state; the cell state got none
    assert rows[""].numel == 3 * 2 * 4 + 2 * 4
    assert np.isfinite(rows["lstm"].amax)


def test_a_pass_without_backward_is_not_kept_alive() -> None:
    model = Model()
    recorder = GradientRecorder(model)
    recorder.start()
    out = model(torch.randn(5, 4))
    saved = weakref.ref(out)
    del out
    gc.collect()
    assert saved() is None
    recorder.stop()


def test_a_graph_of_an_earlier_recording_counts_for_nothing() -> None:
    layer = nn.Linear(4, 4)
    recorder = GradientRecorder(layer)
    with recorder.recording():
        kept = layer(torch.randn(3, 4)).sum()
    with recorder.recording():
        kept.backward()
        layer(torch.randn(3, 4)).sum().backward()
    (row,) = [r for r in recorder.rows(0, 1.0) if r.kind == "activation_grad"]
    assert row.histogram.numel == 12


def test_a_loss_that_the_model_returns_is_no_activation() -> None:
    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            out = self.layer(x)
            return {"loss": out.pow(2).mean(), "out": out}

    model = WithLoss()
    recorder = GradientRecorder(model)
    with recorder.recording():
        model(torch.randn(3, 4))["loss"].backward()
    assert [r.tensor for r in recorder.rows(0, 1.0)] == ["layer", "layer.weight", "layer.bias"]


class Halves(torch.autograd.Function):
    """Two outputs of one node, with no gradient made up for one that nothing used, as in cuDNN's LSTM."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return x * 2, x * 3

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        first, second = gradients
        assert second is None
        return None if first is None else first * 2


class Recurrent(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = Halves.apply(x)  # type: ignore[no-untyped-call]
        return result


class OutputAndState(nn.Module):
    """Uses the first of what its part returns."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(4, 8)
        self.recurrent = Recurrent()

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(self.widen(x))[0]  # type: ignore[no-any-return]


def test_an_output_that_nothing_used_counts_for_nothing() -> None:
    torch.manual_seed(0)
    rows = record(OutputAndState(), torch.randn(5, 4))
    assert rows["recurrent"].histogram.numel == 5 * 8
    assert rows["widen"].histogram.numel == 5 * 8
