from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lsviz.exponents import ExponentHistogram
from lsviz.training.counting import count_exponents

HALF_PATTERNS = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)


def independent_counts(values: torch.Tensor) -> tuple[dict[int, int], int, int, int, float]:
    """Count with numpy's frexp in float64, exponent by exponent: nothing of lsviz."""
    x = np.abs(values.double().numpy().ravel())
    finite = x[np.isfinite(x) & (x > 0)]
    exponents = np.clip(np.frexp(finite)[1] - 1, -80, 47)
    found, numbers = np.unique(exponents, return_counts=True)
    counts = dict(zip(found.tolist(), numbers.tolist(), strict=True))
    largest = float(finite.max()) if finite.size else 0.0
    return counts, int((x == 0).sum()), int(np.isinf(x).sum()), int(np.isnan(x).sum()), largest


def assert_counts(histogram: ExponentHistogram, values: torch.Tensor) -> None:
    counts, zero, inf, nan, amax = independent_counts(values)
    assert {int(i) - 80: int(n) for i, n in enumerate(histogram.counts) if n} == counts
    assert (histogram.zero, histogram.inf, histogram.nan, histogram.amax) == (zero, inf, nan, amax)
    assert histogram.numel == values.numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_65536_half_patterns(dtype: torch.dtype) -> None:
    values = HALF_PATTERNS.view(dtype)
    assert_counts(count_exponents(values), values)


def test_fp32_at_its_own_ends() -> None:
    values = torch.tensor(
        [0.0, -0.0, 1e-45, -1e-40, 2.0**-126, 3.4e38, torch.inf, -torch.inf, torch.nan, 1.0]
    )
    assert_counts(count_exponents(values), values)
    assert_counts(count_exponents(values.double() * 1e-200), values.double() * 1e-200)


@given(arrays(np.float32, st.integers(0, 80), elements=st.floats(width=32)))
def test_rounding_counts_are_those_of_the_plain_way(values: npt.NDArray[np.float32]) -> None:
    kernel = count_exponents(torch.from_numpy(values), rounding=True)
    plain = ExponentHistogram.of(values)
    # The first bin is left out below: it holds FP32's subnormals, whose significands don't matter.
    assert np.array_equal(kernel.counts, plain.counts)
    assert kernel.ones is not None
    assert plain.ones is not None
    assert np.array_equal(kernel.ones[1:], plain.ones[1:])
    assert kernel.past is not None
    assert plain.past is not None
    for name, counts in kernel.past.items():
        assert np.array_equal(counts[1:], plain.past[name][1:])


def test_shapes_strides_and_emptiness() -> None:
    values = torch.randn(6, 10, 3)
    for view in (values.mT, values[::2, 1:], values[0, 0, 0], values.expand(2, 6, 10, 3)):
        assert_counts(count_exponents(view), view)
    assert count_exponents(torch.empty(0, 3)).numel == 0


def test_values_are_left_alone() -> None:
    values = torch.randn(100, requires_grad=True)
    before = values.detach().clone()
    count_exponents(values, rounding=True)
    assert torch.equal(values.detach(), before)


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"floating tensors, got torch\.int64"):
        count_exponents(torch.arange(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_counts_the_same() -> None:
    values = HALF_PATTERNS.view(torch.float16)
    assert count_exponents(values.cuda(), rounding=True) == count_exponents(values, rounding=True)
