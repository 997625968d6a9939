"""Recommended scales against casts by torch of the very tensors, at every power of two."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch import Tensor

from lsviz.analysis.recommend import MARGIN, Recommendation, recommend
from lsviz.analysis.scalemap import SCALES
from lsviz.analysis.whatif import Histograms, WhatIfError
from lsviz.formats import BF16, FP16
from lsviz.policies import parse_policy
from lsviz.runs.schema import ExponentRow, Kind, exponents_table
from lsviz.training.counting import count_exponents

Steps = dict[str, list[Tensor]]


def rows_of(tensors: Steps, kind: Kind = "weight_grad") -> Histograms:
    """Rows of some tensors, each with its values of every tenth step."""
    rows = [
        ExponentRow(10 * i, name, kind, True, 1.0, count_exponents(values, rounding=True))
        for name, steps in tensors.items()
        for i, values in enumerate(steps)
    ]
    frame: pd.DataFrame = exponents_table(rows).to_pandas()
    return Histograms.of(frame)


def layer(size: float, seed: int, number: int = 3, spread: float = 0.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(4000, generator=generator)
        * torch.exp2(spread * torch.randn(4000, generator=generator))
        * size
        for _ in range(number)
    ]


def window_by_casts(tensors: Steps, threshold: float) -> tuple[list[float], list[float]]:
    """The scales at which nothing overflows, and those at which no tensor loses more than the threshold."""
    safe, enough = [], []
    for scale in SCALES:
        casts = {name: [(v * scale).half() for v in steps] for name, steps in tensors.items()}
        if all(torch.isfinite(cast).all() for steps in casts.values() for cast in steps):
            safe.append(scale)
        shares = []
        for name, steps in casts.items():
            values, cast = torch.cat(tensors[name]), torch.cat(steps)
            shares.append(((cast == 0) & (values != 0)).sum().item() / max(1, (values != 0).sum().item()))
        if max(shares) <= threshold:
            enough.append(scale)
    return safe, enough


CASES: dict[str, Steps] = {
    "two layers apart": {"low": layer(2.0**-24, 0), "high": layer(2.0**-6, 1)},
    "one layer": {"only": layer(1e-3, 2)},
    "wide": {"wide": layer(1e-6, 3, spread=5.0)},
    "with zeros": {"relu": [torch.relu(v) for v in layer(2.0**-20, 4)], "top": layer(0.1, 5)},
    "too far apart": {"low": layer(2.0**-45, 6), "high": layer(8.0, 7)},
}


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("case", CASES)
def test_the_window_is_that_of_real_casts(case: str, threshold: float) -> None:
    tensors = CASES[case]
    safe, enough = window_by_casts(tensors, threshold)
    found = recommend(rows_of(tensors), threshold=threshold)
    assert found.high == (safe[-1] if safe else None)
    assert found.low == (enough[0] if enough else None)
    both = sorted(set(safe) & set(enough))
    assert found.window == ((both[0], both[-1]) if both else None)
    if both:
        assert found.best in both
        assert parse_policy(str(found.policy)).loss_scale == found.best
    else:
        assert found.best is None
        assert found.policy is None
    assert found.reason.count(". ") == 1
    assert found.reason.endswith(".")


def test_who_bounds_the_window() -> None:
    found = recommend(rows_of(CASES["two layers apart"]))
    assert found.upper is not None
    assert found.lower is not None
    assert found.best is not None
    largest = max((v.abs().max().item(), i) for i, v in enumerate(CASES["two layers apart"]["high"]))
    assert (found.upper.tensor, found.upper.value, found.upper.step) == ("high", largest[0], 10 * largest[1])
    assert found.lower.tensor == "low"
    assert found.patent_bound == pytest.approx(15 - math.log2(largest[0]))
    assert found.high is not None
    assert found.low is not None
    assert found.low <= found.best <= found.high / 2**MARGIN
    assert 0 <= math.log2(found.best) - math.log2(found.low * found.high) / 2 <= 0.5  # the middle
    assert found.reason.startswith("low needs S = ")
    assert "high reaches" in found.reason


def test_an_empty_window_points_elsewhere() -> None:
    found = recommend(rows_of(CASES["too far apart"]))
    assert found.window is None
    assert (
        "low still loses 100 % there. No one S serves both: a scale per layer (layerwise) or BF16"
        in found.reason
    )
    served = recommend(rows_of(CASES["too far apart"]), BF16)
    assert (served.best, served.policy) == (1.0, "none")
    assert served.reason.startswith("No loss scaling is needed: at S = 1 no tensor loses more than 1 %")
    assert "Nothing overflows up to S = 2⁴⁰" in served.reason


def test_where_fp16_needs_no_scale_none_is_recommended() -> None:
    found = recommend(rows_of(CASES["one layer"]))
    assert (found.best, found.policy) == (1.0, "none")


@pytest.mark.parametrize("special", [math.inf, math.nan])
def test_what_is_not_finite_in_fp32_is_not_curable(special: float) -> None:
    broken = torch.ones(3)
    broken[1] = special
    found = recommend(rows_of({"fine": [torch.ones(3)] * 2, "broken": [torch.ones(3), broken]}))
    assert (found.window, found.best) == (None, None)
    assert found.reason.startswith("broken holds Inf or NaN at step 10 in FP32 with S = 1")


def test_values_that_no_scale_brings_into_range() -> None:
    found = recommend(rows_of({"huge": [torch.tensor([1e9])]}))
    assert (found.high, found.best) == (None, None)
    assert found.reason.endswith("Use BF16, whose range is FP32's.")


def test_all_zero_gradients_ask_for_nothing() -> None:
    found = recommend(rows_of({"dead": [torch.zeros(5)]}))
    assert (found.upper, found.patent_bound) == (None, None)
    assert found.reason == "All recorded gradients are zero. Any loss scale does as well as any other."


def test_json_holds_what_the_page_shows() -> None:
    told = recommend(rows_of(CASES["two layers apart"])).to_dict()
    assert list(told) == [
        *("format", "threshold", "window", "low", "high", "best", "policy", "patent_bound"),
        *("upper", "lower", "reason"),
    ]
    assert told["window"] == [told["low"], told["high"]]
    assert set(told["upper"]) == {"tensor", "kind", "step", "value"}


def test_scales_that_values_were_recorded_at_make_no_difference() -> None:
    steps = [torch.full((100,), 2.0**-30), *[torch.full((100,), 1e-3)] * 200]
    rows = []
    for i, values in enumerate(steps):
        scale = 8.0 if i == 0 else 1.0
        histogram = count_exponents(values * scale, rounding=True)
        rows.append(ExponentRow(i, "a", "weight_grad", False, scale, histogram))
    found = recommend(Histograms.of(exponents_table(rows).to_pandas()))
    plain = recommend(rows_of({"a": steps}))
    assert (
        (found.low, found.high, found.best)
        == (plain.low, plain.high, plain.best)
        == (2.0**-10, found.high, 1.0)
    )


def test_sentences_at_the_ends_of_the_search() -> None:
    tiny = recommend(rows_of({"tiny": [torch.full((9,), 2.0**-28)]}))
    assert "at least" in tiny.reason
    assert tiny.best is not None
    assert tiny.best < 2.0**30
    smaller = recommend(rows_of({"smaller": [torch.full((9,), 2.0**-75)]}))
    assert smaller.reason.startswith(
        "Even at S = 2⁴⁰, as far as this looks, smaller loses 100 % of its values"
    )
    huge = recommend(rows_of({"huge": [torch.full((9,), 4e6)]}))
    assert huge.reason.startswith("Even at S = 2⁻¹⁰ no tensor loses more than 1 %")
    scaled = [
        ExponentRow(
            0, "x", "weight_grad", False, 2.0**40, count_exponents(torch.tensor([torch.inf]), rounding=True)
        )
    ]
    endless = recommend(Histograms.of(exponents_table(scaled).to_pandas()))
    assert "with S = 2⁴⁰, before any cast. Recorded with S = 1 the run would tell" in endless.reason


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_a_threshold_is_a_share(threshold: float) -> None:
    with pytest.raises(WhatIfError, match="threshold: a share from 0 to less than 1"):
        recommend(rows_of(CASES["one layer"]), FP16, threshold=threshold)


def test_a_recommendation_is_a_value() -> None:
    assert isinstance(hash(recommend(rows_of(CASES["one layer"]))), int)
    assert recommend(rows_of(CASES["one layer"])) == recommend(rows_of(CASES["one layer"]))
    assert isinstance(recommend(rows_of(CASES["one layer"])), Recommendation)


def test_a_layer_that_no_scale_serves_is_not_told_to_have_one_of_its_own() -> None:
    wide = {"wide": [torch.cat([torch.full((100,), 2.0**-30), torch.full((100,), 2.0**12)])]}
    found = recommend(rows_of(wide))
    assert found.best is None
    assert found.reason.endswith(
        "No S serves it, nor would one of its own: BF16 would, whose range is FP32's."
    )
