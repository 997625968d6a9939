"""Exported event files, read back by TensorBoard's own readers."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from lsviz.analysis.shares import flushed_frame
from lsviz.runs.eventfiles import MissingPackageError, save_events
from lsviz.runs.exchange import export_tables
from lsviz.runs.outgoing import BARS, moments
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import SAMPLES, train_run
from tests.runs.test_folder import CONFIG, step_row

Values = dict[tuple[str, int], np.ndarray]


def sample(task: str, policy: str) -> Run:
    return next(
        run
        for run in RunStore.at(SAMPLES).list_runs()
        if (run.config.task, run.config.policy, run.config.precision) == (task, policy, "fp16")
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that skips a step of which gradients were recorded: they hold Inf."""
    root = tmp_path_factory.mktemp("runs")
    return train_run(root, task="sigmoid-mlp", policy="gradscaler", steps=31, inject="10:layer3:inf")


@pytest.fixture(scope="module")
def flushed(run: Run) -> pd.DataFrame:
    return flushed_frame(run.exponents())


@pytest.fixture(scope="module")
def file(run: Run, flushed: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_events(run, flushed, tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def values(file: Path) -> Values:
    """Every value by tag and step, as TensorBoard's server has them."""
    return {
        (value.tag, event.step): make_ndarray(value.tensor)
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }


def test_its_histograms_are_the_tables_counts(run: Run, values: Values) -> None:
    tables = dict(export_tables(run, "parquet"))
    exponents = pd.read_parquet(io.BytesIO(tables["exponents.parquet"]))
    seen = 0
    for row in exponents.itertuples():
        prefix = "exponent_fp32" if row.reference else "exponent"
        left, right, counts = values[f"{prefix}/{row.kind}/{row.tensor}", row.step].T
        assert (right - left == 1).all()
        assert (left[1:] == right[:-1]).all()
        assert len(counts) % BARS == 0
        told = {int(x): int(n) for x, n in zip(left, counts, strict=True) if n}
        assert told == {i - 80: int(n) for i, n in enumerate(row.counts) if n}, (row.tensor, row.step)
        suffix = "_fp32" if row.reference else ""
        assert values[f"zero{suffix}/{row.kind}/{row.tensor}", row.step] == np.float32(row.zero / row.numel)
        if row.inf:
            assert values[f"inf{suffix}/{row.kind}/{row.tensor}", row.step] == np.float32(row.inf / row.numel)
        seen += 1
    assert seen == len(exponents) > 50
    assert sum(tag.startswith("exponent") for tag, _ in values) == seen
    assert exponents["inf"].sum() > 0, "the fault's Inf must be among what is compared"


def test_the_edges_of_a_tag_are_the_same_at_every_step(values: Values) -> None:
    edges: dict[str, np.ndarray] = {}
    for (tag, _), rows in values.items():
        if tag.startswith("exponent"):
            first = edges.setdefault(tag, rows[:, :2])
            assert np.array_equal(first, rows[:, :2]), tag
    assert len(edges) > 10


def test_its_numbers_are_the_runs(run: Run, flushed: pd.DataFrame, values: Values) -> None:
    steps = run.steps()
    assert bool(steps["skipped"].any())
    for row in steps.to_dict("records"):
        for name in ("loss", "loss_scale", "skipped", "lr", "ms"):
            assert values[name, row["step"]] == np.float32(row[name])
        assert ("metric", row["step"]) in values or math.isnan(row["metric"])
    assert len(flushed) > 10
    for row in flushed.itertuples():
        assert values[f"flushed/{row.kind}/{row.tensor}", row.step] == np.float32(row.flushed)


def test_it_says_what_the_histograms_are(run: Run, values: Values) -> None:
    (text,) = values["about", 0]
    assert "floor(log2 |g|)" in text.decode()
    assert "| inject | `10:layer3:inf` |" in text.decode()


def test_tensorboard_lists_it_under_the_runs_name(run: Run, file: Path) -> None:
    assert file.parent.name == run.run_id
    found = EventAccumulator(str(file.parent), size_guidance={"tensors": 0, "scalars": 0})
    found.Reload()
    assert "exponent/activation_grad/layer1" in found.Tags()["tensors"]
    assert found.FirstEventTimestamp() == pytest.approx(pd.Timestamp(run.record.created).timestamp(), abs=1)


def test_the_same_run_gives_the_same_file(
    run: Run, flushed: pd.DataFrame, file: Path, tmp_path: Path
) -> None:
    assert save_events(run, flushed, tmp_path).read_bytes() == file.read_bytes()
    assert [path.name for path in (tmp_path / run.run_id).iterdir()] == [file.name]


def test_a_run_without_gradients_has_its_numbers(runs_root: Path) -> None:
    with RunWriter(create_run(runs_root, CONFIG)) as writer:
        writer.append(step_row(0), [])
    run = RunStore.at(runs_root).list_runs()[0]
    (moment,) = moments(run, flushed_frame(run.exponents()))
    assert moment.numbers["loss_scale"] == run.steps()["loss_scale"][0]
    assert moment.bars == []
    assert save_events(run, flushed_frame(run.exponents()), runs_root / "out").exists()


def test_without_the_package_it_says_how_to_get_it(
    run: Run, flushed: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'lsviz\[tensorboard\]'"):
        save_events(run, flushed, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
