"""Layers' frames, against values counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lsviz.analysis.findings import RunShares
from lsviz.analysis.layers import (
    MOST_STEPS,
    layers_finding,
    layers_frame,
    named_like,
    telling_names,
    thinned_steps,
    tidy_frame,
    told_shares,
)
from lsviz.exponents import ExponentHistogram
from lsviz.formats import FP16
from lsviz.runs.reader import Run


def row(step: int, tensor: str, values: list[float], *, reference: bool, scale: float = 1.0) -> dict:  # type: ignore[type-arg]
    histogram = ExponentHistogram.of(values)
    return {
        "step": step,
        "tensor": tensor,
        "kind": "weight_grad",
        "reference": reference,
        "loss_scale": scale,
        **{name: histogram.to_dict()[name] for name in ("numel", "zero", "inf", "nan", "counts")},
    }


def at(shares: object, exponent: int) -> float:
    return float(np.asarray(shares)[exponent + 80])


@pytest.fixture
def table() -> pd.DataFrame:
    """One tensor at S = 4: FP32 has 2^-30 twice, 2^-20, 2^-10 and a zero; FP16 kept 2^-18 and 2^-8."""
    return pd.DataFrame(
        [
            row(0, "a", [2.0**-30, 2.0**-30, 2.0**-20, 2.0**-10, 0.0], reference=True),
            row(0, "a", [0.0, 0.0, 2.0**-18, 2.0**-8, 0.0], reference=False, scale=4.0),
        ]
    )


def test_the_reference_is_shown_as_s_moves_it_and_what_was_lost_is_told(table: pd.DataFrame) -> None:
    (found,) = layers_frame(table, "weight_grad", FP16, expected=True).to_dict("records")
    assert [at(found["shares"], e) for e in (-28, -18, -8)] == [0.5, 0.25, 0.25]
    assert [bool(at(found["lost"], e)) for e in (-28, -18, -8)] == [True, False, False]
    assert found["flushed"] == 0.5
    assert found["at_risk"] == 4
    assert sum(found["shares"]) == 1


def test_what_was_recorded_is_shown_over_the_same_total(table: pd.DataFrame) -> None:
    (found,) = layers_frame(table, "weight_grad", FP16, expected=False).to_dict("records")
    assert [at(found["shares"], e) for e in (-28, -18, -8)] == [0, 0.25, 0.25]
    assert not any(found["lost"])
    assert found["flushed"] == 0.5


def test_what_was_lost_further_up_is_told_though_the_format_could_hold_it() -> None:
    small = [2.0**-20] * 90 + [2.0**-5] * 10
    table = pd.DataFrame(
        [
            row(0, "a", small, reference=True),
            row(0, "a", [0.0] * 90 + [2.0**-5] * 10, reference=False),
        ]
    )
    (found,) = layers_frame(table, "weight_grad", FP16, expected=True).to_dict("records")
    assert bool(at(found["lost"], -20))
    assert not at(found["lost"], -5)
    (kept,) = layers_frame(table, "weight_grad", FP16, expected=True, half=False).to_dict("records")
    assert not any(kept["lost"])


def test_inf_stands_in_the_last_bin_and_no_reference_is_told() -> None:
    table = pd.DataFrame([row(3, "a", [1.0, np.inf, np.nan, 0.0], reference=False)])
    (found,) = layers_frame(table, "weight_grad", FP16, expected=True).to_dict("records")
    assert at(found["shares"], 0) == pytest.approx(1 / 3)
    assert at(found["shares"], 47) == pytest.approx(2 / 3)
    assert found["overflow"] == 0.5
    assert not found["compared"]
    assert np.isnan(found["flushed"])


def test_a_kind_that_was_not_recorded_has_no_rows(table: pd.DataFrame) -> None:
    assert layers_frame(table, "activation_grad", FP16, expected=True).empty


def test_rows_of_a_real_run_are_the_layers_that_own_weights(unscaled_run: Run) -> None:
    found = layers_frame(unscaled_run.exponents(steps=[20]), "activation_grad", FP16, expected=True)
    assert found["tensor"].tolist()[0] == "layer1"
    np.testing.assert_allclose([sum(shares) for shares in found["shares"]], 1.0)
    tidy = tidy_frame(found, "a run")
    assert tidy.groupby("tensor")["share"].sum().to_numpy() == pytest.approx(1.0)
    assert tidy.loc[tidy["exponent"] < -25, "flushed"].all()


@pytest.mark.parametrize(("recorded", "every"), [(2000, 5), (2001, 6), (400, 1), (1, 1), (0, 1)])
def test_a_long_history_is_thinned_evenly(recorded: int, every: int) -> None:
    has = np.repeat(np.arange(recorded) * 5, 2)
    steps = pd.DataFrame({"step": has, "reference": [False, True] * recorded})
    thin = thinned_steps(steps, compared=True)
    kept = thin["step"].unique()
    assert kept.tolist() == list(range(0, 5 * recorded, 5 * every))
    assert len(kept) <= MOST_STEPS
    assert len(thin) == 2 * len(kept)


def test_names_are_found_by_any_part_and_the_worst_are_kept_in_order() -> None:
    assert named_like(["Block.attn", "block.mlp", "head"], " ATTN ,head,") == ["Block.attn", "head"]
    assert named_like(["a"], "") == ["a"]
    table = pd.DataFrame(
        [
            row(0, name, values, reference=reference)
            for name, kept in (("a", [1.0, 1.0]), ("b", [0.0, 1.0]), ("c", [0.0, 0.0]), ("d", [1.0, np.inf]))
            for values, reference in (([1.0, 1.0], True), (kept, False))
        ]
    )
    frame = layers_frame(table, "weight_grad", FP16, expected=True)
    assert telling_names([frame], ["a", "b", "c", "d"], 2, "") == ["c", "d"]
    assert telling_names([frame], ["a", "b", "c", "d"], 2, "a") == ["a", "d"]


def shares(flushed: dict[str, float], scale: float = 1.0, **more: object) -> RunShares:
    policy = "none" if scale == 1.0 else f"constant:{scale}"
    return RunShares("fp16", policy, scale, flushed, 0.0, highest_scale=scale, **more)  # type: ignore[arg-type]


def test_the_finding_says_who_loses_how_much() -> None:
    bad, good = shares({"a": 1.0, "b": 0.6, "c": 0.1}), shares({"a": 0.002}, 1024.0)
    assert layers_finding([bad, good], "layer") == (
        "Without loss scaling, 2 of 3 layers lose more than half of their gradient, a most (100 %). "
        "With S = 1,024, no layer loses more than 0.2 %."
    )
    assert layers_finding([shares({"a": 0.3, "b": 0.0})], "weight") == (
        "Without loss scaling, a loses 30 % of its gradient."
    )
    assert "none of these runs" in layers_finding([good, shares({"a": 0.0})], "layer")
    over = shares({"a": 0.0}, 2.0**20, overflow={"a": 0.5, "b": 0.1, "c": 0.0})
    assert "a and 1 other layer overflow: the step is skipped" in layers_finding([over], "layer")
    assert "nobody can tell" in layers_finding([shares({})], "layer")


def test_what_is_told_of_a_run_is_read_off_its_frame(table: pd.DataFrame) -> None:
    told = told_shares(layers_frame(table, "weight_grad", FP16, expected=True), "fp16", "constant:4")
    assert (told.loss_scale, told.flushed, told.total) == (4.0, {"a": 0.5}, 0.5)
