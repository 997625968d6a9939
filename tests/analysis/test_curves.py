from __future__ import annotations

import numpy as np
import pytest

from lsviz.analysis.curves import (
    falls_behind,
    metric_finding,
    metric_frame,
    scale_curve_finding,
    scale_curve_frame,
    working_scales,
)
from lsviz.runs.reproduction import RunResult
from tests.analysis.test_results import result


def line(variant: str, metrics: list[float], seed: int = 0, task: str = "digits-mlp") -> RunResult:
    history = [(100 * (i + 1) - 1, m) for i, m in enumerate(metrics)]
    return result(variant, seed, task=task, history=history, metric=metrics[-1])


FP32 = [0.5, 0.7, 0.8, 0.9, 0.95]


def test_seeds_meet_in_mean_low_and_high() -> None:
    frame = metric_frame([line("fp32", FP32), line("fp32", [0.7, 0.7, 0.8, 0.9, 0.85], seed=1)])
    assert frame["step"].tolist() == [99, 199, 299, 399, 499]
    np.testing.assert_allclose(frame["mean"], [0.6, 0.7, 0.8, 0.9, 0.9])
    np.testing.assert_allclose(frame[["low", "high"]].iloc[0], [0.5, 0.7])


@pytest.mark.parametrize(
    ("unscaled", "since", "words"),
    [
        (FP32, None, "keeps up with FP32 to the end"),
        ([0.5, 0.7, 0.8, 0.82, 0.82], 399, "falls behind late, by step 399 of 500"),
        ([0.1, 0.1, 0.1, 0.1, 0.1], 99, "behind from the start"),
        ([0.5, 0.5, 0.8, 0.9, 0.95], None, "keeps up"),  # behind for a while only
        ([0.6, 0.8, 0.9, 0.95, 0.99], None, "keeps up"),
    ],
)
def test_when_a_run_falls_behind(unscaled: list[float], since: int | None, words: str) -> None:
    frame = metric_frame([line("fp32", FP32), line("none", unscaled)])
    assert falls_behind("digits-mlp", frame) == since
    assert words in metric_finding("digits-mlp", frame)


def test_keeping_up_with_what_has_learned_nothing_says_nothing() -> None:
    frame = metric_frame([line("fp32", [0.1, 0.1, 0.1, 0.9, 0.95]), line("none", [0.1] * 5)])
    assert falls_behind("digits-mlp", frame) == 99
    assert "behind from the start" in metric_finding("digits-mlp", frame)


def test_fp16_weights_that_fall_behind_are_told_too() -> None:
    weights = line("fp16-weights", [0.5, 0.5, 0.5, 0.5, 0.6])
    frame = metric_frame([line("fp32", FP32), line("none", FP32), weights])
    assert metric_finding("digits-mlp", frame) == (
        "Without loss scaling FP16 keeps up with FP32 to the end. With FP16 weights it falls behind late, by "
        "step 199 of 500, and ends 0.35 behind in accuracy."
    )
    fine = metric_frame([line("fp32", FP32), line("none", FP32), line("fp16-weights", FP32)])
    assert "FP16 weights" not in metric_finding("digits-mlp", fine)


def test_a_run_that_stops_being_finite_does_not_keep_up() -> None:
    alone = metric_frame([line("fp32", FP32), line("none", FP32[:3])])
    assert falls_behind("digits-mlp", alone) == 399
    assert metric_finding("digits-mlp", alone) == (
        "Without loss scaling FP16 falls behind late, by step 399 of 500, and ends without a number."
    )
    two_lost = [line("none", FP32), line("none", FP32[:3], 1), line("none", FP32[:3], 2)]
    several = metric_frame([*(line("fp32", FP32, seed) for seed in range(3)), *two_lost])
    assert falls_behind("digits-mlp", several) == 399
    assert "without a number in 2 of 3 seeds" in metric_finding("digits-mlp", several)


def test_a_gap_within_the_seeds_spread_is_none() -> None:
    wide = [line("fp32", FP32), line("fp32", [m - 0.2 for m in FP32], seed=1)]
    frame = metric_frame([*wide, line("none", [m - 0.25 for m in FP32])])
    assert falls_behind("digits-mlp", frame) is None


def test_lower_can_be_better() -> None:
    frame = metric_frame(
        [line("fp32", [5.0, 3.0], task="char-lstm"), line("none", [5.0, 4.0], task="char-lstm")]
    )
    assert falls_behind("char-lstm", frame) == 199
    assert "1 behind in bits per character" in metric_finding("char-lstm", frame)
    assert "needed" in metric_finding("char-lstm", frame[frame["variant"] == "fp32"])


def curve(*rows: tuple[str, float | None, float, int]) -> list[RunResult]:
    return [
        result(policy, policy=policy, metric=m, flushed=f, layers={"layer1": f}, skipped_steps=k)
        for policy, m, f, k in rows
    ]


U = curve(
    ("constant:4096", 0.96, 0.0, 0),
    ("none", 0.1, 1.0, 0),
    ("constant:16", 0.95, 0.3, 0),
    ("constant:65536", None, 0.0, 100),
    ("gradscaler", 0.9, 0.0, 3),
)


def test_the_u_curve_is_ordered_by_scale_and_leaves_out_what_moves() -> None:
    frame = scale_curve_frame(U)
    assert frame["loss_scale"].tolist() == [1, 16, 4096, 65536]
    np.testing.assert_allclose(frame["skipped"], [0, 0, 0, 1])
    assert frame["metric"].isna().tolist() == [False, False, False, True]
    assert scale_curve_frame([]).empty


def test_the_scales_that_work() -> None:
    frame = scale_curve_frame(U)
    assert working_scales("digits-mlp", frame, [0.95, 0.96, 0.97]) == (16, 4096)
    assert (
        scale_curve_finding("digits-mlp", frame, [0.95, 0.97])
        == "Any S from 16 to 4,096 trains about as FP32 does: a smaller one flushes, a larger one skips."
    )
    assert working_scales("digits-mlp", frame, [1.2]) is None
    assert "No S" in scale_curve_finding("digits-mlp", frame, [1.2])
    assert working_scales("digits-mlp", frame, []) is None
    all_good = scale_curve_frame(U[:1])
    assert (
        scale_curve_finding("digits-mlp", all_good, [0.96])
        == "Any S from 4,096 to 4,096 trains about as FP32 does."
    )
