from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lsviz.jobs.removal import delete_run
from lsviz.runs.files import RunFolderError
from lsviz.runs.reader import open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import SAMPLES
from tests.runs.test_store import CONFIG


def ended(root: Path) -> Path:
    with RunWriter(create_run(root, CONFIG)) as writer:
        return writer.path


def test_a_run_goes_with_all_that_it_has_and_the_others_stay(tmp_path: Path) -> None:
    gone, kept = ended(tmp_path), ended(tmp_path)
    (tmp_path / ".old.12345678.deleted").mkdir()  # an earlier deletion that was cut short
    (gone / "notes").mkdir()
    delete_run(open_run(gone))
    assert list(tmp_path.iterdir()) == [kept]


def test_a_half_deleted_run_is_never_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ended(tmp_path)
    seen: list[object] = []
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: seen.append(RunStore.at(tmp_path).list_runs()))
    delete_run(open_run(path))
    assert seen == [[]]


def test_a_live_run_stays(tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    with RunWriter(path):
        with pytest.raises(RunFolderError, match="still running: cancel it first"):
            delete_run(open_run(path))
        assert path.exists()
    delete_run(open_run(path))
    assert not path.exists()


def test_a_run_of_unreadable_status_can_go(tmp_path: Path) -> None:
    path = ended(tmp_path)
    (path / "status.json").write_text("{")
    delete_run(open_run(path))
    assert not path.exists()


def test_samples_and_links_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSVIZ_SAMPLES", raising=False)
    sample = RunStore.at(SAMPLES).list_runs()[0]
    with pytest.raises(RunFolderError, match="shipped sample"):
        delete_run(sample)
    assert sample.path.exists()
    target = ended(tmp_path / "there")
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(RunFolderError, match="link"):
        delete_run(open_run(link))
    assert target.exists()
