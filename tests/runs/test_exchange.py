from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lsviz.runs import exchange, inspection
from lsviz.runs.exchange import ExchangeError, export_tables, export_zip, import_zip
from lsviz.runs.labelling import set_labels
from lsviz.runs.labels import Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run
from tests.runs.test_folder import CONFIG, write

Change = Callable[[dict[str, bytes]], None]


def ended(root: Path) -> Run:
    writer = write(root)
    writer.end("finished")
    return open_run(writer.path)


def zipped(run: Run) -> bytes:
    file = io.BytesIO()
    export_zip(run, file)
    return file.getvalue()


def files_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: dict[str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = ended(tmp_path / "here")
    set_labels(run, Labels.build(name="one", tags=["a"], pinned=True))
    (run.path / "secret.key").write_text("no part of a run")
    (run.path / "log.txt").write_text("said")
    data = zipped(run)
    assert "secret.key" not in files_of(data)
    there = RunStore.at(tmp_path / "there")
    came = import_zip(io.BytesIO(data), there)
    assert came.run_id == run.run_id == came.record.run_id
    assert came.labels == Labels.build(name="one", tags=["a"])  # a pin is the place's own
    assert (came.record, came.status, came.log_tail()) == (run.record, run.status, "said")
    pd.testing.assert_frame_equal(came.steps(), run.steps())
    pd.testing.assert_frame_equal(came.exponents(), run.exponents())
    assert [path.name for path in (tmp_path / "there").iterdir()] == [run.run_id]
    assert zipped(run) == data


def test_a_taken_id_is_replaced_by_a_fresh_one(tmp_path: Path) -> None:
    run = ended(tmp_path / "samples")
    store = RunStore.at(tmp_path / "runs", tmp_path / "samples")
    came = [import_zip(io.BytesIO(zipped(run)), store) for _ in range(2)]
    assert len({run.run_id, *(r.run_id for r in came)}) == 3
    assert all(r.record.run_id == r.run_id and r.path.parent == tmp_path / "runs" for r in came)


def test_a_live_run_is_not_exported(tmp_path: Path) -> None:
    run = open_run(create_run(tmp_path, CONFIG))
    with pytest.raises(ExchangeError, match="still running"):
        export_zip(run, io.BytesIO())


def document(name: str, **changes: object) -> Change:
    def change(files: dict[str, bytes]) -> None:
        files[name] = json.dumps({**json.loads(files[name]), **changes}).encode()

    return change


def put(name: str, content: bytes) -> Change:
    return lambda files: files.update({name: content})


def without(name: str) -> Change:
    return lambda files: files.pop(name) and None


def table(**columns: list[object]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("../evil", b""), "'../evil' is no file of a run folder"),
        (put("/etc/passwd", b""), "'/etc/passwd' is no file"),
        (put("inner/run.json", b""), "'inner/run.json' is no file"),
        (put("inner/", b""), "'inner/' is no file"),
        (put("C:\\run.json", b""), "is no file of a run folder"),
        (put("model.pt", b""), "'model.pt' is no file"),
        (put("steps-1.parquet", b""), "'steps-1.parquet' is no file"),
        (without("run.json"), "run.json is missing"),
        (without("status.json"), "status.json is missing"),
        (put("run.json", b"{"), "run.json is no JSON"),
        (put("run.json", b"[" * 50_000), "run.json is no JSON"),
        (put("run.json", b'{"run_id": NaN}'), "run.json holds NaN"),
        (put("run.json", b"{}"), "run.json is broken"),
        (document("run.json", schema_version=99), "newer lsviz"),
        (document("run.json", created="yesterday"), "created is no time"),
        (document("status.json", state="running"), "had not ended"),
        (document("status.json", state="odd"), "status.json is broken"),
        (put("labels.json", b'{"name": 1}'), "labels.json is broken"),
        (put("labels.json", b"x" * 1_000_001), "has 1,000,001 bytes, more than 1,000,000"),
        (put("steps.parquet", b"PAR1"), "steps.parquet is no table"),
        (put("steps.parquet", table(step=[1])), "steps.parquet has other columns"),
        (put("picture.png", b"GIF89a"), "picture.png is no PNG"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_stays(change: Change, reason: str, tmp_path: Path) -> None:
    files = files_of(zipped(ended(tmp_path / "here")))
    change(files)
    root = tmp_path / "there"
    with pytest.raises(ExchangeError) as told:
        import_zip(packed(files), RunStore.at(root), "x.zip")
    assert str(told.value).startswith("'x.zip' is no exported run: ")
    assert reason in str(told.value)
    assert "\n" not in str(told.value)
    assert ".import-" not in str(told.value)
    assert list(root.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "there"]


def refused(file: io.BytesIO, root: Path) -> str:
    with pytest.raises(ExchangeError) as told:
        import_zip(file, RunStore.at(root))
    assert list(root.iterdir()) == []
    return str(told.value)


def test_columns_of_another_type_are_refused(tmp_path: Path) -> None:
    run = ended(tmp_path / "here")
    files = files_of(zipped(run))
    steps = pq.read_table(io.BytesIO(files["steps.parquet"]))
    words = steps.set_column(0, "step", pa.array([["a"]] * len(steps)))
    sink = pa.BufferOutputStream()
    pq.write_table(words, sink)
    files["steps.parquet"] = sink.getvalue().to_pybytes()
    assert "steps.parquet is no table of a run" in refused(packed(files), tmp_path / "there")


def test_a_link_is_refused(tmp_path: Path) -> None:
    file = packed(files_of(zipped(ended(tmp_path / "here"))))
    with zipfile.ZipFile(file, "a") as archive:
        info = zipfile.ZipInfo("log.txt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert "'log.txt' is a link" in refused(file, tmp_path / "there")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = packed(files_of(zipped(ended(tmp_path / "here"))))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("run.json", "{}")
    assert "'run.json' stands in it twice" in refused(file, tmp_path / "there")


def test_sizes_and_numbers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped(ended(tmp_path / "here"))
    monkeypatch.setattr(exchange, "MAX_FILES", 3)
    assert "more than 3" in refused(io.BytesIO(data), tmp_path / "there")
    monkeypatch.setattr(exchange, "MAX_FILES", 2_000)
    total = sum(len(content) for content in files_of(data).values())
    monkeypatch.setattr(exchange, "MAX_BYTES", total - 1)
    assert f"its files have {total:,} bytes together" in refused(io.BytesIO(data), tmp_path / "there")
    monkeypatch.setattr(exchange, "MAX_BYTES", 2_000_000_000)
    monkeypatch.setattr(inspection, "MAX_ROWS", 5)
    with pytest.raises(inspection.InspectionError, match="rows, more than 5"):
        inspection.inspect_folder(next((tmp_path / "here").iterdir()))


def test_a_size_that_lies_is_noticed(tmp_path: Path) -> None:
    files = files_of(zipped(ended(tmp_path / "here")))
    files["log.txt"] = b"x" * 900_000
    data = bytearray(packed(files).getvalue())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the size, where a header tells it
        start = data.index(b"log.txt") if mark == b"PK\x03\x04" else data.rindex(b"log.txt")
        header = data.rindex(mark, 0, start)
        data[header + at : header + at + 4] = (10).to_bytes(4, "little")
    assert "is no exported run" in refused(io.BytesIO(bytes(data)), tmp_path / "there")


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_zip_is_told(data: bytes, tmp_path: Path) -> None:
    assert "is no exported run" in refused(io.BytesIO(data), tmp_path / "there")


def test_half_a_zip_is_told(tmp_path: Path) -> None:
    data = zipped(ended(tmp_path / "here"))
    assert "is no exported run" in refused(io.BytesIO(data[: len(data) // 2]), tmp_path / "there")
    broken = data.replace(b'"finished"', b'"failed"  ', 1)
    if broken != data:
        refused(io.BytesIO(broken), tmp_path / "there")
    spoilt = bytearray(data)
    spoilt[len(data) // 3] ^= 255
    assert "is no exported run" in refused(io.BytesIO(bytes(spoilt)), tmp_path / "there")


def test_a_stream_that_is_none_is_told(tmp_path: Path) -> None:
    data = bytearray(packed(files_of(zipped(ended(tmp_path / "here")))).getvalue())
    at = data.index(b"run.json")
    data[at + len("run.json")] |= 0b110  # a kind of block that deflate does not have
    assert "it is no whole zip" in refused(io.BytesIO(bytes(data)), tmp_path / "there")


def test_tables_open_elsewhere(tmp_path: Path) -> None:
    run = ended(tmp_path)
    csv = dict(export_tables(run, "csv"))
    assert list(csv) == ["steps.csv", "exponents.csv"]  # the empty ones are left out
    steps = pd.read_csv(io.BytesIO(csv["steps.csv"]))
    assert steps["loss_scale"].tolist() == run.steps()["loss_scale"].tolist()
    counts = pd.read_csv(io.BytesIO(csv["exponents.csv"]))["counts"].map(json.loads)
    assert counts.tolist() == [c.tolist() for c in run.exponents()["counts"]]
    parquet = dict(export_tables(run, "parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(parquet["steps.parquet"])), run.steps())
    assert len(pd.read_parquet(io.BytesIO(parquet["exponents.parquet"]))) == len(run.exponents())
    with pytest.raises(ExchangeError, match="choose one of: zip, csv, parquet"):
        list(export_tables(run, "pickle"))
