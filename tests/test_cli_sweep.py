"""``lsviz sweep`` and ``lsviz reproduce`` as a person runs them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lsviz.cli import main
from lsviz.jobs.sweep import SweepResult, run_sweep
from lsviz.runs.reproduction import load_reproduction
from lsviz.runs.store import RunStore
from lsviz.training.experiments import Experiment
from tests.commands import forked
from tests.conftest import PATIENCE, clean_environment
from tests.test_cli import strict

TINY = ["--task", "digits-mlp", "--steps", "8", "--record-every", "4", "--reference-every", "4"]


def test_a_sweep_prints_a_row_a_policy_and_continues(tmp_path: Path) -> None:
    arguments = ["sweep", *TINY, "--policies", "none; constant:2^10", "--seeds", "0,1", "--json"]
    done = forked(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = strict(done.stdout.splitlines()[-1])
    assert isinstance(document, dict)
    assert [(r["policy"], r["seed"]) for r in document["runs"]] == [
        ("none", 0),
        ("none", 1),
        ("constant:1024", 0),
        ("constant:1024", 1),
    ]
    assert [(row["variant"], row["seeds"], row["unfinished"]) for row in document["table"]] == [
        ("no scaling", 2, 0),
        ("constant:1024", 2, 0),
    ]
    metrics = [r["metric"] for r in document["runs"][:2]]
    assert document["table"][0]["mean"] == pytest.approx(sum(metrics) / 2)
    assert document["reused"] == 0
    for row in document["runs"]:
        assert Path(row["path"]).name == row["run_id"]
    assert len(RunStore.at(tmp_path / "runs").list_runs()) == 4

    more = strict(forked(*arguments[:-2], "0,1,2", "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert isinstance(more, dict)
    assert more["reused"] == 4
    assert len(RunStore.at(tmp_path / "runs").list_runs()) == 6

    table = forked(*arguments[:-1], cwd=tmp_path)
    assert "constant:1024" in table.stdout
    assert "±" in table.stdout


def test_a_failed_run_is_told_and_the_others_stand(tmp_path: Path) -> None:
    stuck = "deepspeed:init_scale=2^40,min_scale=2^40,raise_at_min_scale=true"
    done = forked("sweep", *TINY, "--policies", f"{stuck};none", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert "the library gives up" in done.stderr
    document = strict(done.stdout.splitlines()[-1])
    assert isinstance(document, dict)
    failed, good = document["runs"]
    assert "gives up" in failed["error"]
    assert failed["metric"] is None
    assert good["metric"] > 0


def test_every_run_of_a_sweep_has_the_fault_and_a_wrong_layer_is_told(tmp_path: Path) -> None:
    arguments = ["sweep", *TINY, "--policies", "none;gradscaler", "--json", "--inject"]
    done = forked(*arguments, "5:layer1:inf", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = RunStore.at(tmp_path / "runs").list_runs()
    assert [(run.config.inject, run.status.skipped_steps) for run in runs] == [("5:layer1:inf", 1)] * 2
    assert {"no scaling, 5:layer1:inf", "gradscaler, 5:layer1:inf"} == {
        row["variant"]
        for row in strict(done.stdout.splitlines()[-1])["table"]  # type: ignore[index]
    }
    wrong = forked(*arguments, "5:layer9:inf", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "no layer 'layer9' in this model; there are layer1, layer2, output" in wrong.stderr


def test_a_run_that_is_gone_or_broken_at_the_end_costs_its_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(root: Path, *arguments: object, **settings: object) -> SweepResult:
        done = run_sweep(root, *arguments, **settings)  # type: ignore[arg-type]
        first, second, _ = done.runs.values()
        shutil.rmtree(first.path)
        (second.path / "steps.parquet").write_bytes(b"PAR1 junk")
        return done

    monkeypatch.setattr("lsviz.cli_sweep.run_sweep", train)
    arguments = ["sweep", *TINY, "--policies", "none", "--seeds", "0,1,2", "--out", str(tmp_path / "runs")]
    assert main([*arguments, "--json"]) == 1
    told = capsys.readouterr()
    document = strict(told.out.splitlines()[-1])
    assert isinstance(document, dict)
    (row,) = document["table"]
    assert (row["seeds"], row["unfinished"]) == (3, 2)
    assert row["mean"] == document["runs"][2]["metric"]
    assert "seed 0: " in told.err
    assert "run.json is missing" in told.err
    assert "seed 1: steps.parquet can't be read" in told.err


def test_without_stderr_it_trains_on(tmp_path: Path) -> None:
    command = f"{sys.executable} -m lsviz sweep {' '.join(TINY)} --policies none --seeds 0,1 2>&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0
    assert "no scaling" in done.stdout


def test_ctrl_c_stops_a_sweep_which_then_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lsviz", "sweep", "--task", "digits-mlp", "--jobs", "1"]
    command += ["--policies", "none", "--record-every", "0", "--reference-every", "0"]
    process = subprocess.Popen(
        [*command, "--steps", "200000"],
        cwd=tmp_path,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + PATIENCE
    while not any(run.status.step for run in RunStore.at(tmp_path / "runs").list_runs()):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "goes on with what is missing" in errors
    assert [run.status.state for run in RunStore.at(tmp_path / "runs").list_runs()] == ["cancelled"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "none", "--seeds", "a"], "must be whole numbers"),
        (["--policies", "none", "--seeds", ""], "give 1 to 1,000"),
        (["--policies", " ; "], "none is named"),
        (["--policies", "none;bogus"], "unknown policy 'bogus'"),
        (["--policies", "none", "--jobs", "0"], "jobs: 0"),
        (["--policies", "none", "--steps", "0"], "steps"),
        (["--policies", "none", "--seeds", "-1"], "seed"),
        (["--policies", "none", "--out", ""], "it is empty; give a folder"),
    ],
)
def test_a_wrong_sweep_is_one_line_and_exit_2(
    arguments: list[str], message: str, runs_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--task", "digits-mlp", *arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert RunStore.at(runs_root).list_runs() == []


SMALL = (
    Experiment("digits-mlp", "digits-mlp", "as FP32", 128, {"steps": 8}, quick=4),
    Experiment(
        "digits-mlp, small steps",
        "digits-mlp",
        "worse",
        128,
        {"steps": 8, "lr": 1e-5},
        variants=("fp32", "none", "fp16-weights"),
        quick=4,
    ),
)


def test_reproduce_trains_prints_and_keeps_its_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lsviz.training.experiments.EXPERIMENTS", SMALL)
    monkeypatch.setattr("lsviz.analysis.reproduction.EXPERIMENTS", SMALL)
    assert main(["reproduce", "--quick", "--out", str(tmp_path), "--json"]) == 0
    document = strict(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(document, dict)
    assert [(r["experiment"], r["variant"], r["seed"]) for r in document["results"]] == [
        *((("digits-mlp"), v, 0) for v in ("fp32", "none", "constant", "gradscaler")),
        *((("digits-mlp, small steps"), v, 0) for v in ("fp32", "none", "fp16-weights")),
    ]
    weights = {run.config.master_weights for run in RunStore.at(tmp_path).list_runs()}
    assert weights == {True, False}
    assert "need no loss scaling" in document["headline"]
    assert {row["verdict"] for row in document["table"] if row["variant"] == "fp32"} == {None}
    kept = load_reproduction(tmp_path / "reproduce.json")
    assert kept is not None
    assert (kept.quick, kept.stopped, kept.reused, len(kept.results)) == (True, False, 0, 7)
    assert all(r.flushed is not None for r in kept.results)

    assert main(["reproduce", "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "FP16, S = 128:" in printed
    assert "paper: as FP32" in printed
    again = load_reproduction(tmp_path / "reproduce.json")
    assert again is not None
    assert again.reused == 7
    assert again.results == kept.results


def test_reproduce_interrupted_says_so_and_keeps_no_half_table(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lsviz", "reproduce", "--quick", "--jobs", "1", "--out", "here", "--json"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + PATIENCE
    while not any(run.status.state == "finished" for run in RunStore.at(tmp_path / "here").list_runs()):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    document = strict(out.splitlines()[-1])
    assert isinstance(document, dict)
    assert document["stopped"] is True
    assert document["results"]
    assert not (tmp_path / "here" / "reproduce.json").exists()


@pytest.mark.parametrize("command", ["sweep", "reproduce", "lab", "updates"])
def test_a_sweep_imports_no_torch_itself(command: str) -> None:
    code = "import sys; from lsviz.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, command, "--help"], capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0
