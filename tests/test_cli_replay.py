"""replay, blame, layers and skips: real runs, through a subprocess, and never torch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lsviz.runs.reader import Run
from tests.conftest import train_run
from tests.test_cli_analysis import lsviz, told


@pytest.fixture(scope="module")
def skipping_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """digits-mlp whose S starts too high and grows too soon."""
    root = tmp_path_factory.mktemp("skipping")
    policy = "gradscaler:init_scale=2^24,growth_interval=5"
    return train_run(root, task="digits-mlp", policy=policy, steps=30)


def skipped_steps(run: Run) -> list[int]:
    steps = run.steps()
    return [int(s) for s in steps.loc[steps["skipped"], "step"]]


def test_replaying_its_own_policy_gives_the_run_again(skipping_run: Run, tmp_path: Path) -> None:
    policy = skipping_run.config.policy
    found = told("replay", str(skipping_run.path), "--policy", policy, cwd=tmp_path)
    assert found["scales"] == skipping_run.steps()["loss_scale"].tolist()
    assert found["skipped"] == skipped_steps(skipping_run)
    assert found["skipped"]
    assert (found["exact_until"], found["reason"], found["raised_at"]) == (30, "", None)
    assert found["run_id"] == skipping_run.run_id


def test_another_policy_is_exact_until_its_skips_differ(skipping_run: Run, tmp_path: Path) -> None:
    found = told("replay", str(skipping_run.path), "--policy", "none", cwd=tmp_path)
    assert found["scales"] == [1.0] * 30
    assert found["skipped"] == []
    assert found["exact_until"] == skipped_steps(skipping_run)[0]
    assert "which the recorded run skipped" in found["reason"]
    table = lsviz("replay", str(skipping_run.path), "--policy", "none", cwd=tmp_path)
    assert table.returncode == 0
    assert f"exact until step {found['exact_until']}" in table.stdout


def test_a_policy_that_gives_up_says_when(skipping_run: Run, tmp_path: Path) -> None:
    policy = "deepspeed:init_scale=2^40,min_scale=2^38,hysteresis=1,raise_at_min_scale=true"
    done = lsviz("replay", str(skipping_run.path), "--policy", policy, cwd=tmp_path)
    assert done.returncode == 0
    assert re.search(r"deepspeed gives up at step \d+", done.stderr)


def test_blame_names_each_skipped_step(skipping_run: Run, tmp_path: Path) -> None:
    found = told("blame", str(skipping_run.path), cwd=tmp_path)
    assert [row["step"] for row in found["skipped"]] == skipped_steps(skipping_run)
    assert {row["layer"] for row in found["skipped"]} == {"output"}
    assert all(row["curable"] is True for row in found["skipped"])
    assert found["bottleneck"]["layer"] == "output"
    assert {row["layer"] for row in found["headroom"]} == {"layer1", "layer2", "output"}
    table = lsviz("blame", str(skipping_run.path), cwd=tmp_path)
    assert found["finding"] in " ".join(table.stdout.split())


def test_layers_tells_what_one_scale_costs(skipping_run: Run, tmp_path: Path) -> None:
    found = told("layers", str(skipping_run.path), cwd=tmp_path)
    assert [row["layer"] for row in found["layers"]] == ["layer1", "layer2", "output"]
    assert len({row["scale"] for row in found["layers"]}) == 1
    assert found["finding"].startswith("One S serves all layers")
    assert "own S" in lsviz("layers", str(skipping_run.path), cwd=tmp_path).stdout


def test_skips_counts_what_was_thrown_away(skipping_run: Run, scaled_run: Run, tmp_path: Path) -> None:
    rows = told("skips", str(skipping_run.path), str(scaled_run.path), cwd=tmp_path)
    assert [row["run_id"] for row in rows] == [skipping_run.run_id, scaled_run.run_id]
    number = len(skipped_steps(skipping_run))
    assert (rows[0]["skipped"], rows[0]["samples_lost"]) == (number, 128 * number)
    assert (rows[1]["skipped"], rows[1]["optimizer_steps"]) == (0, 41)
    assert "thrown away" in lsviz("skips", str(skipping_run.path), cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("replay", "RUN", "--policy", "gradscalar"), "unknown policy 'gradscalar'; choose one of: none"),
        (("replay", "nowhere", "--policy", "none"), "no run 'nowhere'"),
        (("blame", "nowhere"), "no run 'nowhere'"),
        (("layers", "RUN", "--format", "fp17"), "fp17"),
        (("skips", "nowhere"), "no run 'nowhere'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: str, skipping_run: Run, tmp_path: Path
) -> None:
    done = lsviz(*(str(skipping_run.path) if a == "RUN" else a for a in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
