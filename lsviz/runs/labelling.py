"""Writing what a person says about a run. Shipped samples stay as they are."""

from __future__ import annotations

from lsviz.runs.files import RunFolderError, write_json
from lsviz.runs.labels import LABELS, Labels
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore, is_sample


def set_labels(run: Run, labels: Labels) -> None:
    """Write a run's name, tags and pin, as a whole.

    Raises:
        RunFolderError: It is a shipped sample, or its folder can't be written.
    """
    if is_sample(run):
        raise RunFolderError(f"{run.run_id} is a shipped sample run: it can't be changed")
    try:
        if labels == Labels():
            (run.path / LABELS).unlink(missing_ok=True)
        else:
            write_json(run.path / LABELS, labels.model_dump())
    except OSError as error:
        raise RunFolderError(f"can't label {run.run_id} ({error.strerror or error})") from None


def pin_run(run: Run, store: RunStore, *, pinned: bool = True) -> None:
    """Make a run its task's baseline in place of the one before, or no baseline any more.

    Raises:
        RunFolderError: It is a shipped sample, or a folder can't be written.
    """
    set_labels(run, run.labels.model_copy(update={"pinned": pinned}))
    if not pinned:
        return
    for other in store.list_runs():
        same = other.config.task == run.config.task and other.path.resolve() != run.path.resolve()
        if same and other.labels.pinned and not is_sample(other):
            set_labels(other, other.labels.model_copy(update={"pinned": False}))
