"""Layer by step: the cells of a live map."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lsviz.analysis.flushmap import MOST_LAYERS, flushed_map_finding, flushed_map_frame
from lsviz.analysis.view import RunView
from lsviz.runs.reader import Run


def table(steps: int, layers: list[str]) -> pd.DataFrame:
    rows = [(step, name, step / 1000 + at / 100) for step in range(steps) for at, name in enumerate(layers)]
    frame = pd.DataFrame(rows, columns=["step", "tensor", "flushed"])
    return frame.assign(kind="activation_grad", overflow=0.0)


def test_each_recorded_step_is_a_column(unscaled_run: Run) -> None:
    view = RunView.of(unscaled_run, unscaled_run.status)
    cells = flushed_map_frame(view.by_layer, view.layers)
    assert list(dict.fromkeys(cells["layer"])) == view.layers
    assert sorted(set(cells["step"])) == view.recorded_steps
    exponents = unscaled_run.exponents(tensor="layer2", kind="activation_grad", steps=[20])
    zeros = exponents.set_index("reference")["zero"]
    numel = int(exponents["numel"].iloc[0])
    expected = (zeros[False] - zeros[True]) / (numel - zeros[True])
    (cell,) = cells[(cells["layer"] == "layer2") & (cells["step"] == 20)].itertuples()
    assert cell.flushed == pytest.approx(expected)
    assert "layer1 loses most: 100 % flushed at step 40" in flushed_map_finding(cells)


def test_many_steps_share_columns_that_stay_where_they_are() -> None:
    layers = ["low", "high"]
    few = flushed_map_frame(table(60, layers), layers, most_steps=32)
    more = flushed_map_frame(table(63, layers), layers, most_steps=32)
    assert few["step"].nunique() == 30
    whole = few[few["until"] == few["step"] + 1]
    both = whole.merge(more, on=["layer", "step", "until"])
    assert len(both) == len(whole)
    np.testing.assert_allclose(both["flushed_x"], both["flushed_y"])
    assert few["flushed"].iloc[0] == pytest.approx(0.0005), "a column is the mean of its steps"


def test_of_many_layers_those_that_lose_most_stay_in_order() -> None:
    layers = [f"layer{i}" for i in range(MOST_LAYERS + 5)]
    shown = list(dict.fromkeys(flushed_map_frame(table(3, layers), layers)["layer"]))
    assert shown == layers[5:]


def test_inf_and_nan_are_told() -> None:
    frame = table(3, ["low", "high"])
    frame.loc[frame["step"] == 2, "overflow"] = [0.0, 0.2]
    cells = flushed_map_frame(frame, ["low", "high"])
    assert cells["overflow"].tolist() == [False, False, False, False, False, True]
    assert flushed_map_finding(cells) == "Inf or NaN in 1 of 2 layers at step 2"


def test_nothing_recorded_gives_no_cells() -> None:
    cells = flushed_map_frame(table(3, []), [])
    assert cells.empty
    assert flushed_map_finding(cells) == "no FP32 reference recorded"
