"""Frames as CSV: what they held comes back, and nothing is a formula."""

from __future__ import annotations

import io

import pandas as pd

from lsviz.runs.tables import csv_text


def test_numbers_and_text_come_back_and_formulas_are_text() -> None:
    frame = pd.DataFrame(
        {"tensor": ["layer1", "=1+1", "@SUM(A1)", "-x"], "flushed": [0.5, -1.0, float("nan"), 2.0**-30]}
    )
    back = pd.read_csv(io.StringIO(csv_text(frame)), dtype=str)  # an older pandas reads 2^-30 a little off
    assert back["tensor"].tolist() == ["layer1", "'=1+1", "'@SUM(A1)", "'-x"]
    assert float(back["flushed"].iloc[3]) == 2.0**-30
    assert float(back["flushed"].iloc[1]) == -1.0, "a negative number is no formula"
    assert frame["tensor"].iloc[1] == "=1+1", "the frame given is left as it was"


def test_a_column_s_name_is_no_formula_either() -> None:
    assert csv_text(pd.DataFrame({"=a": [1]})).startswith("'=a")
