"""Deleting a run: out of sight at once, then off the disk."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from typing import Final

from lsviz.jobs.settling import live_status
from lsviz.runs.files import RunFolderError
from lsviz.runs.reader import Run, RunError
from lsviz.runs.store import is_sample

_DELETED: Final = ".deleted"


def refuse_to_delete(run: Run) -> str | None:
    """Return why a run can't be deleted, in one line; None where it can."""
    if is_sample(run):
        return f"{run.run_id} is a shipped sample run: it stays"
    if run.path.is_symlink():
        return f"{run.run_id} is a link to a run elsewhere: delete it there"
    with contextlib.suppress(RunError):  # who can't read its status can still be rid of it
        if live_status(run).live:
            return f"{run.run_id} is still running: cancel it first"
    return None


def delete_run(run: Run) -> None:
    """Remove a run's folder. It is renamed first, so that half a run is never listed.

    What an earlier deletion that was cut short left beside it goes too.

    Raises:
        RunFolderError: It is live or a shipped sample, or its folder can't be removed.
    """
    reason = refuse_to_delete(run)
    if reason is not None:
        raise RunFolderError(reason)
    path = run.path.resolve()
    try:
        path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}{_DELETED}"))
    except OSError as error:
        raise RunFolderError(f"can't delete {run.run_id} ({error.strerror or error})") from None
    for left in path.parent.glob(f".*{_DELETED}"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
