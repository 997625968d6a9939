"""FP16 that behaves like a GPU's, on a GPU or on a CPU: one code path under ``torch.autocast``.

On CUDA, autocast is used as it is. On the CPU, torch's own half kernels for matrix products and
convolutions are 10 to 100 times slower than FP32's (and its LSTM refuses half altogether), so for as
long as an engine is active the autocast rules of those operations are replaced: operands are rounded
to half, computed in FP32, and the result is rounded once to half, forward and backward. That is what
tensor cores do (FP16 in, FP32 accumulate, FP16 out), so values underflow and overflow where a GPU's do.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import torch
from torch import Tensor
from torch import library as torch_library

from lsviz import __version__
from lsviz.errors import UserError
from lsviz.runs.config import Precision
from lsviz.training.attention import scaled_dot_product_attention
from lsviz.training.recurrent import Cell, gru_cell, lstm_layer, recurrent_layers, relu_cell, tanh_cell

_DTYPES: Final = {"fp16": torch.float16, "bf16": torch.bfloat16}

LOWERED_OPS: Final = (
    *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "_addmm_activation"),
    *("linalg_vecdot", "conv_tbc", "_convolution.deprecated"),
    *("conv1d", "conv1d.padding", "conv2d", "conv2d.padding", "conv3d", "conv3d.padding"),
    *("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input"),
)
"""Operations that autocast runs in half: computed in FP32 here and rounded once."""

FP32_OPS: Final = (
    *("layer_norm", "native_layer_norm", "group_norm", "softmax.int", "log_softmax.int", "logsumexp"),
    *("softplus", "exp", "expm1", "log", "log2", "log10", "log1p", "reciprocal", "rsqrt"),
    *("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "sum", "sum.dim_IntList"),
    *("cumsum", "cumprod", "norm.Scalar", "norm.ScalarOpt_dim", "linalg_vector_norm"),
    "cosine_similarity",
)
"""Operations that CUDA's autocast runs in FP32 and the CPU's does not (torch 2.13,
aten/src/ATen/autocast_mode.h, AT_FORALL_FP32 and AT_FORALL_FP32_SET_OPT_DTYPE)."""


def library_versions() -> dict[str, str]:
    """Return what a run was made with, for run.json."""
    return {
        "lsviz": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
    }


RECURRENT_OPS: Final = {"gru.input": gru_cell, "rnn_tanh.input": tanh_cell, "rnn_relu.input": relu_cell}
"""Networks that cuDNN runs in half as a whole, but for LSTMs; of packed sequences torch asks another way."""


class DeviceError(UserError):
    """The device asked for is absent; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A precision on a device.

    Attributes:
        precision: ``fp16``, ``bf16`` or ``fp32``.
        device: Where tensors live.
    """

    precision: Precision
    device: torch.device

    @classmethod
    def resolve(cls, precision: Precision, device: str) -> Engine:
        """Return the engine for a device name of `RunConfig` (``auto`` takes a GPU where there is one).

        Raises:
            DeviceError: ``cuda`` is asked for and torch sees no GPU.
        """
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise DeviceError("device 'cuda' is absent: torch sees no GPU here; choose cpu or auto")
        name = "cuda" if device == "cuda" or (device == "auto" and cuda) else "cpu"
        return cls(precision, torch.device(name))

    @property
    def description(self) -> str:
        """One sentence for run.json and ``lsviz doctor``."""
        name = self.precision.upper()
        if self.precision == "fp32":
            return "FP32 throughout"
        if self.device.type == "cuda":
            return f"{name} by torch.autocast on the GPU"
        return f"{name} by torch.autocast; products and convolutions computed in FP32, rounded once to {name}"

    @property
    def device_name(self) -> str:
        """The GPU's name, or the processor's kind."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return platform.processor() or platform.machine()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Replace the slow CPU kernels while the context lasts; does nothing on CUDA or in FP32."""
        if self.precision == "fp32" or self.device.type != "cpu":
            yield
            return
        with _fast_half_on_cpu():
            yield

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for the forward pass and the loss."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])


_installed: list[Any] = []
_users = 0


@contextmanager
def _fast_half_on_cpu() -> Iterator[None]:
    """Register the kernels below at the AutocastCPU dispatch key; the last to leave restores torch's."""
    global _users
    if _users == 0:
        library: Any = torch_library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Oo]verrid", category=UserWarning)
            for name in LOWERED_OPS:
                library.impl(name, _lowered(_overload(name)), "AutocastCPU")
            for name in FP32_OPS:
                library.impl(name, _in_fp32(_overload(name)), "AutocastCPU")
            library.impl("scaled_dot_product_attention", _attention, "AutocastCPU")
            library.impl("mkldnn_rnn_layer", _rnn_layer, "AutocastCPU")
            for name, cell in RECURRENT_OPS.items():
                library.impl(name, _recurrent(cell), "AutocastCPU")
        _installed.append(library)
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if _users == 0:
            _installed.pop()._destroy()


def _overload(name: str) -> Callable[..., Tensor]:
    base, _, overload = name.partition(".")
    operation: Callable[..., Tensor] = getattr(getattr(torch.ops.aten, base), overload or "default")
    return operation


def _below_autocast() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", enabled=False)


def _casts(value: Any) -> bool:
    """Whether autocast touches this argument: FP32 and half tensors, never double or integers."""
    return isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float16, torch.bfloat16)


def _through(value: Any, dtype: torch.dtype) -> Any:
    """Round to half and bring back to FP32; the gradient takes the same way back."""
    return value.to(dtype).float() if _casts(value) else value


def _lowered(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def kernel(*args: Any, **kwargs: Any) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu")
        with _below_autocast():
            result = operation(*(_through(a, dtype) for a in args), **kwargs)
            return result.to(dtype) if _casts(result) else result

    return kernel


def _in_fp32(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def kernel(*args: Any, **kwargs: Any) -> Tensor:
        with _below_autocast():
            return operation(*(a.float() if _casts(a) else a for a in args), **kwargs)

    return kernel


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    dtype = torch.get_autocast_dtype("cpu")
    with _below_autocast():
        return scaled_dot_product_attention(query.to(dtype), key.to(dtype), value.to(dtype), *args, **kwargs)


def _rnn_layer(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.get_autocast_dtype("cpu")
    with _below_autocast():
        return lstm_layer(*(a.to(dtype) if _casts(a) else a for a in args))


def _recurrent(cell: Cell) -> Callable[..., tuple[Tensor, Tensor]]:
    def kernel(
        sequence: Tensor, hidden: Tensor, weights: Sequence[Tensor], *settings: Any
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.get_autocast_dtype("cpu")
        with _below_autocast():
            x, h, *found = (t.to(dtype) if _casts(t) else t for t in (sequence, hidden, *weights))
            return recurrent_layers(cell, x, h, found, *settings)

    return kernel
