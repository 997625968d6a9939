"""Every example runs as its first line says, and leaves a whole run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lsviz
from tests.conftest import PATIENCE, REPOSITORY, clean_environment

EXAMPLES = sorted(path.stem for path in (REPOSITORY / "examples").glob("*.py"))


def test_there_is_one_in_each_style() -> None:
    assert EXAMPLES == ["huggingface_trainer", "lightning_loop", "plain_loop"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_records_its_run(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / f"{name}.py"), str(tmp_path / "run")],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "stopped recording" not in done.stderr
    run = lsviz.open_run(tmp_path / "run")
    assert run.status.state == "finished"
    assert run.steps()["loss"].iloc[-1] < run.steps()["loss"].iloc[0]
    assert set(run.exponents()["kind"]) == {"activation_grad", "weight_grad"}
    assert run.problems == []
