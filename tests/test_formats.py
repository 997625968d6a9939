from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsviz.errors import UserError
from lsviz.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32, FloatFormat, Region, parse_format

TORCH = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}
ML = {
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
ALL = pytest.mark.parametrize("fmt", FORMATS.values(), ids=str)
HALF_PATTERNS = np.arange(65536, dtype=np.uint16)


@ALL
def test_limits_are_torchs(fmt: FloatFormat) -> None:
    info = torch.finfo(TORCH[fmt.name])
    assert fmt.max == info.max
    assert fmt.min_normal == info.smallest_normal
    assert fmt.epsilon == info.eps


@pytest.mark.parametrize("fmt", [FP16, BF16, E4M3, E5M2], ids=str)
def test_limits_are_those_of_ml_dtypes(fmt: FloatFormat) -> None:
    info = ml_dtypes.finfo(ML[fmt.name])
    assert fmt.max == float(info.max)
    assert fmt.min_normal == float(info.smallest_normal)
    assert fmt.min_subnormal == float(info.smallest_subnormal)


@pytest.mark.parametrize("fmt", [FP16, BF16], ids=str)
def test_every_16_bit_pattern_is_kept(fmt: FloatFormat) -> None:
    values = torch.from_numpy(HALF_PATTERNS.view(np.int16)).view(TORCH[fmt.name]).double().numpy()
    np.testing.assert_array_equal(fmt.round(values), values)


@pytest.mark.parametrize("fmt", [FP16, BF16, E5M2], ids=str)
def test_rounding_is_torchs_cast_on_and_between_all_half_patterns(fmt: FloatFormat) -> None:
    patterns = HALF_PATTERNS.view(np.float16)
    patterns = patterns[np.isfinite(patterns)]
    halves = patterns.astype(np.float64)
    with np.errstate(over="ignore"):  # the largest half's next value is Inf
        next_ones = np.nextafter(patterns, np.float16(np.inf)).astype(np.float64)
        between = (halves + next_ones) / 2  # the ties, exact in float64
        above = np.nextafter(between.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    for values in (halves, between, above, halves * 2.0**-9, halves * 2.0**3):
        ours = fmt.round(values)
        theirs = torch.from_numpy(values).float().to(TORCH[fmt.name]).double().numpy()
        np.testing.assert_array_equal(ours, theirs)


def test_e4m3_rounding_is_that_of_ml_dtypes() -> None:
    # torch 2.13 saturates this cast; ml_dtypes gives NaN past 464, as the format has no Inf.
    values = HALF_PATTERNS.view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = values.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    np.testing.assert_array_equal(E4M3.round(values), theirs)
    assert E4M3.round(464.0) == 448.0
    assert np.isnan(E4M3.round(np.nextafter(464.0, 500.0)))


@given(st.floats(width=32))
def test_rounding_any_fp32_value_to_half_is_torchs(value: float) -> None:
    theirs = torch.tensor(value, dtype=torch.float32).half().double().item()
    np.testing.assert_equal(float(FP16.round(value)), theirs)


def test_flush_limit_is_where_torch_starts_to_give_zero() -> None:
    assert FP16.flush_limit == 2.0**-25
    assert torch.tensor(2.0**-25).half() == 0
    assert torch.tensor(np.nextafter(np.float32(2.0**-25), np.float32(1))).half() == 2.0**-24


def test_overflow_limit_is_where_torch_starts_to_give_inf() -> None:
    assert FP16.overflow_limit == 65520
    assert torch.tensor(65520.0).half() == math.inf
    assert torch.tensor(np.nextafter(np.float32(65520), np.float32(0))).half() == 65504


def test_regions_of_fp16_are_the_glossarys() -> None:
    by_region = {region: [e for e in range(-40, 30) if FP16.region_of(e) is region] for region in Region}
    assert by_region[Region.SUBNORMAL] == list(range(-24, -14))
    assert by_region[Region.NORMAL] == list(range(-14, 16))
    assert max(by_region[Region.FLUSHED]) == -25
    assert min(by_region[Region.OVERFLOW]) == 16


def test_parse_format_knows_every_name_and_lists_them_otherwise() -> None:
    assert parse_format(" FP16 ") is FP16
    assert [parse_format(name) for name in FORMATS] == [FP16, BF16, FP32, E4M3, E5M2]
    with pytest.raises(UserError, match=r"unknown format 'fp64'; choose one of: fp16, bf16"):
        parse_format("fp64")
