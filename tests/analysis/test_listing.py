from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lsviz.analysis.listing import runs_frame, search_runs
from lsviz.runs.files import write_json
from lsviz.runs.labelling import set_labels
from lsviz.runs.labels import Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from tests.runs.test_store import CONFIG


def new_run(root: Path, **changes: object) -> Run:
    with RunWriter(create_run(root, CONFIG.model_copy(update=changes))) as writer:
        return open_run(writer.path)


def test_every_word_is_looked_for_in_every_column(tmp_path: Path) -> None:
    first = new_run(tmp_path, policy="constant:1024")
    second = new_run(tmp_path, task="digits-mlp", precision="bf16")
    set_labels(second, Labels.build(name="Straße nach Rom", tags=["two words"], pinned=True))
    frame, problems = runs_frame(RunStore.at(tmp_path).list_runs())
    assert problems == []
    for asked, found in {
        "": {first, second},
        "  ": {first, second},
        "CONSTANT": {first},
        "strasse BF16": {second},
        "two baseline digits": {second},
        "no scaling": {second},
        "finished": {first, second},
        "constant bf16": set(),
        "(.*": set(),
        first.run_id: {first},
    }.items():
        assert set(search_runs(frame, asked)["run_id"]) == {run.run_id for run in found}, asked


def test_what_cannot_be_read_is_told_and_the_rest_stands(tmp_path: Path) -> None:
    good, bad, odd = (new_run(tmp_path) for _ in range(3))
    (bad.path / "status.json").write_text("{")
    (odd.path / "labels.json").write_text("{")
    frame, problems = runs_frame(RunStore.at(tmp_path).list_runs())
    assert set(frame["run_id"]) == {good.run_id, odd.run_id}
    assert len(problems) == 2
    assert any("status.json is broken" in line for line in problems)
    assert any("labels.json is broken" in line for line in problems)


def test_a_paused_run_is_told_from_one_that_goes_on(tmp_path: Path) -> None:
    goes_on, paused = (create_run(tmp_path, CONFIG) for _ in range(2))
    for path, held in ((goes_on, False), (paused, True)):
        status = open_run(path).status.model_copy(update={"state": "running", "paused": held})
        here = {"pid": os.getpid(), "host": socket.gethostname()}
        write_json(path / "status.json", status.model_copy(update=here).model_dump())
    frame, _ = runs_frame(RunStore.at(tmp_path).list_runs())
    states = dict(zip(frame["run_id"], frame["state"], strict=True))
    assert states == {goes_on.name: "running", paused.name: "paused"}


def test_no_runs_are_a_frame_to_search() -> None:
    frame, problems = runs_frame([])
    assert problems == []
    assert search_runs(frame, "x").empty


def test_a_folder_of_another_name_is_found_by_it(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.path.rename(tmp_path / "renamed")
    frame, _ = runs_frame(RunStore.at(tmp_path).list_runs())
    assert frame["run_id"].tolist() == ["renamed"]


def test_samples_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSVIZ_SAMPLES", str(tmp_path / "samples"))
    new_run(tmp_path / "samples")
    new_run(tmp_path / "runs")
    frame, _ = runs_frame(RunStore.at(tmp_path / "runs", tmp_path / "samples").list_runs())
    assert sorted(frame["note"]) == ["", "sample"]
