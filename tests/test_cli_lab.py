"""``lsviz lab`` and ``lsviz updates``: real runs, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsviz.analysis.lab import lab_finding
from lsviz.cli import main
from lsviz.runs.lab import load_lab
from lsviz.runs.store import RunStore
from lsviz.runs.updatecheck import UPDATES_SCHEMA
from tests.conftest import train_run
from tests.test_cli_analysis import lsviz, told


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no strict JSON")

    return json.loads(text, parse_constant=refuse)


def test_lab_trains_compares_and_reuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lab", "--steps", "6", "--out", str(tmp_path), "--l2", "0.01"]
    assert main([*arguments, "--json"]) == 0
    document = strict(capsys.readouterr().out.splitlines()[-1])
    by_name = {row["name"]: row for row in document["variants"]}
    assert len(by_name) == 14
    right = ("unscale (SGD)", "unscale (Adam)", "fold-lr (SGD)", "clip after", "L2 times S", "FP32 weights")
    for name in right:
        assert by_name[name]["verdict"].startswith("Right"), name
        assert by_name[name]["step_ratio"] == pytest.approx(1, rel=1e-3)
    assert by_name["fold-lr (Adam)"]["step_ratio"] == pytest.approx(1 / 1024, rel=0.01)
    assert by_name["none (SGD)"]["step_ratio"] == pytest.approx(1024, rel=0.01)
    assert by_name["clip before"]["strictness"] == pytest.approx(1024)
    assert by_name["clip times S"]["norm_ratio"] == pytest.approx(1024)
    assert by_name["clip times S"]["strictness"] == pytest.approx(1)
    assert by_name["L2 before"]["weight_error"] > 0.001
    assert by_name["FP16 weights"]["stalled"] > 0.5 > by_name["FP32 weights"]["stalled"]
    assert "curve" not in document["variants"][0]

    kept = load_lab(tmp_path / "lab.json")
    assert kept is not None
    assert (kept.reused, kept.stopped, document["finding"]) == (0, False, lab_finding(kept))
    assert all(result.curve and len(result.counts) == 49 for result in kept.variants)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "fold-lr (Adam)" in printed
    assert lab_finding(kept) in printed
    assert len(RunStore.at(tmp_path).list_runs()) == 14
    again = load_lab(tmp_path / "lab.json")
    assert again is not None
    assert (again.reused, again.variants) == (14, kept.variants)


def test_updates_tells_of_one_run_from_its_files_alone(tmp_path: Path) -> None:
    run = train_run(
        tmp_path, task="digits-mlp", policy="constant:8", steps=12, optimizer="sgd", clip=0.1,
        clip_order="before", check_update=True, record_every=0, reference_every=0,
    )  # fmt: skip
    document = told("updates", str(run.path), cwd=tmp_path)
    assert document["run_id"] == run.run_id
    assert document["strictness"] == pytest.approx(8)
    assert document["step_ratio"] == pytest.approx(1 / 8, rel=0.01)
    assert "Clipping is 8 times too strict" in document["verdict"]
    assert [row["step"] for row in document["updates"]] == list(range(12))
    assert list(document["updates"][0]) == UPDATES_SCHEMA.names
    row = document["updates"][3]
    assert sum(row["counts"]) + row["zero_weights"] + row["zero_updates"] == row["numel"]
    shown = lsviz("updates", run.run_id, "--runs", str(tmp_path), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == document["verdict"]
    assert len(shown.stdout.splitlines()) == 13


def test_a_run_that_did_not_check_says_how_to(tmp_path: Path) -> None:
    run = train_run(tmp_path, task="digits-mlp", steps=2, record_every=0, reference_every=0)
    done = lsviz("updates", str(run.path), cwd=tmp_path)
    assert done.returncode == 2
    assert "did not check its updates; train one that does: lsviz run --check-update" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_whose_steps_were_all_skipped_says_so(tmp_path: Path) -> None:
    run = train_run(tmp_path, task="digits-mlp", policy="constant:2^40", steps=2, check_update=True)
    done = lsviz("updates", str(run.path), cwd=tmp_path)
    assert done.returncode == 2
    assert "all its steps were skipped" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "nothing"], "unknown task 'nothing'"),
        (["--policy", "layerwise"], "undoes every layer's own S"),
        (["--optimizer", "task"], "optimizer: name one"),
        (["--optimizer", "lion"], "unknown optimizer 'lion'"),
        (["--clip", "0"], "clip: should be greater than 0"),
        (["--l2", "-1"], "l2: "),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = lsviz("lab", *arguments, "--out", "there", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "there").exists()


def test_the_commands_options_reach_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", "--task", "digits-mlp", "--steps", "2", "--record-every", "0", "--reference-every", "0"]
    assert main([*run, "--check-update", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    (found,) = RunStore.at(tmp_path).list_runs()
    assert found.config.check_update
    assert len(found.updates()) == 2
