"""Runs as files to hand on: one zip that another lsviz imports, or the tables for other programs.

A zip from elsewhere is untrusted. Nothing in it is executed or unpickled, no name in it becomes a path that
is not one of a run folder's own, and every size is bounded, as declared and as read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lsviz.errors import UserError
from lsviz.runs.files import RunFolderError, write_json, writing_whole
from lsviz.runs.inspection import DOCUMENTS, SCHEMAS, table_of
from lsviz.runs.inspector import Inspector
from lsviz.runs.labels import LABELS, Labels
from lsviz.runs.reader import (
    MAX_JSON_BYTES,
    MAX_PICTURE_BYTES,
    Run,
    load_document,
    open_run,
)
from lsviz.runs.schema import (
    BY_STEP,
    ORIGINAL,
    PICTURE,
    SCHEMA_VERSION,
    RunRecord,
    RunStatus,
)
from lsviz.runs.store import RunStore
from lsviz.runs.tables import csv_text

TABLE_FORMATS: Final = ("csv", "parquet")
FORMATS: Final = ("zip", *TABLE_FORMATS, "tensorboard", "wandb")
"""What a run can be exported as; of the last two see `lsviz.runs.outgoing`."""
MAX_FILES: Final = 2_000
MAX_BYTES: Final = 2_000_000_000
"""Of all files of a run together, unpacked."""
MAX_LOG_BYTES: Final = 1_000_000

_LIMITS: Final[dict[str, int]] = {
    **dict.fromkeys(DOCUMENTS, MAX_JSON_BYTES),
    PICTURE: MAX_PICTURE_BYTES,
    ORIGINAL: MAX_PICTURE_BYTES,
    "log.txt": MAX_LOG_BYTES,
    BY_STEP: MAX_BYTES,
}
_RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CHUNK: Final = 1 << 20
_END: Final = struct.Struct("<4sHHHHIIH")
"""The end of a zip, before its comment."""
_MAX_ENTRY: Final = 400
"""Bytes that a zip's list has for one file, with room to spare: the longest name of ours has 26."""
ZIP_ERRORS: Final = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError),
    *(ValueError, LookupError, ArithmeticError, TypeError, RuntimeError),
)
"""What zipfile raises of a file that is no zip as it should be."""


class ExchangeError(UserError):
    """A run can't be exported or imported; the message says why."""


def export_zip(run: Run, file: IO[bytes]) -> None:
    """Write an ended run into a zip: the known files of its folder, nothing else that lies there.

    Raises:
        ExchangeError: It is live.
        RunError: Its JSON files can't be read.
    """
    _ = run.record
    if run.status.live:
        raise ExchangeError(f"{run.run_id} is still running: export it when it has ended")
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(p for p in run.path.iterdir() if _limit(p.name) and p.is_file()):
            if path.is_symlink():
                continue
            packed = path.suffix in (".parquet", ".png")
            info = zipfile.ZipInfo(path.name)  # of no date: the same run gives the same zip
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                if path.name == "log.txt":
                    source.seek(max(0, path.stat().st_size - MAX_LOG_BYTES))
                    target.write(source.read(MAX_LOG_BYTES))
                else:
                    shutil.copyfileobj(source, target, _CHUNK)


def export_tables(run: Run, fmt: str) -> Iterator[tuple[str, bytes]]:
    """Yield each table that has rows as a file: name and content.

    In CSV a list (the 128 counts of a histogram, the layers of an outcome) is JSON in one cell.

    Args:
        run: The run.
        fmt: ``csv`` or ``parquet``.

    Raises:
        ExchangeError: There is no such format.
        RunError: The run can't be read.
    """
    if fmt not in TABLE_FORMATS:
        raise ExchangeError(f"unknown format {fmt!r}; choose one of: {', '.join(FORMATS)}")
    for name in SCHEMAS:
        frame: pd.DataFrame = getattr(run, name)()
        if frame.empty:
            continue
        if fmt == "csv":
            yield f"{name}.csv", csv_text(_flat(frame)).encode()
        else:
            sink = pa.BufferOutputStream()
            table = pa.Table.from_pandas(frame, schema=SCHEMAS[name], preserve_index=False)
            pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
            yield f"{name}.parquet", sink.getvalue().to_pybytes()


def save_zip(run: Run, path: Path) -> None:
    """Write `export_zip` to a file, as a whole or not at all.

    Raises:
        ExchangeError: The run is live.
        RunFolderError: The file can't be written.
    """
    with writing_whole(path) as temporary, temporary.open("wb") as file:
        export_zip(run, file)


def save_tables(run: Run, fmt: str, folder: Path) -> list[Path]:
    """Write `export_tables` into a folder, which is made, and return the files.

    Raises:
        ExchangeError: There is no such format.
        RunFolderError: The folder can't be written.
    """
    written = []
    for name, content in export_tables(run, fmt):
        path = folder / name
        with writing_whole(path) as temporary:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
        written.append(path)
    return written


def import_zip(
    file: IO[bytes], store: RunStore, name: str = "the file", inspector: Inspector | None = None
) -> Run:
    """Unpack an exported run into the store's first root, under a fresh id where its own is taken.

    A pin is left out: which run is the baseline is a choice of the place that it comes from.

    Args:
        file: The zip.
        store: Where it goes, and whose ids are taken.
        name: What errors call the file.
        inspector: Looks through what was unpacked; one for this file alone by default.

    Raises:
        ExchangeError: It is no exported run; nothing of it is kept.
        RunFolderError: The root can't be written.
    """
    with Inspector() if inspector is None else contextlib.nullcontext(inspector) as inspects:
        return _take_in(lambda folder: _unpack(file, folder), store, name, inspects)


def import_folder(source: Path, store: RunStore) -> Run:
    """Copy a run's folder from elsewhere into the store's first root, as `import_zip` does with a zip.

    The known files of it, nothing else that lies there; one that is a link or no plain file is refused.

    Raises:
        ExchangeError: It is no run that has ended; nothing of it is kept.
        RunFolderError: The root can't be written.
    """
    with Inspector() as inspector:
        return _take_in(lambda folder: _copy(source, folder), store, source.name, inspector)


def _take_in(fill: Callable[[Path], None], store: RunStore, name: str, inspector: Inspector) -> Run:
    """Fill a hidden folder, look through it, and give it its place: whole or not at all."""
    root = store.roots[0]
    hidden = root / f".import-{secrets.token_hex(8)}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        hidden.mkdir()
        try:
            fill(hidden)
            inspector.inspect(hidden)
            return open_run(_settle(hidden, store))
        finally:
            if hidden.exists():
                shutil.rmtree(hidden, ignore_errors=True)
    except RunFolderError:
        raise
    except UserError as error:
        reason = str(error).removeprefix(f"{hidden.name}: ")
        raise ExchangeError(f"{name!r} is no exported run: {reason}") from None
    except (*ZIP_ERRORS, MemoryError) as error:
        raise ExchangeError(f"{name!r} is no exported run: it is no whole zip ({_line(error)})") from None
    except OSError as error:
        raise RunFolderError(f"can't import into {str(root)!r} ({error.strerror or error})") from None


def check_directory(file: IO[bytes], most: int) -> None:
    """Look at the end of a zip before Python lists what it holds, which may be millions of names.

    Raises:
        ExchangeError: It is no zip, or lists more than so many files.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise ExchangeError("it is no zip")
    _, _, _, _, number, length, start, comment = _END.unpack_from(tail, at)
    end = size - len(tail) + at
    if at + _END.size + comment != len(tail) or tail[max(0, at - 20) :].startswith(b"PK\x06\x07"):
        raise ExchangeError("it is no zip of the usual kind")
    if number > most:
        raise ExchangeError(f"it holds {number:,} files, more than {most:,}")
    if length > most * _MAX_ENTRY or start + length > end:
        raise ExchangeError("its list of files is longer than it says")
    file.seek(0)


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _limit(name: str) -> int:
    """The most bytes that a file of that name may have; 0 where a run folder has no such file."""
    return _LIMITS.get(name) or (MAX_BYTES if table_of(name) else 0)


def _copy(source: Path, folder: Path) -> None:
    if not source.is_dir():
        raise ExchangeError("it is no folder")
    names = [path.name for path in sorted(source.iterdir()) if _limit(path.name)]
    if len(names) > MAX_FILES:
        raise ExchangeError(f"it holds {len(names):,} files, more than {MAX_FILES:,}")
    left = MAX_BYTES
    for name in names:
        try:
            # A link is not followed, and a pipe that nobody writes to is not waited for.
            handle = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ExchangeError(f"{name!r} is a link or no plain file") from None
            raise ExchangeError(f"{name!r} can't be read ({error.strerror})") from None
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            os.close(handle)
            raise ExchangeError(f"{name!r} is a folder")
        with os.fdopen(handle, "rb") as opened, (folder / name).open("xb") as target:
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise ExchangeError(f"{name!r} is a link or no plain file")
            if name == "log.txt":
                opened.seek(max(0, found.st_size - MAX_LOG_BYTES))
            left -= _transfer(opened, target, name, min(_limit(name), left))
    _check_needed(names)


def _transfer(source: IO[bytes], target: IO[bytes], name: str, most: int) -> int:
    """Copy a file of at most so many bytes and return how many they are."""
    taken = 0
    while chunk := source.read(_CHUNK):
        taken += len(chunk)
        if taken > most:
            raise ExchangeError(f"{name!r} is larger than it says, or than it may be: {most:,} bytes")
        target.write(chunk)
    return taken


def _unpack(file: IO[bytes], folder: Path) -> None:
    check_directory(file, MAX_FILES)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_entries(entries)
        left = MAX_BYTES
        for entry in entries:
            most = min(_limit(entry.filename), entry.file_size, left)
            with archive.open(entry) as source, (folder / entry.filename).open("xb") as target:
                left -= _transfer(source, target, entry.filename, most)


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    names = [entry.orig_filename for entry in entries]
    if len(entries) > MAX_FILES:
        raise ExchangeError(f"it holds {len(entries):,} files, more than {MAX_FILES:,}")
    for entry, name in zip(entries, names, strict=True):
        if not _limit(name) or name != entry.filename:
            raise ExchangeError(f"{name[:80]!r} is no file of a run folder")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ExchangeError(f"{name!r} is a link or no plain file")
        if entry.flag_bits & 1:
            raise ExchangeError(f"{name!r} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ExchangeError(f"{name!r} is compressed in an unknown way")
        if entry.file_size > _limit(name):
            raise ExchangeError(f"{name!r} has {entry.file_size:,} bytes, more than {_limit(name):,}")
        if names.count(name) > 1:
            raise ExchangeError(f"{name!r} stands in it twice")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        raise ExchangeError(f"its files have {total:,} bytes together, more than {MAX_BYTES:,}")
    _check_needed(names)


def _check_needed(names: list[str]) -> None:
    for needed in ("run.json", "status.json"):
        if needed not in names:
            raise ExchangeError(f"{needed} is missing")


def _settle(hidden: Path, store: RunStore) -> Path:
    """Check the run as a whole and rename it into its place."""
    record = load_document(hidden / "run.json", RunRecord)
    if record.schema_version > SCHEMA_VERSION:
        raise ExchangeError(f"it was written by a newer lsviz (schema {record.schema_version})")
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        raise ExchangeError(
            f"created is no time such as 2026-01-31T12:00:00: {record.created[:40]!r}"
        ) from None
    if load_document(hidden / "status.json", RunStatus).live:
        raise ExchangeError("it had not ended when it was exported")
    labels = hidden / LABELS
    if labels.exists():
        kept = load_document(labels, Labels).model_copy(update={"pinned": False})
        write_json(labels, kept.model_dump())
    taken = {folder.name for folder in store.folders()}
    run_id = record.run_id
    if not _RUN_ID.fullmatch(run_id) or run_id in taken or (store.roots[0] / run_id).exists():
        run_id = f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        write_json(hidden / "run.json", record.model_copy(update={"run_id": run_id}).model_dump())
    return hidden.rename(store.roots[0] / run_id)


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Lists as JSON, so that a cell holds one text."""
    flat = frame.copy(deep=False)
    for name, kind in frame.dtypes.items():
        if pd.api.types.is_object_dtype(kind):
            flat[name] = [_cell(value) for value in frame[name]]
    return flat


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    plain = value.tolist() if hasattr(value, "tolist") else value
    return json.dumps(plain)
