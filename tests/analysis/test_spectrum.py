from __future__ import annotations

import numpy as np
import pytest

from lsviz.analysis.spectrum import spectrum_frame
from lsviz.exponents import EXPONENTS
from lsviz.formats import FP16, Region
from lsviz.runs.reader import Run


def test_shares_are_those_of_the_recorded_counts(scaled_run: Run) -> None:
    exponents = scaled_run.exponents()
    spectrum = spectrum_frame(exponents, 40, ["layer2"], FP16)
    here = exponents[(exponents["step"] == 40) & (exponents["tensor"] == "layer2")]
    kept = np.asarray(here[~here["reference"]]["counts"].iloc[0])
    reference = np.asarray(here[here["reference"]]["counts"].iloc[0])
    for row in spectrum.to_dict("records"):
        assert row["kept"] == pytest.approx(kept[row["exponent"] + 80] / reference.sum())
        # S = 1024 moves the reference ten binades to the right.
        assert row["reference"] == pytest.approx(reference[row["exponent"] + 80 - 10] / reference.sum())
        assert row["region"] == FP16.region_of(row["exponent"])


def test_nothing_below_fp16s_smallest_is_kept(unscaled_run: Run) -> None:
    spectrum = spectrum_frame(unscaled_run.exponents(), 40, ["layer1", "layer2", "layer3"], FP16)
    flushed = spectrum[spectrum["region"] == Region.FLUSHED]
    assert (flushed["kept"] == 0).all()
    assert flushed["reference"].sum() > 1.5


def test_rows_keep_the_order_asked_for(scaled_run: Run) -> None:
    layers = ["output", "layer1"]
    spectrum = spectrum_frame(scaled_run.exponents(), 0, layers, FP16)
    assert list(dict.fromkeys(spectrum["tensor"])) == layers
    assert set(spectrum["exponent"]) <= set(EXPONENTS.tolist())


def test_without_a_reference_the_recorded_values_are_the_whole(scaled_run: Run) -> None:
    exponents = scaled_run.exponents()
    spectrum = spectrum_frame(exponents[~exponents["reference"]], 40, ["layer6"], FP16)
    assert spectrum["reference"].isna().all()
    assert spectrum["kept"].sum() == pytest.approx(1.0)


def test_a_step_that_was_not_recorded_is_empty(scaled_run: Run) -> None:
    assert spectrum_frame(scaled_run.exponents(), 7, ["layer1"], FP16).empty
