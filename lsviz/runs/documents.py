"""The result of a command of many runs as one JSON file: written whole, read with care."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from lsviz.errors import UserError
from lsviz.runs.files import RunFolderError, write_json

MAX_BYTES: Final = 5_000_000

Document = TypeVar("Document", bound=BaseModel)


def save_document(path: Path, document: BaseModel) -> None:
    """Write the document, replacing an older one as a whole.

    Raises:
        RunFolderError: It can't be written.
    """
    try:
        write_json(path, document.model_dump())
    except OSError as error:
        raise RunFolderError(f"can't write {str(path)!r}: {error.strerror}") from None


def load_document(path: Path, kind: type[Document], error: type[UserError], command: str) -> Document | None:
    """Return the document in a file; None where there is no file.

    Args:
        path: The file.
        kind: Its model.
        error: What is raised.
        command: That writes such files.

    Raises:
        UserError: Of the type ``error``: the file is no such document.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise error(f"{str(path)!r} is larger than any result of `{command}`")
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise error(f"can't read {str(path)!r}: {failure.strerror}") from None
    except (ValidationError, ValueError):
        raise error(
            f"{str(path)!r} holds no result of `{command}`: remove it and run the command again"
        ) from None
