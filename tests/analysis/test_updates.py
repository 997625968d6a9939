"""What checked updates say, from frames made by hand."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from lsviz.analysis.updates import (
    CURVE_POINTS,
    SUMMARY,
    error_curve,
    format_error,
    format_ratio,
    ratio_counts,
    update_summary,
    verdict,
)
from lsviz.runs.updatecheck import RATIO_BINS, UPDATES_SCHEMA
from tests.runs.test_updatecheck import row


def frame(*changes: dict[str, object]) -> pd.DataFrame:
    rows = [asdict(row(step, **change)) for step, change in enumerate(changes)]
    made = pd.DataFrame(rows, columns=UPDATES_SCHEMA.names)
    return made.astype({"clip_threshold": "float64"})


def bins(**by_exponent: int) -> np.ndarray:
    counts = np.zeros(RATIO_BINS, np.uint32)
    for name, number in by_exponent.items():
        counts[40 - int(name.removeprefix("m"))] = number
    return counts


def test_the_summary_is_medians_shares_and_the_last_error() -> None:
    updates = frame(
        {"norm": 0.1, "norm_seen": 0.8, "clip_threshold": 0.5, "clip_factor": 1.0, "weight_error": math.nan},
        {"norm": 0.1, "norm_seen": 0.8, "clip_threshold": 0.5, "clip_factor": 0.6, "weight_error": 0.1},
        {"norm": 0.2, "norm_seen": 1.6, "clip_threshold": 0.5, "clip_factor": 0.3, "weight_error": 0.2},
    )
    summary = update_summary(updates, clip=0.5)
    assert list(summary) == list(SUMMARY)
    assert summary["weight_error"] == 0.2
    assert summary["norm_ratio"] == pytest.approx(8)
    assert summary["strictness"] == pytest.approx(8)
    assert summary["clipped"] == pytest.approx(2 / 3)
    assert summary["step_ratio"] == 2
    at_scale = update_summary(updates.assign(clip_threshold=4.0), clip=0.5)
    assert at_scale["strictness"] == pytest.approx(1)
    off = update_summary(updates.assign(clip_threshold=math.nan))
    assert (off["strictness"], off["clipped"]) == (None, None)


def test_updates_below_half_a_digit_and_those_that_do_nothing_are_shares_of_all() -> None:
    updates = frame(
        {"counts": bins(m12=6, m11=2), "moved": bins(m11=2)},
        {"counts": bins(m12=1, m5=1), "moved": bins(m12=1, m5=1)},
    )
    counts, moved = ratio_counts(updates)
    assert (counts.sum(), moved.sum()) == (10, 4)
    summary = update_summary(updates)
    assert summary["below"] == pytest.approx(0.7)
    assert summary["stalled"] == pytest.approx(0.6)


def test_without_updates_nothing_is_known() -> None:
    assert set(update_summary(frame()).values()) == {None}
    assert error_curve(frame()) == []
    nothing = {"norm": 0.0, "norm_seen": 0.0, "ideal_step_size": 0.0, "weight_error": math.nan}
    summary = update_summary(frame({**nothing, "counts": bins(), "moved": bins()}))
    assert {summary[name] for name in ("weight_error", "norm_ratio", "step_ratio", "stalled")} == {None}


def test_a_curve_is_thinned_but_keeps_its_ends() -> None:
    updates = frame(*({"weight_error": (step + 1) / 1000} for step in range(1000)))
    curve = error_curve(updates)
    assert len(curve) == CURVE_POINTS
    assert (curve[0], curve[-1]) == ((0, 0.001), (999, 1.0))
    assert error_curve(frame({"weight_error": math.nan}, {"weight_error": 0.0}, {"weight_error": 0.5})) == [
        (2, 0.5)
    ]


@pytest.mark.parametrize(
    ("numbers", "skipped", "said"),
    [
        ({"weight_error": 2e-7}, 0, "Right: as float64"),
        ({"weight_error": 0.29}, 0, "Wrong: its weights end off by 29 %"),
        ({"weight_error": 1.54}, 0, "Wrong: its weights end off by 1.54 times the way"),
        ({"weight_error": 0.002}, 0, "Nearly right: its weights end off by 0.2 %"),
        ({"weight_error": 0.999, "step_ratio": 1 / 1024}, 0, "Its steps are 1,024 times too small."),
        ({"weight_error": 7.0, "step_ratio": 8.0}, 2, "Its steps are 8 times too large."),
        ({"weight_error": 7.0, "step_ratio": 8.0}, 9, "8 times too large: after that 9 of 10 steps hold Inf"),
        (
            {"weight_error": 0.998, "step_ratio": 0.002, "strictness": 1024.0},
            0,
            "Clipping is 1,024 times too strict: its steps are 500 times too small.",
        ),
        ({"weight_error": 0.8, "step_ratio": 0.6, "stalled": 0.95}, 0, "95 % of its updates do nothing"),
        (
            {"weight_error": 0.9, "step_ratio": 1e-4, "stalled": 0.95},
            0,
            "Its steps are 10,000 times too small",
        ),
        ({"weight_error": None}, 10, "No update was applied"),
    ],
)
def test_the_verdict_names_what_is_wrong(numbers: dict[str, float | None], skipped: int, said: str) -> None:
    summary: dict[str, float | None] = {
        **dict.fromkeys(SUMMARY),
        "step_ratio": 1.0,
        "stalled": 0.0,
        **numbers,
    }
    assert said in verdict(summary, steps=10, skipped=skipped, half_weights=True)


def test_master_weights_that_stay_are_not_called_the_cause() -> None:
    summary: dict[str, float | None] = {
        **dict.fromkeys(SUMMARY), "step_ratio": 1.0, "stalled": 0.16, "weight_error": 0.08,
    }  # fmt: skip
    assert "do nothing" not in verdict(summary, steps=10, skipped=0)
    assert "do nothing" in verdict(summary, steps=10, skipped=0, half_weights=True)


def test_numbers_are_written_as_people_read_them() -> None:
    said = [format_error(e) for e in (2.05e-7, 5e-4, 0.0021, 0.29, 1.54, 1023.4, math.nan, 0.0)]
    assert said == ["2 x 10⁻⁷", "5 x 10⁻⁴", "0.2 %", "29 %", "154 %", "x 1,023", "–", "0 %"]
    said = [format_ratio(r) for r in (1.0, 1024.0, 2.5, 1 / 1024, 0.725, math.nan, math.inf, 0.0)]
    assert said == ["x 1", "x 1,024", "x 2.5", "÷ 1,024", "x 0.725", "–", "x inf", "x 0"]
