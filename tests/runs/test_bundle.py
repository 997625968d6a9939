"""Several runs in one zip: they come back as they were, and what is wrong is told of each alone."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from lsviz.runs import bundle
from lsviz.runs.bundle import export_bundle, import_bundle
from lsviz.runs.exchange import ExchangeError
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run
from tests.runs.test_exchange import ended, files_of, packed, zipped
from tests.runs.test_folder import CONFIG


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [ended(tmp_path / "here") for _ in range(2)]


def bundled(runs: list[Run]) -> io.BytesIO:
    file = io.BytesIO()
    export_bundle(runs, file)
    return file


def test_runs_come_back_as_they_were(runs: list[Run], tmp_path: Path) -> None:
    file = bundled(runs)
    assert files_of(file.getvalue()) == {f"{run.run_id}.zip": zipped(run) for run in runs}
    came, wrong = import_bundle(file, RunStore.at(tmp_path / "there"))
    assert not wrong
    assert [run.record for run in came] == [run.record for run in runs]
    for run, before in zip(came, runs, strict=True):
        pd.testing.assert_frame_equal(run.exponents(), before.exponents())
    assert {path.name for path in (tmp_path / "there").iterdir()} == {run.run_id for run in runs}


def test_the_zip_of_one_run_is_taken_too(runs: list[Run], tmp_path: Path) -> None:
    came, wrong = import_bundle(io.BytesIO(zipped(runs[0])), RunStore.at(tmp_path / "there"))
    assert ([run.run_id for run in came], wrong) == ([runs[0].run_id], [])


def test_a_broken_zip_among_them_is_told_and_the_others_come(runs: list[Run], tmp_path: Path) -> None:
    files = files_of(bundled(runs).getvalue())
    files[f"{runs[0].run_id}.zip"] = b"no"
    files["nested.zip"] = bundled(runs).getvalue()
    came, wrong = import_bundle(packed(files), RunStore.at(tmp_path / "there"), "x.zip")
    assert [run.run_id for run in came] == [runs[1].run_id]
    assert wrong[0].startswith(f"'x.zip: {runs[0].run_id}.zip' is no exported run")
    assert "is no file of a run folder" in wrong[1]
    assert len(list((tmp_path / "there").iterdir())) == 1


def test_a_spoilt_bundle_is_told(runs: list[Run], tmp_path: Path) -> None:
    data = bytearray(bundled(runs).getvalue())
    data[len(data) // 4] ^= 255
    came, wrong = import_bundle(io.BytesIO(bytes(data)), RunStore.at(tmp_path / "there"))
    assert [run.run_id for run in came] == [runs[1].run_id]
    assert "is no exported run: it can't be unpacked" in wrong[0]
    with pytest.raises(ExchangeError, match="is no exported run"):
        import_bundle(io.BytesIO(b"no zip"), RunStore.at(tmp_path / "there"))
    with pytest.raises(ExchangeError, match="is no exported run"):
        import_bundle(packed({"a.zip": b"", "evil": b""}), RunStore.at(tmp_path / "there"))


def test_numbers_and_sizes_are_bounded(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in runs:
        (run.path / "log.txt").write_text("said\n" * 40_000)  # much larger unpacked than packed
    file, store = bundled(runs), RunStore.at(tmp_path / "there")
    monkeypatch.setattr(bundle, "MAX_BYTES", 300_000)
    came, wrong = import_bundle(file, store)
    assert (len(came), len(wrong)) == (1, 1)
    assert "bytes together; import them apart" in wrong[0]
    monkeypatch.setattr(bundle, "MAX_BYTES", 10)
    with pytest.raises(ExchangeError, match="more than 10"):
        import_bundle(file, store)
    monkeypatch.setattr(bundle, "MAX_RUNS", 1)
    with pytest.raises(ExchangeError, match="holds 2 runs, more than 1"):
        import_bundle(file, store)
    with pytest.raises(ExchangeError, match="up to 1 runs, got 2"):
        export_bundle(runs, io.BytesIO())


def test_a_live_run_is_not_exported(runs: list[Run], tmp_path: Path) -> None:
    live = open_run(create_run(tmp_path / "live", CONFIG))
    with pytest.raises(ExchangeError, match="still running"):
        export_bundle([*runs, live], io.BytesIO())


def test_a_name_with_a_folder_in_it_leads_nowhere(runs: list[Run], tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil.zip", zipped(runs[0]))
    came, _ = import_bundle(file, RunStore.at(tmp_path / "there"))
    assert came[0].path == tmp_path / "there" / runs[0].run_id
    assert {path.name for path in tmp_path.iterdir()} == {"here", "there"}
