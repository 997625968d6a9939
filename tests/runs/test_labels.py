from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsviz.runs.files import RunFolderError
from lsviz.runs.labelling import pin_run, set_labels
from lsviz.runs.labels import LABELS, LabelError, Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run
from tests.conftest import SAMPLES
from tests.runs.test_store import CONFIG


def new_run(root: Path) -> Run:
    return open_run(create_run(root, CONFIG))


def test_a_run_without_the_file_has_none_and_what_is_written_comes_back(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert run.labels == Labels()
    given = Labels.build(name="  first \n try ", tags=["slow", "slow", "for class"], pinned=True)
    assert (given.name, given.tags) == ("first try", ("slow", "for class"))
    set_labels(run, given)
    assert open_run(run.path).labels == run.labels == given
    set_labels(run, Labels())
    assert not (run.path / LABELS).exists()
    assert run.labels == Labels()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": "x" * 81}, "name: at most 80 characters each, got 81"),
        ({"tags": ["y" * 25]}, "tags: at most 24 characters each, got 25"),
        ({"tags": [str(i) for i in range(13)]}, "tags: at most 12 of them"),
        ({"name": "a\x00b"}, "can't be shown"),
        ({"name": "\u202egnp.exe"}, "can't be shown"),
        ({"name": "\ud800"}, "name"),
        ({"tags": [" "]}, "tags"),
    ],
)
def test_bounds(values: dict[str, object], reason: str) -> None:
    with pytest.raises(LabelError, match=reason):
        Labels.build(**values)


@pytest.mark.parametrize("text", ["{", "[]", '{"name": 3}', '{"name": "%s"}' % ("x" * 81), '{"other": 1}'])
def test_a_broken_file_is_told_and_the_run_stands(text: str, tmp_path: Path) -> None:
    run = new_run(tmp_path)
    (run.path / LABELS).write_text(text)
    assert run.labels == Labels()
    assert run.labels == Labels()
    assert len(run.problems) == 1
    assert "labels.json is broken" in run.problems[0]
    assert [r.path for r in RunStore.at(tmp_path).list_runs()] == [run.path]


def test_one_baseline_a_task(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path)
    other = open_run(create_run(tmp_path, CONFIG.model_copy(update={"task": "digits-mlp"})))
    set_labels(first, Labels.build(name="kept"))
    store = RunStore.at(tmp_path)
    for run in (other, first, second):
        pin_run(run, store)
    assert [run.labels.pinned for run in (first, second, other)] == [False, True, True]
    assert first.labels.name == "kept"
    pin_run(second, store, pinned=False)
    assert not second.labels.pinned


def test_samples_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSVIZ_SAMPLES", raising=False)
    sample = RunStore.at(SAMPLES).list_runs()[0]
    with pytest.raises(RunFolderError, match="shipped sample"):
        set_labels(sample, Labels.build(name="mine"))
    assert not (sample.path / LABELS).exists()


def test_a_changed_file_is_read_again_and_the_same_one_is_not(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert open_run(run.path).record is run.record
    document = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**document, "device": "cuda"}))
    assert run.record.device == "cuda"
