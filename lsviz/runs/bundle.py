"""Several exported runs as one zip: the zip of each, side by side. And taking in either kind."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Sequence
from typing import IO, Final

from lsviz.errors import UserError
from lsviz.runs.exchange import (
    MAX_BYTES,
    MAX_FILES,
    ZIP_ERRORS,
    ExchangeError,
    check_directory,
    export_zip,
    import_zip,
)
from lsviz.runs.files import RunFolderError
from lsviz.runs.inspector import Inspector
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore

MAX_RUNS: Final = 100
_CHUNK: Final = 1 << 20


def export_bundle(runs: Sequence[Run], file: IO[bytes]) -> None:
    """Write ended runs into one zip.

    Raises:
        ExchangeError: One is live, or they are too many.
        RunError: A run's JSON files can't be read.
    """
    if len(runs) > MAX_RUNS:
        raise ExchangeError(f"one zip takes up to {MAX_RUNS} runs, got {len(runs):,}")
    with zipfile.ZipFile(file, "w") as archive:
        for run in runs:
            info = zipfile.ZipInfo(f"{run.run_id}.zip")  # of no date: the same runs give the same zip
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with tempfile.TemporaryFile() as one:
                export_zip(run, one)
                one.seek(0)
                with archive.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(one, target, _CHUNK)


def import_bundle(file: IO[bytes], store: RunStore, name: str = "the file") -> tuple[list[Run], list[str]]:
    """Take in what `export_bundle` or `lsviz.runs.exchange.export_zip` wrote.

    Args:
        file: The zip.
        store: Where runs go, and whose ids are taken.
        name: What errors call the file.

    Returns:
        The runs, and a line for each that could not be taken in.

    Raises:
        ExchangeError: It holds neither a run nor zips of runs.
        RunFolderError: The root can't be written.
    """
    entries = _zips_in(file, name)
    if not entries:
        file.seek(0)
        return [import_zip(file, store, name)], []
    with Inspector() as inspector:
        return _take_all(file, entries, store, name, inspector)


def _take_all(
    file: IO[bytes], entries: list[zipfile.ZipInfo], store: RunStore, name: str, inspector: Inspector
) -> tuple[list[Run], list[str]]:
    came: list[Run] = []
    wrong: list[str] = []
    left = MAX_BYTES
    for entry in entries:
        part = f"{name}: {entry.filename[:80]}"
        try:
            with tempfile.TemporaryFile() as one:
                _copy(file, entry, one, part)
                left -= sum(inner.file_size for inner in _listed(one))
                if left < 0:
                    raise ExchangeError(
                        f"{name!r}: its runs have more than {MAX_BYTES:,} bytes together; import them apart"
                    )
                came.append(import_zip(one, store, part, inspector))
        except RunFolderError:
            raise
        except UserError as error:
            wrong.append(str(error))
        except OSError as error:
            raise RunFolderError(f"can't unpack {part!r} ({error.strerror or error})") from None
    return came, wrong


def _zips_in(file: IO[bytes], name: str) -> list[zipfile.ZipInfo]:
    """Return the zips that a zip consists of; none where it is no bundle."""
    entries = _listed(file)
    if not entries or not all(entry.orig_filename.endswith(".zip") for entry in entries):
        return []
    if len(entries) > MAX_RUNS:
        raise ExchangeError(f"{name!r} holds {len(entries):,} runs, more than {MAX_RUNS}")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        raise ExchangeError(f"{name!r} holds runs of {total:,} bytes, more than {MAX_BYTES:,}")
    return entries


def _listed(file: IO[bytes]) -> list[zipfile.ZipInfo]:
    """Return what a zip lists; nothing where it is none, since importing it tells what is wrong."""
    try:
        check_directory(file, MAX_FILES)
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except (*ZIP_ERRORS, OSError, ExchangeError):
        return []


def _copy(file: IO[bytes], entry: zipfile.ZipInfo, target: IO[bytes], part: str) -> None:
    """Unpack one zip of a bundle, never more of it than it says.

    Raises:
        ExchangeError: It can't be read.
    """
    taken = 0
    try:
        with zipfile.ZipFile(file) as archive, archive.open(entry) as source:
            while chunk := source.read(_CHUNK):
                taken += len(chunk)
                if taken > entry.file_size:
                    raise ExchangeError(f"{part!r} is larger than it says")
                target.write(chunk)
    except ExchangeError:
        raise
    except ZIP_ERRORS as error:
        raise ExchangeError(f"{part!r} is no exported run: it can't be unpacked ({error})") from None
    target.seek(0)
