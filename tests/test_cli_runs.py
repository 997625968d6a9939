"""lsviz compare, rm, export, import and list: in this process, as none of them needs torch."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from lsviz.cli import main
from lsviz.runs.labelling import set_labels
from lsviz.runs.labels import Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import SAMPLES
from tests.runs.test_folder import CONFIG, write

Output = pytest.CaptureFixture[str]


@pytest.fixture
def run(runs_root: Path) -> Run:
    writer = write(runs_root)
    writer.end("finished")
    return open_run(writer.path)


def test_compare_tells_what_differs(run: Run, runs_root: Path, capsys: Output) -> None:
    with RunWriter(create_run(runs_root, CONFIG.model_copy(update={"policy": "none", "seed": 7}))) as other:
        pass
    set_labels(run, Labels.build(name="[bold]mine"))
    assert main(["compare", run.run_id, str(other.path)]) == 0
    told = capsys.readouterr().out
    for word in ("[bold]mine", "policy", "constant:8", "seed", "final loss scale"):
        assert word in told
    assert "lr" not in told.split(), "what both share is left out"
    assert main(["compare", run.run_id, other.path.name, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["run_id"], first["policy"], first["final_loss_scale"]) == (run.run_id, "constant:8", 8.0)
    assert (second["seed"], second["final_loss"]) == (7, None)


def test_rm_asks_unless_told(
    run: Run, runs_root: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["rm", run.run_id]) == 130
    assert run.path.exists()
    assert run.run_id in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["rm", run.run_id]) == 0
    assert list(runs_root.iterdir()) == []


def test_rm_takes_all_or_none(
    run: Run, runs_root: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LSVIZ_SAMPLES", raising=False)
    sample = RunStore.at(SAMPLES).list_runs()[0]
    with RunWriter(create_run(runs_root, CONFIG)) as live:
        for other, reason in ((live.path, "still running"), (sample.path, "shipped sample")):
            assert main(["rm", run.run_id, str(other), "--yes"]) == 2
            assert reason in capsys.readouterr().err
    assert run.path.exists()
    assert sample.path.exists()
    assert main(["rm", run.run_id, live.path.name, run.run_id, "--yes"]) == 0
    assert list(runs_root.iterdir()) == []


def test_a_run_goes_out_and_comes_in(run: Run, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "run.zip"
    assert main(["export", run.run_id, "-o", str(file)]) == 0
    other = tmp_path / "other"
    (tmp_path / "bad.zip").write_text("no")
    assert main(["import", str(file), str(tmp_path / "bad.zip"), "none.zip", "--runs", str(other)]) == 2
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == str(other / run.run_id)
    assert "'bad.zip' is no exported run" in told.err
    assert "can't read 'none.zip'" in told.err
    assert open_run(other / run.run_id).record == run.record
    assert main(["export", run.run_id, "--format", "csv", "-o", str(tmp_path / "tables")]) == 0
    assert len(pd.read_csv(tmp_path / "tables" / "steps.csv")) == len(run.steps())
    capsys.readouterr()
    for wrong in (["--format", "pickle", "-o", "x"], ["-o", str(tmp_path / "missing" / "x.zip")]):
        assert main(["export", run.run_id, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.glob(".*"))


def test_a_run_goes_to_dashboards_of_others(run: Run, tmp_path: Path, capsys: Output) -> None:
    out = tmp_path / "out"
    assert main(["export", run.run_id, "--format", "tensorboard", "--out", str(out)]) == 0
    (written,) = capsys.readouterr().out.splitlines()
    assert Path(written).parent == out / run.run_id
    assert "tfevents" in written
    assert main(["export", run.run_id, "--format", "wandb", "--out", str(out)]) == 0
    (written,) = capsys.readouterr().out.splitlines()
    assert list(Path(written).glob("*.wandb"))
    (tmp_path / "file").write_text("in the way")
    for fmt in ("tensorboard", "wandb"):
        assert main(["export", run.run_id, "--format", fmt, "--out", str(tmp_path / "file")]) == 2
        told = capsys.readouterr()
        assert (told.out, len(told.err.splitlines())) == ("", 1)


def test_logs_of_others_come_in(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": 1, "scale": 8}\n')
    (tmp_path / "bad.jsonl").write_text('{"step": 0, "loss": 1, "scale": 0}\n')
    runs = tmp_path / "runs"
    files = [str(tmp_path / name) for name in ("log.jsonl", "bad.jsonl")]
    assert main(["import", *files, "--runs", str(runs)]) == 2
    told = capsys.readouterr()
    (path,) = told.out.splitlines()
    assert open_run(path).steps()["loss_scale"].tolist() == [8.0]
    note, wrong = told.err.splitlines()
    assert note.startswith("lsviz: note: Made of a JSON log.")
    assert "scale is S: it must be a positive number of FP32, got 0" in wrong
    assert list(runs.iterdir()) == [Path(path)]
    assert main(["import", files[0], "--gradients", "halved"]) == 2
    assert "choose one of: unscaled, scaled" in capsys.readouterr().err


def test_list_shows_names_and_tags(run: Run, capsys: Output) -> None:
    set_labels(run, Labels.build(name="名 " * 20, tags=["a", "b"], pinned=True))
    assert main(["list"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "name", "policy"]
    assert run.labels.name in line
    assert main(["list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["tags"], row["pinned"], row["sample"]) == (["a", "b"], True, False)
