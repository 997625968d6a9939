"""Predicted beside actual flushing, layer by layer, from a real run."""

from __future__ import annotations

import pandas as pd
import pytest

from lsviz.analysis.findings import format_percent
from lsviz.analysis.gap import gap_finding, layer_gap_frame, other_format_finding, predicted_frame
from lsviz.analysis.shares import flushed_frame, layer_names
from lsviz.analysis.whatif import READ_COLUMNS, Histograms
from lsviz.formats import BF16, E4M3, E5M2, FP16, FloatFormat
from lsviz.runs.reader import Run

NO_BLAME = pd.DataFrame({"cause": [], "largest": [], "loss_scale": []})


def test_layers_have_the_means_of_their_outputs(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents(columns=READ_COLUMNS)
    predicted = predicted_frame(Histograms.of(exponents), flushed_frame(exponents), FP16)
    layers = layer_names(exponents)
    found = layer_gap_frame(predicted, layers)
    assert found["layer"].tolist() == layers
    outputs = predicted[predicted["kind"] == "activation_grad"]
    for row in found.to_dict("records"):
        mine = outputs[outputs["tensor"] == row["layer"]]
        assert len(mine) == 5
        assert row["predicted"] == pytest.approx(mine["predicted"].mean())
        assert row["gap"] == pytest.approx(row["actual"] - row["predicted"])
    assert found.loc[found["layer"] == "layer1", "actual"].iloc[0] > 0.99


@pytest.mark.parametrize(
    ("predicted", "actual", "words"),
    [
        (
            0.30,
            0.80,
            "worst really lost 80 % of its values, where one cast of its FP32 gradient would lose 30 %",
        ),
        (0.50, 0.505, "to within 0.5 %"),
        (0.50, 0.46, "to within 4 %"),
    ],
)
def test_the_finding_tells_the_largest_gap(predicted: float, actual: float, words: str) -> None:
    gaps = pd.DataFrame(
        {
            "layer": ["other", "worst"],
            "predicted": [0.1, predicted],
            "actual": [0.1, actual],
            "gap": [0.0, actual - predicted],
        }
    )
    assert words in gap_finding(gaps)


def test_bf16_keeps_what_fp16_flushed_of_a_real_run(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents(columns=READ_COLUMNS)
    predicted = predicted_frame(Histograms.of(exponents), flushed_frame(exponents), BF16)
    found = other_format_finding(
        predicted, layer_names(exponents), NO_BLAME, computed=FP16, cast=BF16, steps=20
    )
    lost = predicted.loc[predicted["tensor"] == "layer1", "actual"].mean()
    assert found == (
        "BF16 would have helped: it flushes 0 % of layer1's gradient, where FP16 flushed "
        f"{format_percent(lost)}"
    )


@pytest.mark.parametrize(
    ("lower", "upper", "overflow", "words"),
    [
        # Of each layer, flushed by the cast and really; then steps with Inf, by the cast and really.
        ((0.0, 1.0), (0.0, 0.1), (0, 0), "would have helped: it flushes 0 % of lower's gradient, where FP16"),
        ((0.3, 0.9), (0.0, 0.1), (0, 0), "helped in part: it flushes 30 % of lower's gradient, where FP16"),
        ((0.8, 0.9), (0.0, 0.0), (0, 0), "would hardly have helped: it flushes 80 % of lower's"),
        (
            (0.0, 0.02),
            (0.0, 0.0),
            (0, 0),
            "would have changed little: it flushes 0 % of lower's gradient, where",
        ),
        (
            (0.0, 0.06),
            (0.0, 0.0),
            (0, 0),
            "would have kept more of lower's gradient (FP16 flushed 6 %, ",
        ),
        ((0.0, 0.005), (0.0, 0.0), (0, 0), "not have helped: FP16 flushed at most 0.5 % of any layer's"),
        (
            (1.0, 1.0),
            (0.9, 0.0),
            (0, 0),
            "done harm: it flushes 90 % of upper's gradient, where FP16",
        ),
        ((0.0, 1.0), (0.0, 0.0), (2, 0), "overflow in it at 2 of 2 recorded steps, in FP16 at none"),
        ((0.0, 1.0), (0.0, 0.0), (1, 1), "would have helped: "),
    ],
)
def test_another_format_is_judged_by_what_it_keeps(
    lower: tuple[float, float], upper: tuple[float, float], overflow: tuple[int, int], words: str
) -> None:
    rows = [
        {
            "step": step,
            "tensor": name,
            "kind": "activation_grad",
            "loss_scale": 1.0,
            "predicted": cast,
            "actual": really,
            "gap": really - cast,
            "overflow": 0.1 * (step < overflow[0]),
            "overflowed": 0.1 * (step < overflow[1]),
        }
        for step in range(2)
        for name, (cast, really) in (("lower", lower), ("upper", upper))
    ]
    assert words in other_format_finding(
        pd.DataFrame(rows), ["lower", "upper"], NO_BLAME, computed=FP16, cast=E4M3, steps=20
    )


@pytest.mark.parametrize(
    ("lost", "cast", "words"),
    [
        # FP16 flushed hardly anything, and overflowed three times for S's sake.
        (0.001, BF16, "BF16 would have helped: it would have skipped none of the 3 steps at which S was too"),
        # Two of them lie above what E5M2 holds as well.
        (0.001, E5M2, "E5M2 would have helped: it would have skipped 2 of the 3 steps at which S was too"),
        (0.001, E4M3, "E4M3 would not have helped: FP16 flushed at most 0.1 %"),
        (0.5, BF16, "where FP16 flushed 50 %; it would have skipped none of the 3 steps"),
    ],
)
def test_another_format_is_judged_by_the_steps_it_saves(lost: float, cast: FloatFormat, words: str) -> None:
    row = {"tensor": "a", "kind": "activation_grad", "loss_scale": 1.0, "predicted": 0.0}
    more = {"actual": lost, "gap": lost, "overflow": 0.0, "overflowed": 0.0}
    predicted = pd.DataFrame([{**row, **more, "step": step} for step in range(2)])
    # E5M2 holds up to 57,344 and rounds up to 61,440 down to it: FP16's limit is 65,520.
    blame = pd.DataFrame(
        {
            "cause": ["scale", "scale", "scale", "injected"],
            "largest": [61_000 / 2**16, 1.1, 2.0, 9.0],
            "loss_scale": [2.0**16] * 4,
        }
    )
    assert words in other_format_finding(predicted, ["a"], blame, computed=FP16, cast=cast, steps=20)
    if lost < 0.01 and cast is not E4M3:  # four of a hundred are what finding S costs
        found = other_format_finding(predicted, ["a"], blame, computed=FP16, cast=cast, steps=100)
        assert "would have changed little: it would have skipped" in found


def test_without_a_recorded_step_there_is_nothing_to_say() -> None:
    nothing = pd.DataFrame({name: [] for name in ("tensor", "kind", "predicted", "actual", "gap")})
    assert gap_finding(layer_gap_frame(nothing, ["layer1"])) == ""
    assert other_format_finding(nothing, ["layer1"], NO_BLAME, computed=FP16, cast=BF16, steps=20) == ""
