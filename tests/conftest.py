"""Fixtures shared by all tests: real runs, small enough to train in a moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lsviz.jobs.worker import StopFlag, execute_run
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run, open_run
from lsviz.runs.writer import create_run

# No deadline, and no limit to drawing either: a test must not fail because the machine is busy.
settings.register_profile("lsviz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lsviz")

REPOSITORY = Path(__file__).parents[1]
SAMPLES = REPOSITORY / "sample_runs"

PATIENCE = 240.0
"""Seconds until a process that is waited for counts as stuck: a busy machine takes its time."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As every task trains. Left alone, it would hang on which tests came before, and so on the order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def checked_figures() -> None:
    """Let Plotly check each value of every figure drawn in this process."""
    from lsviz.charts import drawing

    drawing.CHECKED = True


def train_run(root: Path, **settings: object) -> Run:
    """Train a run to its end in this process and return it."""
    path = create_run(root, RunConfig.build(**settings))
    execute_run(path, StopFlag())
    return open_run(path)


@pytest.fixture(scope="session")
def unscaled_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """sigmoid-mlp without loss scaling: 41 steps, recorded every 10."""
    return train_run(tmp_path_factory.mktemp("unscaled"), task="sigmoid-mlp", policy="none", steps=41)


@pytest.fixture(scope="session")
def scaled_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with S = 1024."""
    root = tmp_path_factory.mktemp("scaled")
    return train_run(root, task="sigmoid-mlp", policy="constant:1024", steps=41)


@pytest.fixture
def runs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that CLI and pages take for their runs."""
    root = tmp_path / "runs"
    monkeypatch.setenv("LSVIZ_RUNS", str(root))
    return root


@pytest.fixture
def no_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dashboard without shipped runs."""
    monkeypatch.setenv("LSVIZ_SAMPLES", str(tmp_path / "none"))


def clean_environment(**extra: str) -> dict[str, str]:
    """This environment without settings of ours, plus the given ones, for a subprocess."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LSVIZ_")}
    return {**kept, **extra}
