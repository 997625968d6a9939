"""The lab's rows, curves and sentences."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lsviz.analysis.lab import (
    error_curve_frame,
    lab_finding,
    lab_frame,
    ratio_finding,
    update_ratio_frame,
)
from lsviz.runs.lab import Lab, VariantResult
from lsviz.runs.updatecheck import RATIO_BINS
from tests.runs.test_lab import document


def variant(name: str, off: float | None = 1e-7, **changes: object) -> VariantResult:
    values = {"group": "clipping", "shows": "", "settings": {}, "steps": 9, "step_ratio": 1.0, **changes}
    return VariantResult(name=name, weight_error=off, **values)  # type: ignore[arg-type]


def lab(*variants: VariantResult) -> Lab:
    return document().model_copy(update={"variants": list(variants)})


def test_rows_are_in_order_with_nan_where_there_is_no_number() -> None:
    frame = lab_frame(lab(variant("a"), variant("b", None, error="gone"), variant("c", 0.5)))
    assert frame["name"].tolist() == ["a", "b", "c"]
    assert frame["right"].tolist() == [True, False, False]
    assert frame["error"].tolist() == ["", "gone", ""]
    assert math.isnan(frame["weight_error"].iloc[1])
    assert frame["norm_ratio"].isna().all()
    assert lab_frame(lab()).empty


def test_curves_are_long_rows_of_positive_errors() -> None:
    frame = error_curve_frame(lab(variant("a", curve=[(0, 0.0), (1, 0.5)]), variant("b")))
    expected = pd.DataFrame([("clipping", "a", 1, 0.5)], columns=["group", "name", "step", "weight_error"])
    pd.testing.assert_frame_equal(frame, expected)


def test_ratios_are_shares_of_a_variants_own_updates() -> None:
    counts, moved = [0] * RATIO_BINS, [0] * RATIO_BINS
    counts[29], counts[28], moved[29] = 1, 3, 1
    frame = update_ratio_frame([variant("a", counts=counts, moved=moved), variant("empty")])
    assert frame["name"].unique().tolist() == ["a"]
    assert frame["share"].sum() == pytest.approx(1)
    by_exponent = frame.set_index("exponent")
    assert by_exponent.loc[-11, ["share", "moved"]].tolist() == [0.25, 0.25]
    assert by_exponent.loc[-12, ["share", "moved"]].tolist() == [0.75, 0.0]
    assert update_ratio_frame([]).empty


def test_the_finding_counts_what_is_right_and_names_what_hardly_moves() -> None:
    slow = variant("slow", 0.99, step_ratio=1e-3)
    assert lab_finding(lab(variant("a"), variant("b"))) == (
        "2 of 2 ways to update the weights end where float64 does."
    )
    assert lab_finding(lab(variant("a"), slow)) == (
        "1 of 2 ways to update the weights ends where float64 does; slow hardly moves them."
    )
    both = lab_finding(lab(variant("a"), slow, variant("other", 0.9, step_ratio=0.1)))
    assert both.endswith("slow and other hardly move them.")
    assert lab_finding(lab(variant("a"), variant("far", 3.0), variant("off", 0.1))).endswith(
        "far is furthest off."
    )
    assert lab_finding(lab(variant("a", None))) == "Nothing can be told of these updates yet."


def test_what_fewer_digits_lose_is_told() -> None:
    told = ratio_finding([variant("FP32 weights", stalled=0.007), variant("FP16 weights", stalled=0.95)])
    assert told == (
        "Updates that leave their weight as it was: 0.7 % with FP32 weights, 95 % with FP16 weights."
    )
    assert "Nothing can be told" in ratio_finding([])
