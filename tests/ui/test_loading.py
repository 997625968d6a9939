"""Views of runs are kept, but of large runs no more than four: each may take a gigabyte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lsviz.runs import reader
from lsviz.runs.reader import Run
from lsviz.ui.loading import load_run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("limit", "kept"), [(reader.SMALL_BYTES, True), (0, False)], ids=["small", "large"])
def test_of_large_runs_four_are_kept(
    limit: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SMALL_BYTES", limit)
    sample = min((REPOSITORY / "sample_runs").glob("*/run.json")).parent
    runs = []
    for at in range(5):
        shutil.copytree(sample, tmp_path / str(at))
        runs.append(Run(tmp_path / str(at)))
    first = load_run(runs[0]).exponents
    for run in runs[1:4]:
        load_run(run)
    assert load_run(runs[0]).exponents is first
    for run in runs[1:]:
        load_run(run)
    assert (load_run(runs[0]).exponents is first) == kept
