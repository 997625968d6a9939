"""Predicted beside actual flushing, layer by layer, from a real run."""

from __future__ import annotations

import pandas as pd
import pytest

from lsviz.analysis.gap import gap_finding, layer_gap_frame, predicted_frame
from lsviz.analysis.shares import flushed_frame, layer_names
from lsviz.analysis.whatif import READ_COLUMNS, Histograms
from lsviz.formats import FP16
from lsviz.runs.reader import Run


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


def test_without_a_recorded_step_there_is_nothing_to_say() -> None:
    nothing = pd.DataFrame({name: [] for name in ("tensor", "kind", "predicted", "actual", "gap")})
    assert gap_finding(layer_gap_frame(nothing, ["layer1"])) == ""
