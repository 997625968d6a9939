"""The CPU engine against torch's own CPU half and against float64."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lsviz.training.engine import DeviceError, Engine

ENGINE = Engine("fp16", torch.device("cpu"))


class Attention(nn.Module):
    """Bare scaled dot-product attention on four heads of eight."""

    def __init__(self, **settings: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        return nn.functional.scaled_dot_product_attention(q, k, v, **self.settings)


class First(nn.Module):
    """The first of a module's outputs (recurrent layers return their state too)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.inner(x)[0]
        return first


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(64, 48), (32, 64)),
    "conv2d": (lambda: nn.Conv2d(3, 8, 3, padding=1, stride=2), (4, 3, 12, 12)),
    "conv1d": (lambda: nn.Conv1d(3, 8, 3), (4, 3, 12)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 6, 6)),
    "attention": (lambda: Attention(), (2, 10, 32)),
    "causal attention": (lambda: Attention(is_causal=True), (2, 10, 32)),
    "lstm": (lambda: First(nn.LSTM(16, 12, num_layers=2)), (6, 4, 16)),
    "bidirectional lstm": (lambda: First(nn.LSTM(16, 12, bidirectional=True, batch_first=True)), (4, 6, 16)),
    "lstm without biases": (lambda: First(nn.LSTM(16, 12, bias=False)), (6, 4, 16)),
    "gru": (lambda: First(nn.GRU(16, 12)), (6, 4, 16)),
    "bidirectional gru": (
        lambda: First(nn.GRU(16, 12, num_layers=2, bidirectional=True, batch_first=True)),
        (4, 6, 16),
    ),
    "gru without biases": (lambda: First(nn.GRU(16, 12, bias=False)), (6, 4, 16)),
    "rnn": (lambda: First(nn.RNN(16, 12, num_layers=2)), (6, 4, 16)),
    "rnn with relu": (lambda: First(nn.RNN(16, 12, nonlinearity="relu")), (6, 4, 16)),
    "layer_norm": (lambda: nn.LayerNorm(32), (8, 32)),
    "gelu": (lambda: nn.Sequential(nn.Linear(32, 32), nn.GELU()), (8, 32)),
    "multihead attention": (lambda: First(SelfAttention()), (10, 2, 32)),
    "einsum": (lambda: Einsum(), (8, 32)),
}


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.attention(x, x, x, need_weights=False)  # type: ignore[no-any-return]


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 16) / 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,ij->bj", x, self.weight)


@contextmanager
def without_mkldnn() -> Iterator[None]:
    """Torch's own half kernels: oneDNN has no half LSTM on most CPUs."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def build(case: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, shape = CASES[case]
    # Values that halves hold, so that all ways start from the same numbers.
    module = make()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half())
    return module, torch.randn(shape).half().float()


def run(
    module: nn.Module, x: Tensor, how: str, gradient: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return output and gradients (of input and weights), from engine, native half or float64."""
    module = copy.deepcopy(module)
    if how == "float64":
        module = module.double()
        x = x.double().requires_grad_()
        output = module(x)
    elif how == "native half":
        module = module.half()
        x = x.half().requires_grad_()
        with without_mkldnn():
            output = module(x)
    else:
        x = x.clone().requires_grad_()
        with ENGINE.active(), ENGINE.autocast():
            output = module(x)
    if gradient is None:
        gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).half()
    if how == "native half":
        with without_mkldnn():
            output.backward(gradient.to(output.dtype))
    else:
        output.backward(gradient.to(output.dtype))
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return output.detach(), {"input": x.grad, **gradients}


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_are_float64s_up_to_half_rounding(case: str) -> None:
    module, x = build(case)
    exact_out, exact = run(module, x, "float64")
    out, gradients = run(module, x, "engine")
    assert gradients.keys() == exact.keys()
    torch.testing.assert_close(out.double(), exact_out, rtol=4e-3, atol=4e-3)
    for name, gradient in gradients.items():
        scale = float(exact[name].abs().max()) or 1.0
        torch.testing.assert_close(
            gradient.double() / scale,
            exact[name] / scale,
            rtol=6e-3,
            atol=6e-3,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_are_native_halfs_up_to_its_own_error(case: str) -> None:
    """The engine is at least as near to float64 as torch's native CPU half is, and near to that too."""
    module, x = build(case)
    exact_out, exact = run(module, x, "float64")
    native_out, native = run(module, x, "native half")
    out, gradients = run(module, x, "engine")
    pairs = [(out, native_out, exact_out)] + [(gradients[n], native[n], exact[n]) for n in exact]
    for ours, theirs, truth in pairs:
        scale = float(truth.abs().max()) or 1.0
        ours_error = float((ours.double() - truth).abs().max()) / scale
        native_error = float((theirs.double() - truth).abs().max()) / scale
        assert ours_error <= max(1.5 * native_error, 2e-3)
        torch.testing.assert_close(ours.double() / scale, theirs.double() / scale, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("exponent", [-12, -18, -22, -25, -27, -32])
def test_small_gradients_become_subnormal_and_zero_where_a_real_cast_makes_them(exponent: int) -> None:
    """A linear layer's input gradient is the exact product rounded once to half, to the last bit."""
    torch.manual_seed(3)
    layer = nn.Linear(8, 16, bias=False)
    with torch.no_grad():
        # One weight a column: the sum has one term, so that FP32 holds it exactly.
        layer.weight.zero_()
        layer.weight[torch.arange(8) * 2, torch.arange(8)] = (torch.rand(8) + 0.5) * 2.0 ** (exponent + 10)
        layer.weight.copy_(layer.weight.half())
    x = torch.randn(64, 8, requires_grad=True)
    with ENGINE.active(), ENGINE.autocast():
        out = layer(x)
    gradient = (torch.randn(64, 16) * 2.0**-10).half()
    out.backward(gradient)
    expected = (gradient.double() @ layer.weight.detach().double()).float().half()
    assert x.grad is not None
    assert torch.equal(x.grad.half(), expected)
    if -25 <= exponent <= -18:
        assert bool(((expected != 0) & (expected.abs() < 2.0**-14)).any())
    if exponent <= -27:
        assert float((expected == 0).float().mean()) > 0.4


@pytest.mark.parametrize("exponent", [-16, -22])
@pytest.mark.parametrize("case", CASES)
def test_gradients_that_end_as_subnormals_or_zero_do_so_as_in_float64(case: str, exponent: int) -> None:
    """Small gradients through every kind of module: off by a few of FP16's smallest steps, no more."""
    module, x = build(case)
    shape = run(module, x, "float64")[0].shape
    gradient = (torch.randn(shape, generator=torch.Generator().manual_seed(4)) * 2.0**exponent).half()
    _, exact = run(module, x, "float64", gradient)
    _, ours = run(module, x, "engine", gradient)
    _, native = run(module, x, "native half", gradient)
    smallest = 2.0**-24
    subnormal = zeroed = 0
    for name, truth in exact.items():
        # Roundings on the way add up with the number of terms; a step each is what they may cost.
        allowed = 12 * smallest + 4e-3 * float(truth.abs().max())
        assert float((ours[name].double() - truth).abs().max()) <= allowed, name
        assert float((ours[name].double() - native[name].double()).abs().max()) <= 2 * allowed, name
        magnitude = ours[name].abs()
        subnormal += int(((magnitude > 0) & (magnitude < 2.0**-14)).sum())
        zeroed += int(((magnitude == 0) & (truth != 0)).sum())
    assert subnormal > 0
    # Layer norm alone runs in FP32, as under CUDA's autocast: nothing is lost there.
    assert zeroed > 0 or exponent > -20 or case == "layer_norm"


def test_weight_gradients_are_fp32_but_went_through_half() -> None:
    module, x = build("linear")
    _, gradients = run(module, x, "engine")
    weight = gradients["weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, weight.half().float())


def test_large_values_overflow_as_a_cast_does() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    x = torch.tensor([[32760.0], [1.0]])
    with ENGINE.active(), ENGINE.autocast():
        doubled = torch.nn.functional.linear(x, torch.tensor([[2.0]]))
    assert doubled.tolist() == [[float("inf")], [2.0]]


@pytest.mark.parametrize("case", CASES)
def test_no_heavy_operation_is_left_on_the_native_half_kernel(case: str) -> None:
    module, x = build(case)
    x = x.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            with ENGINE.active(), ENGINE.autocast():
                output = module(x)
            output.backward(torch.ones_like(output))
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    # Calls under autocast (aten::linear, aten::matmul) show their operands as they came; the kernels
    # that do the work, which have no autocast rule of their own by then, are what counts.
    kernels = [(event.name(), event.dtypes()) for event in events if event.name() in KERNELS]
    assert not [kernel for kernel in kernels if "c10::Half" in kernel[1]]
    assert kernels or case == "layer_norm"


KERNELS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::convolution",
    "aten::convolution_backward",
    "aten::_convolution",
    "aten::mkldnn_convolution",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_attention_math",
    "aten::mkldnn_rnn_layer_backward",
}


def test_operations_that_cuda_runs_in_fp32_give_fp32() -> None:
    half = torch.randn(4, 8).half()
    with ENGINE.active(), ENGINE.autocast():
        results = [
            torch.softmax(half, -1),
            torch.nn.functional.layer_norm(half, (8,)),
            half.exp(),
            half.sum(),
            half.pow(2),
            half.cumsum(0),
        ]
    assert {r.dtype for r in results} == {torch.float32}


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN, nn.LSTM])
def test_recurrent_networks_end_in_half_with_the_state_of_the_last_step(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    network = kind(8, 6, num_layers=2, bidirectional=True)
    x = torch.randn(5, 3, 8)
    with ENGINE.active(), ENGINE.autocast(), torch.no_grad():
        out, state = network(x)
    exact, exact_state = network(x)
    state, exact_state = (s[0] if isinstance(s, tuple) else s for s in (state, exact_state))
    assert out.dtype == state.dtype == torch.float16
    assert torch.equal(state[2], out[-1, :, :6])
    assert torch.equal(state[3], out[0, :, 6:])
    torch.testing.assert_close(out.float(), exact, rtol=4e-3, atol=4e-3)
    torch.testing.assert_close(state.float(), exact_state, rtol=4e-3, atol=4e-3)


def test_a_gru_drops_values_between_its_layers_in_training_alone() -> None:
    torch.manual_seed(0)
    network = nn.GRU(8, 6, num_layers=2, dropout=0.9)
    x = torch.randn(5, 3, 8)
    with ENGINE.active(), ENGINE.autocast():
        first, again = network(x)[0], network(x)[0]
        network.eval()
        kept, kept_again = network(x)[0], network(x)[0]
    assert not torch.equal(first, again)
    assert torch.equal(kept, kept_again)


def test_bf16_rounds_to_bf16() -> None:
    module, x = build("linear")
    engine = Engine("bf16", torch.device("cpu"))
    with torch.no_grad():
        module.bfloat16().float()
        x = x.bfloat16().float()
    with engine.active(), engine.autocast():
        out = module(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, module(x).bfloat16())


def test_torchs_own_kernels_come_back() -> None:
    module, x = build("linear")
    with torch.autocast("cpu", dtype=torch.float16):
        before = module(x).grad_fn.name()
    with ENGINE.active(), ENGINE.active(), ENGINE.autocast():
        inside = module(x).grad_fn.name()
    with torch.autocast("cpu", dtype=torch.float16):
        after = module(x).grad_fn.name()
    assert before == after
    assert inside != before


def test_double_is_left_alone() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    with ENGINE.active(), ENGINE.autocast():
        assert (x @ x.mT).dtype == torch.float64


def test_an_absent_device_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        DeviceError, match="device 'cuda' is absent: torch sees no GPU here; choose cpu or auto"
    ):
        Engine.resolve("fp16", "cuda")
    assert Engine.resolve("fp16", "auto").device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # the first backward of a process
@pytest.mark.parametrize("case", CASES)
def test_cuda_and_cpu_agree(case: str) -> None:
    module, x = build(case)
    cpu_out, cpu = run(module, x, "engine")
    module, x = module.cuda(), x.cuda().requires_grad_()
    with torch.autocast("cuda", dtype=torch.float16):
        out = module(x)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).half().cuda()
    out.backward(gradient.to(out.dtype))
    assert out.dtype == cpu_out.dtype, case
    torch.testing.assert_close(out.cpu(), cpu_out, rtol=1e-2, atol=1e-2)
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.grad.cpu(), cpu[name], rtol=2e-2, atol=2e-2)
