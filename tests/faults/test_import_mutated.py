"""Thousands of runs with something wrong in them: each is refused in one line, or reads without a fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lsviz.runs import compaction
from tests.conftest import REPOSITORY
from tests.faults.rows import write_run


def import_mutated(tmp_path: Path, first: int, number: int, seconds: float) -> dict[str, Any]:
    source, place = tmp_path / "source", tmp_path / "there"
    with pytest.MonkeyPatch.context() as patch:
        runs = [write_run(source, 6, each=2)]
        patch.setattr(compaction, "BY_STEP_FROM", 20)
        runs.append(write_run(source, 8, each=4))
        patch.setattr("lsviz.runs.writer.compact", lambda path: None)
        runs.append(write_run(source, 4, each=2))
    for run in runs:
        (run.path / "log.txt").write_text("said\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.importing", source, place, str(first), str(number)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    print(done.stdout)
    return told


def test_mutated_runs_are_refused_or_read_without_a_fault(tmp_path: Path) -> None:
    told = import_mutated(tmp_path, 0, 250, 280)
    assert 0 < told["came"] < 125
    assert sum(told["refused"].values()) == 250 - told["came"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_10_000_mutated_runs(tmp_path: Path) -> None:
    told = import_mutated(tmp_path, 1000, 10_000, 3500)
    assert sum(told["refused"].values()) == 10_000 - told["came"]
    assert told["slowest_s"] < 60
