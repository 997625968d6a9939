"""Runs for other programs' dashboards, as the page Runs hands them out."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path

import pytest

from lsviz.analysis.shares import flushed_frame
from lsviz.errors import UserError
from lsviz.jobs.exporting import dashboard_zip, installed_dashboards
from lsviz.runs.eventfiles import save_events
from lsviz.runs.reader import Run


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_event_files_are_those_of_the_command_line_a_folder_a_run(
    unscaled_run: Run, scaled_run: Run, tmp_path: Path
) -> None:
    data = dashboard_zip([unscaled_run, scaled_run], "tensorboard")
    told = names(data)
    assert {name.partition("/")[0] for name in told} == {unscaled_run.run_id, scaled_run.run_id}
    file = save_events(unscaled_run, flushed_frame(unscaled_run.exponents()), tmp_path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read(str(file.relative_to(tmp_path))) == file.read_bytes()


def test_offline_runs_hold_what_wandb_sync_takes(
    unscaled_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = names(dashboard_zip([unscaled_run], "wandb"))
    runs = [name for name in told if name.endswith(".wandb")]
    assert len(runs) == 1
    assert runs[0].startswith("wandb/offline-run-")
    assert not any(str(Path.home()) in name or os.sep + "tmp" in name for name in told)
    assert list(tmp_path.iterdir()) == [], "nothing stays behind"


def test_what_stands_in_the_way_is_told(tmp_path: Path) -> None:
    gone = Run(tmp_path / "gone")
    with pytest.raises(UserError, match="no run"):
        dashboard_zip([gone], "tensorboard")


def test_both_packages_are_here() -> None:
    assert installed_dashboards() == ["tensorboard", "wandb"]
