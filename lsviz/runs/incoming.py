"""Taking in whatever a person has of a training: exported runs, run folders, and logs of other programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from lsviz.errors import UserError
from lsviz.runs.amplogs import read_json_log
from lsviz.runs.bundle import import_bundle
from lsviz.runs.eventfiles import MissingPackageError
from lsviz.runs.eventlogs import read_event_log
from lsviz.runs.eventrecords import event_folders, is_event_file
from lsviz.runs.exchange import ExchangeError, import_folder
from lsviz.runs.files import RunFolderError
from lsviz.runs.foreignrun import Gradients, write_run
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore

_HEAD: Final = 4096
_KNOWN: Final = "neither a zip of lsviz export nor a TensorBoard event file nor a JSON log"


def import_file(
    file: IO[bytes], store: RunStore, name: str = "the file", gradients: Gradients = "unscaled"
) -> tuple[list[Run], list[str]]:
    """Take in a file, whichever of those that are known it is; what it holds tells, not its name.

    Args:
        file: A zip of runs, a TensorBoard event file, or a log in JSON.
        store: Where runs go, and whose ids are taken.
        name: What errors call the file, and a run that is made of a log.
        gradients: Whether S is in the gradients that an event file holds.

    Returns:
        The runs, and a line for each of a zip of several that could not be taken in.

    Raises:
        UserError: It holds no run, and why.
    """
    head = file.read(_HEAD)
    file.seek(0)
    if is_event_file(head):
        return [_import_events([file], store, name, gradients)], []
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        try:
            return [write_run(read_json_log(file), store, name)], []
        except RunFolderError:
            raise
        except UserError as error:
            raise ExchangeError(f"{name!r} is no log that can be taken in: {error}") from None
    if not head.startswith(b"PK"):
        raise ExchangeError(f"{name!r} is no exported run: it is {_KNOWN}")
    return import_bundle(file, store, name)


def import_path(
    path: Path, store: RunStore, gradients: Gradients = "unscaled"
) -> tuple[list[Run], list[str]]:
    """Take in a file, a run's folder, or a log folder of TensorBoard, of whose folders each becomes a run.

    Args:
        path: What to take in.
        store: As of `import_file`, which tells the rest.
        gradients: Likewise.

    Raises:
        UserError: It holds no run, and why.
        OSError: It can't be read.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return import_file(file, store, path.name, gradients)
    if (path / "run.json").exists():
        return [import_folder(path, store)], []
    try:
        logs = event_folders(path)
    except UserError as error:
        raise ExchangeError(f"{path.name!r} is no log folder that can be taken in: {error}") from None
    if not logs:
        return [import_folder(path, store)], []
    came: list[Run] = []
    wrong: list[str] = []
    for folder, files in logs.items():
        name = "/".join([path.resolve().name, *folder.relative_to(path).parts])
        try:
            came.append(_import_events(_opened(files), store, name, gradients))
        except RunFolderError:
            raise
        except UserError as error:
            wrong.append(str(error))
    return came, wrong


def _opened(paths: Iterable[Path]) -> Iterator[IO[bytes]]:
    """Yield files open for reading, one at a time."""
    for path in paths:
        with path.open("rb") as file:
            yield file


def _import_events(files: Iterable[IO[bytes]], store: RunStore, name: str, gradients: Gradients) -> Run:
    try:
        return write_run(read_event_log(files), store, name, gradients)
    except (RunFolderError, MissingPackageError):
        raise
    except UserError as error:
        raise ExchangeError(f"{name!r} can't be taken in: {error}") from None
