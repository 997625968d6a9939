from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsviz.runs.config import RunConfig
from lsviz.runs.reader import RunError
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run

CONFIG = RunConfig.build(task="sigmoid-mlp")


def set_created(path: Path, when: str) -> None:
    document = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**document, "created": when}))


def test_runs_are_listed_newest_first_from_all_roots(tmp_path: Path) -> None:
    first, second, third = (create_run(tmp_path / root, CONFIG) for root in ("a", "b", "a"))
    for path, when in ((first, "2026-01-02"), (second, "2026-01-03"), (third, "2026-01-01")):
        set_created(path, when)
    store = RunStore.at(tmp_path / "a", tmp_path / "b", tmp_path / "missing")
    assert [run.path for run in store.list_runs()] == [second, first, third]


def test_broken_folders_stand_apart_with_their_reason(tmp_path: Path) -> None:
    good, bad = create_run(tmp_path, CONFIG), create_run(tmp_path, CONFIG)
    (bad / "run.json").write_text("{")
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("no run")
    store = RunStore.at(tmp_path)
    assert [run.path for run in store.list_runs()] == [good]
    (broken,) = store.list_broken()
    assert broken.path == bad
    assert "run.json is broken" in broken.reason


@pytest.mark.parametrize("asked", ["../secret", "/etc", ".", "", "a/b", "..", "x\0y"])
def test_an_id_is_looked_up_never_joined_to_a_path(asked: str, tmp_path: Path) -> None:
    create_run(tmp_path / "secret", CONFIG)
    create_run(tmp_path / "runs", CONFIG)
    with pytest.raises(RunError, match="no run"):
        RunStore.at(tmp_path / "runs").find(asked)


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = create_run(tmp_path / "elsewhere", CONFIG)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(outside)
    assert RunStore.at(tmp_path / "runs").list_runs() == []
