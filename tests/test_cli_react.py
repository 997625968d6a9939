"""``lsviz react``: from files alone, without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsviz.analysis.reaction import REACTION_COLUMNS
from lsviz.runs.reader import Run
from tests.conftest import train_run
from tests.test_cli_analysis import lsviz, told


@pytest.fixture(scope="module")
def faulty_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("faulty")
    settings = {"task": "digits-mlp", "steps": 8, "reference_every": 0}
    return [
        train_run(root, policy=policy, **settings, inject="3:layer1:nan")
        for policy in ("none", "gradscaler:init_scale=256")
    ] + [train_run(root, policy="none", **settings)]


def test_each_runs_reaction_is_told(faulty_runs: list[Run], tmp_path: Path) -> None:
    document = told("react", *(str(run.path) for run in faulty_runs), cwd=tmp_path)
    assert document["finding"].startswith(
        "A NaN in layer1 at step 3: both runs skip the step; S falls most under"
    )
    none, scaler = document["reactions"]
    assert list(none) == REACTION_COLUMNS
    assert (none["label"], none["before"], none["after"], none["recovered"]) == ("no scaling", 1, 1, 0)
    assert (scaler["before"], scaler["after"], scaler["recovered"]) == (256, 128, None)
    assert {row["skipped"] for row in document["reactions"]} == {1}
    assert none["run_id"] == faulty_runs[0].run_id


def test_as_a_table_with_the_others_named(faulty_runs: list[Run], tmp_path: Path) -> None:
    names = [run.run_id for run in faulty_runs]
    done = lsviz("react", *names, "--runs", str(faulty_runs[0].path.parent), cwd=tmp_path)
    assert done.returncode == 0
    assert "not in this run" in done.stdout
    assert "3:layer1:nan" in done.stdout
    assert done.stderr == f"lsviz: note: no fault was injected into {names[2]}; it is left out\n"


def test_runs_without_faults_are_one_line_and_exit_2(faulty_runs: list[Run], tmp_path: Path) -> None:
    done = lsviz("react", str(faulty_runs[2].path), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "lsviz: no fault was injected into these runs; train some with --inject 20:layer3:inf\n"
    )
