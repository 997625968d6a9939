from __future__ import annotations

import pandas as pd
import pytest

from lsviz.analysis.shares import flushed_frame, last_flushed, layer_names, total_flushed_frame
from lsviz.runs.reader import Run


def row(
    step: int, tensor: str, reference: bool, zero: int, numel: int = 100, inf: int = 0
) -> dict[str, object]:
    kind = "weight_grad" if tensor.endswith((".weight", ".bias")) else "activation_grad"
    return {
        "step": step,
        "tensor": tensor,
        "kind": kind,
        "reference": reference,
        "loss_scale": 1.0 if reference else 8.0,
        "numel": numel,
        "zero": zero,
        "inf": inf,
        "nan": 0,
    }


def test_flushed_is_what_fp32_has_and_fp16_has_not() -> None:
    frame = flushed_frame(pd.DataFrame([row(3, "relu", False, 70), row(3, "relu", True, 50)]))
    (only,) = frame.to_dict("records")
    assert only["lost"] == 20
    assert only["flushed"] == pytest.approx(0.4)  # of the 50 that are not zero in the reference
    assert only["structural_zero"] == 0.5
    assert only["loss_scale"] == 8.0


def test_steps_without_a_reference_are_left_out() -> None:
    rows = [row(0, "a", False, 5), row(0, "a", True, 5), row(1, "a", False, 9), row(2, "a", True, 0)]
    assert flushed_frame(pd.DataFrame(rows))["step"].tolist() == [0]


def test_more_zeros_in_the_reference_count_as_none_flushed() -> None:
    frame = flushed_frame(pd.DataFrame([row(0, "a", False, 3), row(0, "a", True, 5)]))
    assert frame["flushed"].tolist() == [0.0]


def test_a_gradient_that_is_zero_in_the_reference_has_nothing_to_lose() -> None:
    frame = flushed_frame(pd.DataFrame([row(0, "a", False, 100), row(0, "a", True, 100)]))
    assert frame["flushed"].tolist() == [0.0]


def test_overflow_is_what_became_inf_in_the_run_alone() -> None:
    rows = [
        row(0, "a", False, 0, inf=30),
        row(0, "a", True, 0),
        row(0, "b", False, 0, inf=9),
        row(0, "b", True, 0, inf=9),
    ]
    assert flushed_frame(pd.DataFrame(rows))["overflow"].tolist() == [0.3, 0.0]


def test_layers_are_the_modules_that_own_weights_in_order() -> None:
    names = [
        "embed",
        "block",
        "block.act",
        "block.fc",
        "head",
        "embed.weight",
        "block.fc.bias",
        "head.weight",
    ]
    frame = pd.DataFrame([row(0, name, False, 0) for name in names])
    assert layer_names(frame) == ["embed", "block.fc", "head"]
    only_activations = frame[frame["kind"] == "activation_grad"]
    assert layer_names(only_activations) == ["embed", "block", "block.act", "block.fc", "head"]


def test_the_total_weighs_by_values_at_risk() -> None:
    rows = [
        row(0, "a", False, 60, 100), row(0, "a", True, 50, 100),
        row(0, "b", False, 300, 300), row(0, "b", True, 0, 300),
        row(0, "a.weight", False, 9, 9), row(0, "a.weight", True, 0, 9),
    ]  # fmt: skip
    totals = total_flushed_frame(flushed_frame(pd.DataFrame(rows)), ["a", "b"])
    assert totals.to_dict("records") == [{"step": 0, "flushed": pytest.approx((10 + 300) / (50 + 300))}]


def test_empty_frames_give_empty_frames() -> None:
    empty = flushed_frame(pd.DataFrame())
    assert empty.empty
    assert last_flushed(empty) == {}
    assert total_flushed_frame(empty, ["a"]).empty


def test_a_real_run_shows_the_lowest_layers_starved(unscaled_run: Run, scaled_run: Run) -> None:
    unscaled = last_flushed(flushed_frame(unscaled_run.exponents()))
    scaled = last_flushed(flushed_frame(scaled_run.exponents()))
    assert unscaled["layer1"] > 0.99
    assert unscaled["layer1"] > unscaled["layer3"] > unscaled["layer5"]
    assert max(scaled.values()) < 0.05
    assert layer_names(unscaled_run.exponents()) == [f"layer{i}" for i in range(1, 7)] + ["output"]
