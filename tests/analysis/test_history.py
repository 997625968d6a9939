from __future__ import annotations

import numpy as np
import pytest

from lsviz.analysis.history import ZERO, below, history_finding, history_frame
from lsviz.analysis.shares import layer_names
from lsviz.formats import FP16
from lsviz.runs.reader import Run


def test_shares_are_those_of_the_recorded_counts(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents()
    layers = layer_names(exponents)
    history = history_frame(exponents, layers)
    assert history.index.tolist() == [0, 10, 20, 30, 40]

    total, zero, numel = np.zeros(128), 0, 0
    for row in exponents.to_dict("records"):  # by hand, one step
        if (
            row["reference"]
            and row["kind"] == "activation_grad"
            and row["step"] == 20
            and row["tensor"] in layers
        ):
            total += row["counts"]
            zero += row["zero"]
            numel += row["numel"]
    np.testing.assert_allclose(history.loc[20, list(range(-80, 48))].to_numpy(), total / total.sum())
    assert history.loc[20, ZERO] == zero / numel
    np.testing.assert_allclose(history.drop(columns=ZERO).sum(axis=1), 1.0)


def test_what_lies_below_is_the_sum_of_the_bins_below(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents()
    history = history_frame(exponents, layer_names(exponents))
    lost = history[list(range(-80, -25))].sum(axis=1).mean()
    assert below(history, -25.0) == pytest.approx(lost)
    assert lost > 0.2
    sentence = history_finding(history, 1024, FP16)
    assert sentence.startswith(f"{lost:.0%}".replace("%", " %"))
    assert "S = 1,024" in sentence


def test_without_a_reference_there_is_nothing_to_tell(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents()
    bare = history_frame(exponents[~exponents["reference"]], layer_names(exponents))
    assert bare.empty
    assert below(bare, 0) == 0
    assert history_finding(bare, 8, FP16) == "No FP32 reference was recorded."
