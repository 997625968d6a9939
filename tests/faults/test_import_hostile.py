"""What somebody means to do harm with is refused in one line, and nothing of it stays."""

from __future__ import annotations

import ast
import io
import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lsviz
from lsviz.runs.bundle import import_bundle
from lsviz.runs.exchange import ExchangeError, export_zip, import_folder, import_zip
from lsviz.runs.inspector import Inspector
from lsviz.runs.reader import Run
from lsviz.runs.schema import EXPONENTS_SCHEMA, STEPS_SCHEMA
from lsviz.runs.series import OUTCOMES_SCHEMA
from lsviz.runs.store import RunStore
from tests.commands import forked
from tests.conftest import SAMPLES
from tests.faults.rows import read_tables, write_run

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("hostile"), 4, each=2)


@pytest.fixture
def files(run: Run) -> Files:
    return {path.name: path.read_bytes() for path in run.path.iterdir()}


def packed(files: Files) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return bytearray(file.getvalue())


inspector = Inspector()
"""One process for all these tests."""


@pytest.fixture(scope="module", autouse=True)
def inspecting() -> Iterator[None]:
    with inspector:
        yield


def refused(data: bytes | bytearray, root: Path) -> str:
    """Import, see that nothing stays, that it took little memory, and return what is told."""
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    with pytest.raises(ExchangeError) as told:
        import_zip(io.BytesIO(bytes(data)), RunStore.at(root), "x.zip", inspector)
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()
    assert pa.total_allocated_bytes() - before < 10_000_000
    assert list(root.iterdir()) == []
    assert sorted(path.name for path in root.parent.iterdir()) == [root.name]
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    "name",
    [
        *("../../run.json", "/run.json", "..", ".", "run.json/", "./run.json", "a/../run.json", "C:run.json"),
        *(
            "RUN.JSON",
            "Run.json",
            "run.json ",
            "run.json.",
            "r\u0443n.json",
            "run\u200b.json",
            "log.txt\u202e",
        ),
        *("steps-00000\u0661.parquet", "steps-000001.Parquet", "\uff53teps.parquet", "~/run.json", "nul"),
        *(".writer.lock", "pause", ".run.json.1.tmp", "by_step.parquet.tmp", "x" * 60_000),
    ],
)
def test_names_that_are_no_run_files_are_refused(name: str, files: Files, tmp_path: Path) -> None:
    files[name] = b"x"
    assert "is no file of a run folder" in refused(packed(files), tmp_path / "there")


def test_a_name_with_a_null_in_it_is_refused(files: Files, tmp_path: Path) -> None:
    data = packed({**files, "log.txt_x": b""})
    assert "is no file of a run folder" in refused(
        data.replace(b"log.txt_x", b"log.txt\0x"), tmp_path / "there"
    )


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR]
)
def test_links_pipes_and_devices_are_refused(kind: int, files: Files, tmp_path: Path) -> None:
    file = io.BytesIO(bytes(packed(files)))
    with zipfile.ZipFile(file, "a") as archive:
        info = zipfile.ZipInfo("log.txt")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert "'log.txt' is a link or no plain file" in refused(file.getvalue(), tmp_path / "there")


def test_a_list_of_a_million_names_is_not_read(files: Files, tmp_path: Path) -> None:
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[20] * 2, *[0] * 4, *[0] * 3, 1, *[0] * 4, 0, 0) + b"a"
    listed = entry * 1_000_000
    for number in (65_535, 3):
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number, number, len(listed), 0, 0)
        told = refused(listed + end, tmp_path / "there")
        assert "65,535 files" in told or "longer than it says" in told


def test_a_bomb_is_stopped_at_what_it_says_and_at_what_may_be(files: Files, tmp_path: Path) -> None:
    bomb = packed({**files, "log.txt": b"\0" * 500_000_000})
    assert "has 500,000,000 bytes" in refused(bomb, tmp_path / "there")
    for sign, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # and where it lies about it
        name = bomb.rindex(b"log.txt") if at == 24 else bomb.index(b"log.txt")
        header = bomb.rindex(sign, 0, name)
        bomb[header + at : header + at + 4] = struct.pack("<I", 1000)
    assert "is no exported run" in refused(bomb, tmp_path / "there")


def test_zips_within_zips_within_zips_are_refused(files: Files, tmp_path: Path) -> None:
    data = packed(files)
    for _ in range(3):
        data = packed({"a.zip": bytes(data)})
    root = tmp_path / "there"
    came, wrong = import_bundle(io.BytesIO(bytes(data)), RunStore.at(root))
    assert not came
    assert "'a.zip' is no file of a run folder" in wrong[0]
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("depth", [150, 5_000, 400_000])
@pytest.mark.parametrize("name", ["run.json", "status.json", "labels.json"])
def test_json_nested_deep_is_refused(name: str, depth: int, files: Files, tmp_path: Path) -> None:
    files[name] = b'{"extra": ' + b"[" * depth + b"]" * depth + b"}"
    told = refused(packed(files), tmp_path / "there")
    assert f"{name} is no JSON" in told or f"{name} is broken" in told


@pytest.mark.parametrize(
    ("text", "reason"), [("1" + "0" * 9999, "is no JSON"), ("1e999", "holds 1e999"), ("NaN", "NaN")]
)
def test_json_numbers_that_are_none_are_refused(text: str, reason: str, files: Files, tmp_path: Path) -> None:
    files["run.json"] = files["run.json"].replace(b"{", b'{"extra": ' + text.encode() + b",", 1)
    assert reason in refused(packed(files), tmp_path / "there")


def written(table: pa.Table, **settings: object) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made, **{"compression": "zstd", **settings})
    return made.getvalue()


def of_zeros(schema: pa.Schema, rows: int) -> pa.Table:
    """Rows that weigh next to nothing in a file, whatever their number."""
    columns = []
    for field in schema:
        if pa.types.is_fixed_size_list(field.type):
            zeros = pa.array(np.zeros(rows * field.type.list_size, np.uint32))
            columns.append(pa.FixedSizeListArray.from_arrays(zeros, type=field.type))
        elif pa.types.is_list(field.type):
            columns.append(pa.nulls(rows, field.type))
        else:
            word = pa.scalar("activation_grad" if pa.types.is_string(field.type) else 0).cast(field.type)
            columns.append(pa.repeat(word, rows))
    return pa.Table.from_arrays(columns, schema=schema)


def test_rows_that_would_fill_the_memory_are_refused(files: Files, tmp_path: Path) -> None:
    files["steps.parquet"] = written(of_zeros(STEPS_SCHEMA, 8_000_000))
    assert len(files["steps.parquet"]) < 400_000
    assert "steps.parquet unfolds from" in refused(packed(files), tmp_path / "there")


def test_histograms_that_would_fill_the_memory_are_refused(files: Files, tmp_path: Path) -> None:
    content = written(of_zeros(EXPONENTS_SCHEMA, 300_000))
    assert len(content) < 150_000
    assert "exponents.parquet unfolds from" in refused(
        packed({**files, "exponents.parquet": content}), tmp_path / "there"
    )


def test_a_list_of_millions_in_one_row_is_refused(files: Files, tmp_path: Path) -> None:
    layer = {"layer": "a", "scale": 0.0, "finite": None}
    row = dict.fromkeys(OUTCOMES_SCHEMA.names) | {"step": 0, "loss_scale": 1.0, "layers": [layer] * 200_000}
    files["outcomes.parquet"] = written(pa.Table.from_pylist([row], schema=OUTCOMES_SCHEMA))
    assert "values of layers in 1 rows, more than 10,000" in refused(packed(files), tmp_path / "there")


def test_a_name_of_megabytes_is_refused(files: Files, tmp_path: Path) -> None:
    table = pq.read_table(io.BytesIO(files["exponents.parquet"]))
    table = table.replace_schema_metadata(None)
    long = table.set_column(1, "tensor", pa.array(["x" * 500_000] * len(table)))
    files["exponents.parquet"] = written(long)
    assert "tensor has a name of 500,000 bytes" in refused(packed(files), tmp_path / "there")
    files["exponents.parquet"] = written(
        table.set_column(1, "tensor", pa.array(["x" * 3_000_000] * len(table)))
    )
    assert "bytes unpacked, more than" in refused(packed(files), tmp_path / "there")


def test_a_page_that_says_more_values_than_its_column_is_refused(files: Files, tmp_path: Path) -> None:
    content = bytearray(written(of_zeros(STEPS_SCHEMA, 100), use_dictionary=False, store_schema=False))
    at = content.index(b"\x15\xc8\x01")  # the number of values, 100, in the first page's header
    content[at : at + 3] = b"\x15\xfe\x7f"
    files["steps.parquet"] = bytes(content)
    assert "its pages hold" in refused(packed(files), tmp_path / "there")


@pytest.mark.parametrize(
    "settings",
    [
        {"compression": "gzip"},
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "column_encoding": {"step": "DELTA_BINARY_PACKED"}},
    ],
)
def test_tables_written_in_other_ways_than_ours_are_refused(
    settings: dict[str, object], files: Files, tmp_path: Path
) -> None:
    files["steps.parquet"] = written(of_zeros(STEPS_SCHEMA, 9), **settings)
    assert "steps.parquet is no table of a run" in refused(packed(files), tmp_path / "there")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" * 5, b"\x80\x04\x95pickle", b"PAR1\xff\xff\xff\x7fPAR1", b"GIF89a" * 9]
)
def test_what_is_no_parquet_is_refused(content: bytes, files: Files, tmp_path: Path) -> None:
    files["amax.parquet"] = content
    assert "amax.parquet is no table of a run" in refused(packed(files), tmp_path / "there")


def test_the_shipped_runs_are_all_let_in(tmp_path: Path) -> None:
    for sample in RunStore.at(SAMPLES).list_runs()[::6]:
        file = io.BytesIO()
        export_zip(sample, file)
        came = import_zip(file, RunStore.at(tmp_path), inspector=inspector)
        assert all(frame.equals(getattr(sample, name)()) for name, frame in read_tables(came).items())


def test_a_folder_is_taken_in_as_a_zip_is(run: Run, runs_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "from"
    shutil.copytree(run.path, folder)
    (folder / "secret.key").write_text("no part of a run")
    came = import_folder(folder, RunStore.at(runs_root))
    assert came.run_id == run.run_id
    assert not (came.path / "secret.key").exists()
    assert all(frame.equals(getattr(run, name)()) for name, frame in read_tables(came).items())
    done = forked("import", str(folder), cwd=tmp_path, torch=False, LSVIZ_RUNS=str(runs_root))
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "run.json").unlink()
    done = forked("import", str(folder), cwd=tmp_path, torch=False, LSVIZ_RUNS=str(runs_root))
    assert done.returncode == 2
    assert done.stderr.endswith("'from' is no exported run: run.json is missing\n")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "device", "large"])
def test_a_folder_of_links_and_pipes_is_refused(kind: str, run: Run, tmp_path: Path) -> None:
    folder, root = tmp_path / "from", tmp_path / "there"
    shutil.copytree(run.path, folder)
    log, target = folder / "labels.json", tmp_path / "target"
    target.write_text("{}")
    match kind:
        case "link":
            log.symlink_to(target)
        case "hard link":
            log.hardlink_to(target)
        case "pipe":
            os.mkfifo(log)
        case "folder":
            log.mkdir()
        case "large":
            log.write_bytes(b" " * 1_000_001)
        case _ if os.geteuid():
            pytest.skip("only root makes devices")
        case _:
            os.mknod(log, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with pytest.raises(ExchangeError) as told:
        import_folder(folder, RunStore.at(root))
    assert "labels.json' is " in str(told.value)
    assert list(root.iterdir()) == []


def test_a_pipe_in_a_run_folder_holds_nobody_up(run: Run, tmp_path: Path) -> None:
    for name in ("steps.parquet", "status.json", "log.txt", "picture.png"):
        folder = tmp_path / name
        shutil.copytree(run.path, folder)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    assert Run(tmp_path / "steps.parquet").steps().empty
    assert [run.run_id for run in RunStore.at(tmp_path).list_runs()]
    with pytest.raises(ValueError, match="no plain file"):
        _ = Run(tmp_path / "status.json").status
    assert Run(tmp_path / "log.txt").log_tail() == ""
    assert Run(tmp_path / "picture.png").picture() is None


@pytest.mark.parametrize(
    "asked",
    [
        "../x",
        "..",
        ".",
        "",
        "/",
        "/etc/passwd",
        "x\0y",
        "x" * 100_000,
        "~",
        "a/../b",
        "\u2025/x",
        "\ud800",
        "%2e%2e",
    ],
)
def test_hostile_ids_find_nothing(asked: str, tmp_path: Path) -> None:
    outside = write_run(tmp_path / "x", 1)
    shutil.move(outside.path, tmp_path / "runs" / "good")
    with pytest.raises(ValueError, match="no run"):
        RunStore.at(tmp_path / "runs").find(asked)


def test_nothing_in_lsviz_unpickles_or_unpacks() -> None:
    banned = {
        "pickle",
        "cPickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
        "tarfile",
        "jsonpickle",
    }
    calls = {"eval", "exec", "unpack_archive", "read_pickle", "load_model", "extractall", "extract"}
    files = sorted(Path(lsviz.__file__).parent.rglob("*.py"))
    assert len(files) > 100
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not banned & {name.name.split(".")[0] for name in node.names}, file
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in banned, file
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("torch.load", "np.load", "numpy.load", "torch.hub.load"), (file, name)
                last = name.rpartition(".")[2]
                assert last not in calls or (last == "eval" and "." in name), (file, name)
                if name.endswith("allow_pickle"):
                    raise AssertionError(file)
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", file
