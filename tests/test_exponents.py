from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lsviz.exponents import BINS, EXPONENTS, MAX_EXPONENT, MIN_EXPONENT, ExponentHistogram
from lsviz.formats import BF16, E4M3, E5M2, FP16, FloatFormat

Values = npt.NDArray[np.float64]

# Powers of two, ties, limits and anything else that FP32 holds.
EDGES = [0.0, -0.0, 2.0**-25, 2.0**-24, 2.0**-14, 1.0, 65504.0, 65519.0, 65520.0, 448.0, 464.0, 465.0]
numbers = st.one_of(st.floats(width=32), st.sampled_from(EDGES), st.integers(-60, 40).map(lambda e: 2.0**e))
samples = arrays(np.float64, st.integers(0, 60), elements=numbers)
within = arrays(
    np.float64,
    st.integers(1, 60),
    elements=st.one_of(
        st.floats(2.0**-40, 2.0**20, width=32), st.just(0.0), st.integers(-40, 20).map(lambda e: 2.0**e)
    ),
)


@given(samples)
def test_everything_is_counted_once(values: Values) -> None:
    histogram = ExponentHistogram.of(values)
    total = histogram.counts.sum() + histogram.zero + histogram.inf + histogram.nan
    assert total == histogram.numel == values.size
    finite = np.abs(values[np.isfinite(values)])
    assert histogram.amax == (finite.max() if finite.size else 0.0)


@given(st.floats(2.0**-79, 2.0**47, width=32))
def test_bins_are_floor_of_log2(value: float) -> None:
    counts = ExponentHistogram.of([-value]).counts
    exponent = int(EXPONENTS[counts.argmax()])
    assert counts.sum() == 1
    assert 2.0**exponent <= value < 2.0 ** (exponent + 1)


def test_end_bins_saturate() -> None:
    counts = ExponentHistogram.of([2.0**-120, 2.0**-81, 2.0**-80, 2.0**47, 2.0**90]).counts
    assert counts[0] == 3
    assert counts[-1] == 2
    assert (MIN_EXPONENT, MAX_EXPONENT, BINS) == (-80, 47, 128)


@given(samples, samples)
def test_merge_is_counting_both(a: Values, b: Values) -> None:
    merged = ExponentHistogram.of(a).merge(ExponentHistogram.of(b))
    assert merged == ExponentHistogram.of(np.concatenate([a, b]))
    assert merged == ExponentHistogram.of(b).merge(ExponentHistogram.of(a))


@given(samples)
def test_empty_is_neutral(values: Values) -> None:
    histogram = ExponentHistogram.of(values)
    assert histogram.merge(ExponentHistogram.empty()) == histogram


@given(within, st.integers(-30, 24))
def test_shift_is_counting_the_product(values: Values, k: int) -> None:
    assert ExponentHistogram.of(values).shift(k) == ExponentHistogram.of(values * 2.0**k)


@given(within, st.integers(-30, 24), st.integers(-30, 24))
def test_shifts_add_up_where_nothing_saturates(values: Values, j: int, k: int) -> None:
    histogram = ExponentHistogram.of(values)
    if -30 <= j + k <= 24:
        assert histogram.shift(j).shift(k) == histogram.shift(j + k)


@given(samples, st.integers(-400, 400))
def test_shift_loses_no_value(values: Values, k: int) -> None:
    histogram = ExponentHistogram.of(values)
    assert histogram.shift(k).numel == histogram.numel


CASTS = {
    "fp16": (FP16, torch.float16),
    "bf16": (BF16, torch.bfloat16),
    "e5m2": (E5M2, torch.float8_e5m2),
}


@pytest.mark.parametrize(("fmt", "dtype"), CASTS.values(), ids=CASTS)
@settings(max_examples=200)
@given(values=within, k=st.integers(-12, 30))
def test_fractions_are_those_of_a_real_cast(
    fmt: FloatFormat, dtype: torch.dtype, values: Values, k: int
) -> None:
    shares = ExponentHistogram.of(values).shift(k).fractions(fmt)
    scaled = torch.from_numpy(values * 2.0**k)
    cast = scaled.float().to(dtype).double()
    flushed = (cast == 0) & (scaled != 0)
    overflow = cast.isinf()
    subnormal = (scaled != 0) & ~flushed & (scaled.abs() < fmt.min_normal)
    n = values.size
    assert round(shares.flushed * n) == int(flushed.sum())
    assert round(shares.overflow * n) == int(overflow.sum())
    assert round(shares.subnormal * n) == int(subnormal.sum())
    assert round(shares.zero * n) == int((scaled == 0).sum())
    assert shares.flushed + shares.subnormal + shares.normal + shares.overflow + shares.zero == pytest.approx(
        1
    )


@given(values=within, k=st.integers(-12, 30))
def test_fractions_of_e4m3_follow_its_own_rounding(values: Values, k: int) -> None:
    shares = ExponentHistogram.of(values).shift(k).fractions(E4M3)
    rounded = E4M3.round(values * 2.0**k)  # pinned to ml_dtypes in test_formats
    assert round(shares.overflow * values.size) == int(np.isnan(rounded).sum())
    assert round(shares.flushed * values.size) == int(((rounded == 0) & (values != 0)).sum())


def test_fractions_without_rounding_counts_take_the_bin_whole() -> None:
    exact = ExponentHistogram.of([2.0**-25, 1.5 * 2.0**-25, 65519.0, 65520.0])
    plain = ExponentHistogram(exact.counts, amax=exact.amax)
    assert exact.exact
    assert not plain.exact
    assert exact.fractions(FP16).flushed == 0.25
    assert exact.fractions(FP16).overflow == 0.25
    assert plain.fractions(FP16).flushed == 0
    assert plain.fractions(FP16).overflow == 0


def test_inf_counts_as_overflow_and_nan_by_itself() -> None:
    shares = ExponentHistogram.of([np.inf, np.nan, 1.0, 0.0]).fractions(FP16)
    assert (shares.overflow, shares.nan, shares.normal, shares.zero) == (0.25, 0.25, 0.25, 0.25)


@given(samples)
def test_rows_of_the_table_come_back_equal(values: Values) -> None:
    histogram = ExponentHistogram.of(values)
    assert ExponentHistogram.from_dict(histogram.to_dict()) == histogram


def test_a_histogram_can_not_be_changed() -> None:
    histogram = ExponentHistogram.of([1.0])
    with pytest.raises(ValueError, match="read-only"):
        histogram.counts[3] = 1
    with pytest.raises(AttributeError):
        histogram.zero = 3  # type: ignore[misc]


@pytest.mark.parametrize("counts", [np.zeros(5), -np.ones(BINS)])
def test_counts_that_can_not_be_are_refused(counts: Values) -> None:
    with pytest.raises(ValueError, match=r"128 bins|negative"):
        ExponentHistogram(counts.astype(np.int64))
