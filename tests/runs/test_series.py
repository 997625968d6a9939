"""The tables of every step: what is written comes back, live and put together, without a word more."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.schema import StepRow
from lsviz.runs.series import AmaxRows, LayerOutcome, OutcomeRow, TensorName
from lsviz.runs.writer import RunWriter, create_run

NAMES = (
    TensorName("head", "activation_grad", "float16", True),
    TensorName("head.weight", "weight_grad", "float32", False),
    TensorName("body", "activation_grad", "float16", True),
)
FEWER = NAMES[:2]


def rows(step: int, names: tuple[TensorName, ...] = NAMES, *, reference: bool = False) -> AmaxRows:
    number = len(names)
    return AmaxRows(
        step=step,
        reference=reference,
        names=names,
        loss_scale=np.full(number, 1.0 if reference else 8.0),
        amax=np.arange(number) + step / 3,
        inf=np.arange(number),
        nan=np.zeros(number, np.int64),
    )


def outcome(step: int) -> OutcomeRow:
    layers = (LayerOutcome("body", 2.0, None), LayerOutcome("head", 8.0, False))
    return OutcomeRow(step, 8.0, False, math.inf, 8188.0, 0.25, layers, "head", True)


def written(root: Path) -> Run:
    path = create_run(root, RunConfig.build(task="mine", steps=3))
    with RunWriter(path) as writer:
        for step in range(3):
            row = StepRow(step, 1.0, None, 8.0, False, True, 1e-3, 1.0, 1.0, 0.1)
            amax = [
                rows(step, FEWER if step == 1 else NAMES),
                *([rows(2, reference=True)] if step == 2 else []),
            ]
            writer.append(row, [], amax=amax, outcomes=[outcome(step), OutcomeRow(step, 4.0, True)])
            writer.flush()
        live = Run(path)
        before = live.amax(), live.outcomes()
    for found, earlier in zip((live.amax(), live.outcomes()), before, strict=True):
        pd.testing.assert_frame_equal(found, earlier)
    return live


def test_amax_rows_come_back_in_backward_order(tmp_path: Path) -> None:
    frame = written(tmp_path).amax()
    first = frame[frame["step"] == 0]
    assert first["tensor"].tolist() == ["head", "head.weight", "body"]
    assert first["dtype"].tolist() == ["float16", "float32", "float16"]
    assert first["inf"].tolist() == [0, 1, 2]
    assert frame[frame["step"] == 1]["tensor"].tolist() == ["head", "head.weight"]
    second = frame[(frame["step"] == 2) & frame["reference"]]
    assert second["loss_scale"].tolist() == [1.0] * 3
    assert second["amax"].tolist() == [2 / 3, 1 + 2 / 3, 2 + 2 / 3]


def test_outcomes_keep_every_try_and_what_is_unknown(tmp_path: Path) -> None:
    frame = written(tmp_path).outcomes()
    assert frame["step"].tolist() == [0, 0, 1, 1, 2, 2]
    tried, taken = frame.iloc[0], frame.iloc[1]
    assert tried["amax"] == math.inf
    assert [dict(layer) for layer in tried["layers"]] == [
        {"layer": "body", "scale": 2.0, "finite": None},
        {"layer": "head", "scale": 8.0, "finite": False},
    ]
    assert (tried["loss_layer"], tried["curable"], tried["finite"]) == ("head", True, False)
    assert taken["layers"] is None
    assert taken["curable"] is None
    assert math.isnan(taken["amax"])


def test_pandas_reads_both_without_lsviz(tmp_path: Path) -> None:
    run = written(tmp_path)
    assert pd.read_parquet(run.path / "amax.parquet").shape == (11, 10)
    assert pq.read_table(run.path / "outcomes.parquet").num_rows == 6


def test_a_run_without_these_tables_has_them_empty(tmp_path: Path) -> None:
    run = written(tmp_path)
    (run.path / "amax.parquet").unlink()
    (run.path / "outcomes.parquet").unlink()
    assert run.amax().empty
    assert run.outcomes().empty
    assert run.problems == []
