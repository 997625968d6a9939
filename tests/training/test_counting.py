from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lsviz.exponents import ExponentHistogram
from lsviz.training.counting import Seat, compiled_counter, count_exponents, histograms, tally
from lsviz.training.ondevice import count_together

FORMATS = [torch.float32, torch.float16, torch.bfloat16]

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


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Counting by compiled loops, and by torch operations as on a GPU or without a C compiler."""
    assert compiled_counter() is not None
    if request.param == "torch":
        monkeypatch.setattr("lsviz.training.counting.compiled_counter", lambda: None)
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_65536_half_patterns(dtype: torch.dtype) -> None:
    values = HALF_PATTERNS.view(dtype)
    assert_counts(count_exponents(values), values)


@pytest.mark.usefixtures("way")
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


@pytest.mark.usefixtures("way")
def test_shapes_strides_and_emptiness() -> None:
    values = torch.randn(6, 10, 3)
    for view in (values.mT, values[::2, 1:], values[0, 0, 0], values.expand(2, 6, 10, 3)):
        assert_counts(count_exponents(view), view)
    assert count_exponents(torch.empty(0, 3)).numel == 0


@pytest.mark.usefixtures("way")
def test_values_are_left_alone() -> None:
    values = torch.randn(100, requires_grad=True)
    before = values.detach().clone()
    count_exponents(values, rounding=True)
    assert torch.equal(values.detach(), before)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("rounding", [False, True])
def test_both_ways_count_the_same(dtype: torch.dtype, rounding: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(-(2**31), 2**31, (300_001,), generator=generator).to(torch.int32)
    values = patterns.view(torch.float32) if dtype == torch.float32 else HALF_PATTERNS.view(dtype)
    (by_torch,) = histograms([Seat(count_together([values], rounding=rounding), 0)])
    assert count_exponents(values, rounding=rounding) == by_torch
    assert by_torch.exact == rounding


@pytest.mark.parametrize("dtype", FORMATS)
def test_subnormals_count_where_the_processor_flushes_them(dtype: torch.dtype) -> None:
    values = (
        HALF_PATTERNS.to(torch.int32).view(torch.float32)
        if dtype == torch.float32
        else HALF_PATTERNS.view(dtype)
    )
    expected = count_exponents(values, rounding=True), count_exponents(values)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        assert (count_exponents(values, rounding=True), count_exponents(values)) == expected
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("rounding", [False, True])
def test_large_tensors_are_shared_between_threads(dtype: torch.dtype, rounding: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(1_200_007, generator=generator).mul(1e-3).to(dtype)
    values[::11] = 0.0
    values[5], values[-1], values[600_000] = torch.inf, torch.nan, -torch.inf
    threads = torch.get_num_threads()
    try:
        counted = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            counted.append(count_exponents(values, rounding=rounding))
    finally:
        torch.set_num_threads(threads)
    assert_counts(counted[0], values)
    assert counted[0] == counted[1] == counted[2]


def test_a_forked_process_counts_large_tensors_too() -> None:
    values = torch.randn(600_000)
    expected = count_exponents(values)
    # Without an exec, as data loaders fork: the parent's threads are not there any more.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(2)
        os.write(writer, b"same" if count_exponents(values) == expected else b"else")
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 4) == b"same"
    assert os.waitpid(child, 0)[1] == 0


def test_tallies_are_fetched_together_and_in_order() -> None:
    single, half, double = torch.randn(50), torch.randn(60).half(), torch.randn(70).double()
    tallies = [
        Seat(count_together([single]), 0),
        tally(half),
        tally(double),
        Seat(count_together([half], rounding=True), 0),
    ]
    found = histograms(tallies)
    assert [h.numel for h in found] == [50, 60, 70, 60]
    assert [h.exact for h in found] == [False, False, True, True]
    assert found[0] == count_exponents(single)
    assert histograms([]) == []


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"floating tensors, got torch\.int64"):
        count_exponents(torch.arange(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_counts_the_same() -> None:
    values = torch.cat([HALF_PATTERNS.view(torch.float16), torch.randn(20_000_000).half()])
    for rounding in (False, True):
        counted = count_exponents(values.cuda(), rounding=rounding)
        assert counted == count_exponents(values, rounding=rounding)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_counting_does_not_wait_for_the_gpu() -> None:
    values = torch.randn(1_000_000, device="cuda").half()
    tally(values)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        tallies = [tally(values), tally(values, rounding=True)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert histograms(tallies)[0].numel == 1_000_000


def test_tensors_without_memory_of_their_own_are_counted_too() -> None:
    zero = torch._efficientzerotensor((5,))
    assert count_exponents(zero).zero == 5
    nested = torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged)
    assert count_exponents(nested).counts.sum() == 5
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = torch.sparse_coo_tensor(torch.tensor([[0, 2, 2]]), torch.tensor([1.0, 2.0, 2.0]), (6,))
        found = count_exponents(sparse, rounding=True)
        assert (found.zero, found.numel, found.amax) == (4, 6, 4.0)
        assert found == count_exponents(sparse.to_dense(), rounding=True)
