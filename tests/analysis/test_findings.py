from __future__ import annotations

from dataclasses import replace

import pytest

from lsviz.analysis.findings import RunShares, finding, format_percent, format_scale, run_shares
from lsviz.runs.reader import Run

LAYERS = ("layer1", "layer2", "layer3")


def shares(policy: str, *flushed: float, precision: str = "fp16", scale: float = 1024.0) -> RunShares:
    total = sum(flushed) / len(flushed) if flushed else 0.0
    return RunShares(precision, policy, scale, dict(zip(LAYERS, flushed, strict=False)), total)


def without_reference(policy: str, zero: float, precision: str = "fp16") -> RunShares:
    return RunShares(precision, policy, 1024.0, {}, 0.0, zero=zero)


NONE = shares("none", 1.0, 1.0, 0.2, scale=1.0)
CONSTANT = shares("constant:1024", 0.001, 0.0, 0.0)


def test_nothing_is_concluded_across_tasks() -> None:
    runs = [replace(NONE, task="digits-cnn"), replace(CONSTANT, task="sigmoid-mlp")]
    assert finding(runs) == (
        "digits-cnn: Without loss scaling, the lowest 2 of 3 layers receive nothing. "
        "The runs train different tasks."
    )


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (
            [NONE, CONSTANT],
            "Without loss scaling, the lowest 2 of 3 layers receive nothing. "
            "With S = 1,024, nearly all of the gradient survives.",
        ),
        ([NONE], "Without loss scaling, the lowest 2 of 3 layers receive nothing."),
        ([CONSTANT], "With S = 1,024, nearly all gradients survive."),
        ([CONSTANT, shares("gradscaler", 0.0, 0.0, 0.0)], "Nearly all gradients survive in every run."),
        ([shares("none", 1.0, 1.0, 1.0)], "Without loss scaling, no layer receives any gradient."),
        ([shares("none", 1.0, 0.0, 0.0)], "Without loss scaling, the lowest layer receives nothing."),
        ([shares("none", 0.0, 1.0, 0.0)], "Without loss scaling, layer2 receives nothing."),
        ([shares("constant:8", 0.3, 0.1, 0.0, scale=8.0)], "With S = 8, layer1 loses 30 % of its gradient."),
        (
            [NONE, shares("none", 0.0, 0.0, 0.0, precision="fp32")],
            "Without loss scaling, the lowest 2 of 3 layers receive nothing. "
            "In FP32, all of the gradient survives.",
        ),
        ([shares("none")], "No gradients were recorded at this step."),
        ([], "No gradients were recorded at this step."),
        (  # loops of one's own, without a reference
            [without_reference("none", 0.25), without_reference("gradscaler", 0.5)],
            "Zero among the gradient values: 25 % without loss scaling, 50 % with S = 1,024. "
            "Without an FP32 reference nobody can tell which FP16 lost.",
        ),
        (
            [without_reference("none", 0.25, "fp32")],
            "In FP32, 25 % of the gradient values are zero.",
        ),
    ],
)
def test_sentences(runs: list[RunShares], sentence: str) -> None:
    assert finding(runs).replace("\u00a0", " ") == sentence


HUGE = RunShares(
    "fp16", "constant:2^40", 2.0**40, {"layer1": 0.0, "layer2": 0.0}, 0.0, {"layer1": 1.0, "layer2": 0.0}
)


def test_an_overflow_is_never_told_as_success() -> None:
    lost = "With S = 2⁴⁰, gradients overflow to Inf and the step is skipped."
    assert finding([HUGE]).replace("\u00a0", " ") == lost
    together = finding([NONE, HUGE, CONSTANT]).replace("\u00a0", " ")
    assert together == f"{lost} With S = 1,024, nearly all of the gradient survives."
    beside_none = finding([NONE, HUGE]).replace("\u00a0", " ")
    assert beside_none == f"{lost} Without loss scaling, 27 % of the gradient survives."


def test_nothing_means_nothing() -> None:
    sentence = finding([shares("none", 0.997, 0.0, 0.0)])
    assert sentence == "Without loss scaling, the lowest layer receives almost nothing."


def test_fp32_is_not_the_rescue_where_a_scale_is() -> None:
    sentence = finding([shares("none", 0.0, 0.0, 0.0, precision="fp32"), NONE, CONSTANT])
    assert "FP32" not in sentence


def test_a_real_pair_tells_the_story(unscaled_run: Run, scaled_run: Run) -> None:
    layers = [f"layer{i}" for i in range(1, 7)]
    runs = [run_shares(run.config, run.exponents(), 40, layers) for run in (unscaled_run, scaled_run)]
    assert [run.loss_scale for run in runs] == [1.0, 1024.0]
    assert finding(runs).startswith("Without loss scaling, the lowest layer receives nothing.")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((0, "0 %"), (1, "100 %"), (0.35, "35 %"), (0.002, "0.2 %"), (0.0001, "< 0.1 %")),
        *((0.9999, "> 99.9 %"), (0.998, "99.8 %"), (0.0049, "0.5 %"), (0.0149, "1 %")),
    ],
)
def test_percentages_never_hide_a_little_nor_claim_all(share: float, text: str) -> None:
    assert format_percent(share) == text


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (1.0, "1"),
        (1024.0, "1,024"),
        (2.0**16, "2¹⁶"),
        (0.5, "0.5"),
        (2.0**-20, "2⁻²⁰"),
        (3.3, "3.3"),
        (1e6, "1,000,000"),
    ],
)
def test_scales_are_written_as_people_read_them(scale: float, text: str) -> None:
    assert format_scale(scale) == text
