"""What-if against real casts by torch, to the last count."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from lsviz.analysis.gap import predicted_frame
from lsviz.analysis.shares import flushed_frame
from lsviz.analysis.whatif import (
    SHARES,
    WHATIF_COLUMNS,
    Histograms,
    WhatIfError,
    load_histograms,
    whatif_frame,
)
from lsviz.exponents import ROUNDING_FORMATS
from lsviz.formats import BF16, E4M3, FP16, FP32, FloatFormat
from lsviz.runs.reader import Run
from lsviz.runs.schema import ExponentRow, exponents_table
from lsviz.training.counting import count_exponents

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "e5m2": torch.float8_e5m2}


def cast(values: Tensor, fmt: FloatFormat) -> Tensor:
    """Round FP32 values to a format and widen them to FP64.

    By torch, but for E4M3, which it saturates at 448 (2.13, CPU): ml_dtypes has NaN there, as OCP OFP8's
    non-saturating conversion.
    """
    if fmt is E4M3:
        return torch.from_numpy(values.numpy().astype(ml_dtypes.float8_e4m3fn).astype(np.float64))
    return values.to(DTYPES[fmt.name]).double()


def table_of(*tensors: Tensor, loss_scale: float = 1.0, reference: bool = True) -> pd.DataFrame:
    rows = [
        ExponentRow(
            7, f"layer{i}", "activation_grad", reference, loss_scale, count_exponents(x, rounding=True)
        )
        for i, x in enumerate(tensors)
    ]
    frame: pd.DataFrame = exponents_table(rows).to_pandas()
    return frame


def counts_by_cast(values: Tensor, scale: float, fmt: FloatFormat) -> dict[str, int]:
    """What torch's own cast makes of values x scale; the product is exact, in FP64."""
    exact = values.double() * scale
    rounded = cast(exact.float(), fmt)
    lost = (rounded == 0) & (values != 0)
    over = ~torch.isfinite(rounded) & ~torch.isnan(values)
    small = (exact.abs() < fmt.min_normal) & (values != 0) & ~lost
    zero, nan = values == 0, torch.isnan(values)
    normal = ~(lost | over | small | zero | nan)
    masks = {"flushed": lost, "subnormal": small, "normal": normal, "overflow": over, "structural_zero": zero}
    return {name: int(mask.sum()) for name, mask in masks.items()}


def assert_like_a_cast(values: Tensor, scale: float, fmt: FloatFormat) -> None:
    (told,) = whatif_frame(Histograms.of(table_of(values)), [scale], fmt).to_dict("records")
    counted = {name: told[name] * values.numel() for name in (*SHARES, "structural_zero")}
    assert counted == pytest.approx(counts_by_cast(values, scale, fmt), abs=1e-6)
    assert told["exact"]
    assert all(told[name] == told[f"{name}_low"] == told[f"{name}_high"] for name in SHARES)


@st.composite
def any_values(draw: st.DrawFn) -> Tensor:
    """Values of every kind between 2^-79 and 2^46, many of them on and beside a format's ends."""
    shape = draw(st.integers(1, 200))
    whole = draw(
        arrays.arrays(np.int32, shape, elements=st.integers(0, 2**23 - 1), fill=st.sampled_from([0, 1]))
    )
    exponents = draw(arrays.arrays(np.int32, shape, elements=st.integers(-79, 46)))
    values = np.ldexp(1 + whole * 2.0**-23, exponents)
    ends = [end for f in ROUNDING_FORMATS for end in (f.flush_limit, f.min_normal, f.overflow_limit, f.max)]
    ends = [end for end in ends if 2.0**-79 < end < 2.0**46]
    edges = draw(st.lists(st.sampled_from(ends), max_size=30))
    shifts = draw(st.lists(st.integers(-40, 10), min_size=len(edges), max_size=len(edges)))
    near = [
        np.nextafter(np.float32(np.ldexp(e, k)), np.float32(way))
        for e, k in zip(edges, shifts, strict=True)
        if 2.0**-79 < np.ldexp(e, k) < 2.0**46
        for way in (0.0, np.ldexp(e, k), np.inf)
    ]
    special = draw(st.lists(st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan]), max_size=5))
    signs = draw(st.sampled_from([1.0, -1.0]))
    return torch.tensor(np.concatenate([values * signs, near, special]).astype(np.float32))


@settings(max_examples=300, deadline=None)
@given(any_values(), st.integers(-10, 40), st.sampled_from(ROUNDING_FORMATS))
def test_shares_are_those_of_a_real_cast(values: Tensor, exponent: int, fmt: FloatFormat) -> None:
    finite = values[torch.isfinite(values) & (values != 0)]
    moved = finite.double() * 2.0**exponent
    if not ((moved.abs() >= 2.0**-126) & (moved.abs() < 2.0**127)).all():
        exponent = 0  # FP32 itself would round the product, and the cast with it
    assert_like_a_cast(values, 2.0**exponent, fmt)


@pytest.mark.parametrize("fmt", ROUNDING_FORMATS)
@pytest.mark.parametrize("exponent", [-10, -3, 0, 1, 10, 24])
def test_layers_like_gradients(exponent: int, fmt: FloatFormat) -> None:
    generator = torch.Generator().manual_seed(exponent)
    values = torch.randn(20_000, generator=generator) * torch.exp2(-torch.arange(20_000) % 40).float()
    assert_like_a_cast(torch.relu(values), 2.0**exponent, fmt)


@pytest.mark.parametrize("fmt", ROUNDING_FORMATS)
@pytest.mark.parametrize("scale", [3.0, 1000.0, 0.3, 65_535.0])
def test_other_scales_have_bounds(scale: float, fmt: FloatFormat) -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 1e-4
    (told,) = whatif_frame(Histograms.of(table_of(values)), [scale], fmt).to_dict("records")
    exact = values.double() * scale
    rounded = cast(exact.float(), fmt)
    real = {
        "flushed": (rounded == 0).double().mean().item(),
        "overflow": (~torch.isfinite(rounded)).double().mean().item(),
        "subnormal": ((exact.abs() < fmt.min_normal) & (rounded != 0)).double().mean().item(),
    }
    real["normal"] = 1 - sum(real.values())
    assert not told["exact"]
    for name, share in real.items():
        assert told[f"{name}_low"] - 1e-9 <= share <= told[f"{name}_high"] + 1e-9
        assert told[f"{name}_low"] <= told[name] <= told[f"{name}_high"]
    assert sum(told[name] for name in SHARES) + told["structural_zero"] == pytest.approx(1)


def test_what_lies_beyond_the_bins_is_told_as_not_exact_for_bf16_alone() -> None:
    rows = Histograms.of(table_of(torch.tensor([2.0**-100, 2.0**-126, 1.0, 2.0**100])))
    (bf16,) = whatif_frame(rows, [1.0], BF16).to_dict("records")
    assert not bf16["exact"]
    assert (bf16["flushed_low"], bf16["flushed_high"]) == (0, 0.5)
    assert (bf16["overflow_low"], bf16["overflow_high"]) == (0, 0.25)
    (fp16,) = whatif_frame(rows, [2.0**40], FP16).to_dict("records")
    assert fp16["exact"]
    assert (fp16["flushed"], fp16["overflow"]) == (0.5, 0.5)


def test_rows_scales_and_columns_keep_their_order() -> None:
    table = table_of(torch.ones(3), torch.zeros(2), torch.full((4,), 2.0**-30))
    told = whatif_frame(Histograms.of(table), [8, 1, 2**20], FP16)
    assert told.columns[: len(WHATIF_COLUMNS)].tolist() == WHATIF_COLUMNS
    assert told["scale"].tolist() == [8.0] * 3 + [1.0] * 3 + [2.0**20] * 3
    assert told["tensor"].tolist() == ["layer0", "layer1", "layer2"] * 3
    assert told["flushed"].tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0]
    assert told["structural_zero"].tolist() == [0, 1, 0] * 3


def test_what_fp32_recorded_under_a_scale_is_read_as_a_reference_is() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(2)) * 1e-6
    scaled = Histograms.of(table_of(values * 256, loss_scale=256.0, reference=False))
    plain = Histograms.of(table_of(values))
    pd.testing.assert_frame_equal(whatif_frame(scaled, [1, 64], FP16), whatif_frame(plain, [1, 64], FP16))


def test_what_a_cast_predicts_stands_beside_what_was_really_flushed() -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(3)) * 2.0**-24
    values[:500] = 0.0
    upstream = torch.arange(4000) % 5 == 0  # what the layer above had lost already
    scaled = torch.where(upstream, 0.0, values * 8).half().float()
    reference = table_of(values)
    recorded = table_of(scaled, loss_scale=8.0, reference=False)
    recorded["ones"] = None
    table = pd.concat([recorded, reference], ignore_index=True)
    (row,) = predicted_frame(Histograms.of(table), flushed_frame(table), FP16).to_dict("records")
    at_risk = values != 0
    by_cast = (((values * 8).half() == 0) & at_risk).sum() / at_risk.sum()
    really = ((scaled == 0) & at_risk).sum() / at_risk.sum()
    assert row["predicted"] == pytest.approx(by_cast.item())
    assert row["actual"] == pytest.approx(really.item())
    assert row["gap"] == pytest.approx((really - by_cast).item())
    assert row["gap"] > 0.1
    assert predicted_frame(Histograms.of(reference), flushed_frame(reference), FP16).empty


def test_an_empty_tensor_has_no_shares() -> None:
    (told,) = whatif_frame(Histograms.of(table_of(torch.zeros(0))), [2.0], FP16).to_dict("records")
    assert [told[name] for name in (*SHARES, "structural_zero")] == [0] * 5


@pytest.mark.parametrize(
    ("scales", "fmt", "message"),
    [
        ([2.0**41], FP16, r"from 2\^-10 to 2\^40, got 2.19902e\+12"),
        ([float("nan")], FP16, "got nan"),
        ([0.0], E4M3, "got 0"),
        ([1.0], FP32, "can't be told for fp32; choose one of: fp16, bf16, e4m3, e5m2"),
    ],
)
def test_what_can_not_be_told_says_why(scales: list[Any], fmt: FloatFormat, message: str) -> None:
    with pytest.raises(WhatIfError, match=message):
        whatif_frame(Histograms.of(table_of(torch.ones(1))), scales, fmt)


def test_a_run_without_gradients_says_how_to_record_some() -> None:
    with pytest.raises(WhatIfError, match=r"recorded no gradients.*--record-every 10.*--reference-every 10"):
        Histograms.of(table_of(torch.ones(1)).head(0))


def test_references_are_asked_before_what_half_left() -> None:
    table = pd.concat([table_of(torch.ones(3)), censored_table(torch.full((5,), 2.0**-20), 1.0)])
    rows = Histograms.of(table)
    assert (rows.censored, rows.caution) == (False, "")
    assert rows.keys["numel"].tolist() == [3]


def censored_table(values: Tensor, loss_scale: float) -> pd.DataFrame:
    """What a run without references has: values x S as FP16 left them, and nothing of significands."""
    left = (values * loss_scale).half()
    row = ExponentRow(7, "layer0", "activation_grad", False, loss_scale, count_exponents(left))
    frame: pd.DataFrame = exponents_table([row]).to_pandas()
    return frame


@settings(max_examples=150)
@given(
    magnitudes=arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(2.0**-30, 4.0, width=32)),
    recorded=st.integers(-2, 12),
    asked=st.integers(-10, 30),
    fmt=st.sampled_from([FP16, BF16, E4M3]),
)
def test_censored_histograms_bound_what_a_cast_makes_of_the_rest(
    magnitudes: Any, recorded: int, asked: int, fmt: FloatFormat
) -> None:
    values = torch.from_numpy(magnitudes)
    left = (values * 2.0**recorded).half()
    rows = Histograms.of(censored_table(values, 2.0**recorded))
    assert rows.censored
    assert "--reference-every 10" in rows.caution
    (found,) = whatif_frame(rows, [2.0**asked], fmt).to_dict("records")
    real = counts_by_cast(left.float() / 2.0**recorded, 2.0**asked, fmt)
    assert not found["exact"]
    for name in SHARES:
        share = real[name] / len(values)
        assert found[f"{name}_low"] - 1e-12 <= share <= found[f"{name}_high"] + 1e-12, name
    assert found["structural_zero"] == float((left == 0).double().mean())


def test_of_a_long_run_some_steps_stand_for_all(unscaled_run: Run) -> None:
    whole = load_histograms(unscaled_run)
    assert sorted(whole.keys["step"].unique()) == [0, 10, 20, 30, 40]
    assert len(whole.keys) == 5 * 21
    some = load_histograms(unscaled_run, most_rows=50)
    assert len(some.keys) < len(whole.keys)
    largest = whole.keys.groupby("tensor")["amax"].max()
    assert (some.keys.groupby("tensor")["amax"].max() == largest).all()
    for rows in (whole, some):
        assert not rows.censored
    first = whole.keys[whole.keys["step"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.keys[some.keys["step"] == 0].reset_index(drop=True), first)


def test_steps_that_overflowed_are_no_part_of_a_censored_run() -> None:
    spoilt = censored_table(torch.full((4,), 8.0), 2.0**14)
    assert spoilt["inf"].tolist() == [4]
    with pytest.raises(WhatIfError, match=r"every recorded step of this run overflowed"):
        Histograms.of(spoilt)
    clean = censored_table(torch.full((4,), 8.0), 1.0).assign(step=8)
    assert Histograms.of(pd.concat([spoilt, clean])).keys["step"].tolist() == [8]
