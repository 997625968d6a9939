"""Which tensors a half format limits, and whose they are, on real models."""

from __future__ import annotations

import pytest

from lsviz.analysis.series import gradient_series, load_series, tensor_layout
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.series import AMAX_SCHEMA, OUTCOMES_SCHEMA, amax_table
from lsviz.training.engine import Engine
from lsviz.training.loop import train
from lsviz.training.tasks.base import build_task


def first_step(task: str, precision: str = "fp16"):  # type: ignore[no-untyped-def]
    config = RunConfig.build(task=task, steps=1, precision=precision, reference_every=0, device="cpu")
    (result,) = train(build_task(task), config, Engine.resolve(config.precision, "cpu"))
    return amax_table(result.amax).to_pandas()


def test_what_went_through_half_is_limited_and_what_fp32_made_is_not() -> None:
    layout = tensor_layout(first_step("char-gpt"), "fp16")
    assert ("block1.attention.qkv", "activation_grad") in layout.limited
    assert ("block1.attention.qkv.weight", "weight_grad") in layout.limited
    # Its gradient is FP32, and comes from a product that FP16 had to hold.
    assert ("block1.norm1", "activation_grad") in layout.limited
    assert ("characters", "activation_grad") not in layout.limited
    assert ("characters.weight", "weight_grad") not in layout.limited


def test_layers_stand_in_backward_order_with_their_tensors() -> None:
    layout = tensor_layout(first_step("sigmoid-mlp"), "fp16")
    assert layout.layers == ["output", *(f"layer{i}" for i in range(6, 0, -1))]
    assert (
        layout.owners["layer3"] == layout.owners["layer3.weight"] == layout.owners["layer3.bias"] == "layer3"
    )


def test_in_fp32_every_tensor_counts() -> None:
    frame = first_step("char-gpt", "fp32")
    layout = tensor_layout(frame, "fp32")
    assert len(layout.limited) == len(frame)


def test_rows_of_a_pass_stand_in_backward_order() -> None:
    frame = first_step("digits-cnn")
    kinds = [t for t, k in zip(frame["tensor"], frame["kind"], strict=True) if k == "activation_grad"]
    assert kinds.index("output") < kinds.index("conv2") < kinds.index("conv1")
    tensors = frame["tensor"].tolist()
    assert tensors.index("conv2") < tensors.index("conv2.weight") < tensors.index("conv1")


def test_largest_values_are_those_of_the_exponents_table(scaled_run: Run) -> None:
    amax, exponents = scaled_run.amax(), scaled_run.exponents()
    recorded = exponents[~exponents["reference"]]
    both = (
        amax[~amax["reference"]]
        .astype({"tensor": str, "kind": str})
        .merge(recorded, on=["step", "tensor", "kind"], suffixes=("", "_exponents"))
    )
    assert len(both) == len(recorded)
    for name in ("amax", "inf", "nan", "loss_scale"):
        assert (both[name] == both[f"{name}_exponents"]).all()
    assert sorted(amax["step"].unique()) == list(range(41))


def test_a_series_without_tables_knows_what_steps_tell(scaled_run: Run) -> None:
    nothing = OUTCOMES_SCHEMA.empty_table().to_pandas(), AMAX_SCHEMA.empty_table().to_pandas()
    series = gradient_series(scaled_run.steps(), *nothing, precision="fp16")
    assert series.layers == []
    assert [tried.loss_scale for (tried,) in series.tries] == [1024.0] * 41
    whole = load_series(scaled_run)
    assert whole.weight_values == 64 * 128 + 5 * 128 * 128 + 6 * 128 + 128 * 10 + 10
    assert whole.top == pytest.approx(whole.outputs.max(axis=1).clip(min=whole.own.max(axis=1)))
