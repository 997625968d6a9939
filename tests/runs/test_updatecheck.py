"""The updates table: what is written comes back, and only runs that ask for it have it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.schema import StepRow
from lsviz.runs.updatecheck import RATIO_BINS, UPDATES_SCHEMA, UpdateRow, updates_table
from lsviz.runs.writer import RunWriter, create_run


def row(step: int, **changes: object) -> UpdateRow:
    counts = {"counts": np.ones(RATIO_BINS, np.uint32), "moved": np.zeros(RATIO_BINS, np.uint32)}
    values: dict[str, object] = {
        "step": step, "loss_scale": 8.0, "weight_error": 1 / 3, "distance": 2.0, "norm": 0.1,
        "norm_seen": 0.8, "clip_threshold": None, "clip_factor": 1.0, "step_size": 0.5,
        "ideal_step_size": 0.25, "stalled": 0.75, "numel": 60, "zero_weights": 6, "zero_updates": 5,
        **counts,
    }  # fmt: skip
    return UpdateRow(**{**values, **changes})  # type: ignore[arg-type]


def written(root: Path, rows: dict[int, UpdateRow]) -> Run:
    path = create_run(root, RunConfig.build(task="mine", steps=4))
    with RunWriter(path) as writer:
        for step in range(4):
            done = StepRow(step, 1.0, None, 8.0, True, step not in rows, 1e-3, 1.0, 1.0, 0.1)
            writer.append(done, [], updates=[rows[step]] if step in rows else [])
            writer.flush()
        before = Run(path).updates()
    pd.testing.assert_frame_equal(Run(path).updates(), before)
    return Run(path)


def test_rows_come_back_live_and_whole(tmp_path: Path) -> None:
    rows = {0: row(0, weight_error=math.nan), 2: row(2, clip_threshold=0.5, norm_seen=math.inf), 3: row(3)}
    run = written(tmp_path, rows)
    assert [f.name for f in run.path.glob("updates*")] == ["updates.parquet"]
    frame = run.updates()
    assert list(frame.columns) == UPDATES_SCHEMA.names
    assert frame["step"].tolist() == [0, 2, 3]
    for (_, found), expected in zip(frame.iterrows(), rows.values(), strict=True):
        np.testing.assert_array_equal(found["counts"], expected.counts)
        np.testing.assert_array_equal(found["moved"], expected.moved)
        for name in set(UPDATES_SCHEMA.names) - {"counts", "moved", "clip_threshold"}:
            assert found[name] == pytest.approx(getattr(expected, name), nan_ok=True), name
    assert frame["clip_threshold"].isna().tolist() == [True, False, True]
    assert pd.read_parquet(run.path / "updates.parquet").shape == (3, len(UPDATES_SCHEMA.names))


def test_a_run_that_does_not_check_has_no_such_file(tmp_path: Path) -> None:
    run = written(tmp_path, {})
    assert run.updates().empty
    assert not list(run.path.glob("updates*"))
    assert {f.name for f in run.path.glob("*.parquet")} == {
        f"{name}.parquet" for name in ("steps", "exponents", "amax", "outcomes")
    }
    assert run.problems == []


def test_no_rows_are_an_empty_table() -> None:
    assert updates_table([]).schema == UPDATES_SCHEMA
    assert updates_table([]).num_rows == 0


@pytest.mark.parametrize("value", ["sometimes", 2])
def test_a_check_is_asked_for_or_not(value: object) -> None:
    with pytest.raises(ValueError, match="check_update"):
        RunConfig.build(task="t", check_update=value)
