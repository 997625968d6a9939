"""Commands that read a recorded run: real runs, through a subprocess, and never torch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from lsviz import record
from lsviz.analysis.whatif import SHARES
from lsviz.runs.reader import open_run
from lsviz.runs.store import RunStore
from tests.commands import forked

SAMPLES = Path(__file__).parents[1] / "sample_runs"


@pytest.fixture(scope="module")
def flushed_run() -> Path:
    """The sample run that loses its lower layers in FP16."""
    for run in RunStore.at(SAMPLES).list_runs():
        config = run.config
        if (config.task, config.policy, config.precision) == ("sigmoid-mlp", "none", "fp16"):
            return run.path
    raise AssertionError("no such sample run")


def lsviz(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # torch must not be needed: there is none.
    return forked(*arguments, cwd=cwd, torch=False)


def told(*arguments: str, cwd: Path) -> Any:
    done = lsviz(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no strict JSON")

    return json.loads(done.stdout, parse_constant=refuse)


def test_whatif_lists_every_tensor_step_and_scale(flushed_run: Path, tmp_path: Path) -> None:
    rows = told("whatif", str(flushed_run), "--scales", "1,2^10", cwd=tmp_path)
    reference = open_run(flushed_run).exponents().query("reference")
    assert len(rows) == 2 * len(reference)
    shares = [*SHARES, "structural_zero"]
    assert list(rows[0]) == ["tensor", "kind", "step", "scale", *shares, "exact"]
    assert all(sum(row[name] for name in shares) == pytest.approx(1) for row in rows)
    frame = pd.DataFrame(rows)
    lowest = frame[(frame["tensor"] == "layer1") & (frame["kind"] == "activation_grad")]
    by_scale = lowest.groupby("scale")["flushed"].mean()
    assert by_scale[1.0] > 0.99
    assert by_scale[1024.0] < 0.7
    assert frame["step"].nunique() == reference["step"].nunique()


def test_whatif_of_one_step_in_another_format(flushed_run: Path, tmp_path: Path) -> None:
    arguments = ["whatif", str(flushed_run), "--scales", "1", "--step", "0", "--format"]
    half, brain = (pd.DataFrame(told(*arguments, name, cwd=tmp_path)) for name in ("fp16", "bf16"))
    assert set(half["step"]) == {0}
    assert half["flushed"].max() > 0.99
    assert brain["flushed"].max() == 0


def test_an_s_that_is_no_power_of_two_comes_with_bounds(flushed_run: Path, tmp_path: Path) -> None:
    rows = told("whatif", str(flushed_run), "--scales", "1000", "--step", "0", cwd=tmp_path)
    for row in rows:
        assert not row["exact"]
        assert all(row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] for name in SHARES)


def test_whatif_as_a_table(flushed_run: Path, tmp_path: Path) -> None:
    done = lsviz("whatif", str(flushed_run), "--scales", "1,1000", cwd=tmp_path)
    lines = done.stdout.splitlines()
    last = open_run(flushed_run).exponents(columns=["step", "reference"]).query("reference")["step"].max()
    assert lines[0] == f"A cast of step {last}'s FP32 gradients to FP16, at other loss scales"
    assert lines[1].split() == ["tensor", "kind", "S", *SHARES, "zero", "before"]
    assert lines[2].split() == [
        "layer1",
        "activation",
        "grad",
        "1",
        "100",
        "%",
        "0",
        "%",
        "0",
        "%",
        "0",
        "%",
        "0",
        "%",
    ]
    assert lines[3].split()[0] == "1,000"
    assert "no power of two" in lines[-1]


def test_recommend_says_what_to_use_and_why(flushed_run: Path, tmp_path: Path) -> None:
    found = told("recommend", str(flushed_run), cwd=tmp_path)
    assert found["run_id"] == flushed_run.name
    low, high = found["window"]
    assert low <= found["best"] <= high
    assert found["policy"] == f"constant:{found['best']:.0f}"
    at_ends = told("whatif", str(flushed_run), "--scales", f"{high},{high * 2}", cwd=tmp_path)
    frame = pd.DataFrame(at_ends).groupby("scale")["overflow"].max()
    assert (frame.iloc[0], frame.iloc[1] > 0) == (0, True)
    shown = lsviz("recommend", str(flushed_run), cwd=tmp_path).stdout
    assert f"--policy {found['policy']}" in shown
    assert found["reason"] in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["whatif", "RUN", "--scales", "1,x"], "--scales: '1,x' is no list of numbers such as 1,8,2^10"),
        (["whatif", "RUN", "--scales", "2^41"], "a scale should be a number from 2^-10 to 2^40"),
        (["whatif", "RUN", "--scales", "1", "--format", "fp8"], "unknown format 'fp8'; choose one of: fp16"),
        (
            ["whatif", "RUN", "--scales", "1", "--step", "7"],
            "no gradients were recorded at step 7; the nearest",
        ),
        (["whatif", "nowhere", "--scales", "1"], "no run 'nowhere' in"),
        (
            ["recommend", "RUN", "--threshold", "1"],
            "threshold: a share from 0 to less than 1 is needed, got 1",
        ),
        (["recommend", "../etc"], "no run '../etc' in"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, flushed_run: Path, tmp_path: Path) -> None:
    done = lsviz(*(str(flushed_run) if a == "RUN" else a for a in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_run_without_a_reference_says_what_is_missing(tmp_path: Path) -> None:
    arguments = ["--task", "digits-mlp", "--steps", "3", "--record-every", "1", "--reference-every", "0"]
    made = forked("run", *arguments, "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    name = json.loads(made.stdout.splitlines()[-1])["run_id"]
    assert told("recommend", name, cwd=tmp_path)["censored"] is True
    done = lsviz("recommend", name, cwd=tmp_path)
    assert done.returncode == 0
    assert "no FP32 reference" in done.stderr
    assert "--reference-every 10" in done.stderr


def test_of_a_loop_of_ones_own_it_says_what_to_write_there(tmp_path: Path) -> None:
    model = nn.Linear(4, 4)
    with record(model, tmp_path / "mine") as rec:
        for _ in range(3):
            (model(torch.full((2, 4), 2.0**-20)).sum() * 2.0**-10).backward()
            rec.step()
    found = told("recommend", str(rec.path), cwd=tmp_path)
    scale = found["best"]
    assert found["keeps"] is None
    assert found["advice"].startswith("Use S = ")
    assert f"GradScaler(init_scale={scale:g}" in lsviz("recommend", str(rec.path), cwd=tmp_path).stdout
    samples = RunStore.at(SAMPLES).list_runs()
    usual = next(r for r in samples if (r.config.task, r.config.policy) == ("sigmoid-mlp", "gradscaler"))
    kept = told("recommend", str(usual.path), cwd=tmp_path)
    assert (kept["keeps"], kept["advice"].split(":")[0]) == (65536.0, "Keep gradscaler")
