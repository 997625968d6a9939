"""A table of all runs, with what a person calls them, and searching it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from lsviz.analysis.compare import list_frame
from lsviz.jobs.queue import places
from lsviz.jobs.settling import live_status
from lsviz.runs.reader import Run, RunError
from lsviz.runs.schema import RunStatus
from lsviz.runs.store import samples_root

SHOWN_LIVE: Final = ("queued", "running", "paused")
"""States, as the table tells them, of runs that are under way."""
SEARCHED: Final = ("run_id", "name", "task", "policy", "update", "precision", "state", "note")


def runs_frame(runs: Sequence[Run]) -> tuple[pd.DataFrame, list[str]]:
    """Return one row a run from its small files alone, in the given order, and what could not be read.

    Returns:
        The columns of `list_frame` (with ``paused`` as a state too), and place (in the queue, from 1; none
        where it does not wait), name, tags (tuples), pinned, sample, note (``baseline`` of a pinned run,
        ``sample`` of a shipped one).
    """
    kept: list[tuple[Run, RunStatus]] = []
    problems: list[str] = []
    for run in runs:
        try:
            kept.append((run, live_status(run)))
        except RunError as error:
            problems.append(str(error))
    frame = list_frame([(run.record, status) for run, status in kept])
    labels = [run.labels for run, _ in kept]
    samples = samples_root().resolve()
    parents = {parent: parent.resolve() == samples for parent in {run.path.parent for run, _ in kept}}
    frame["state"] = [status.shown_state for _, status in kept]
    frame["run_id"] = [run.run_id for run, _ in kept]  # its folder, which is what finds it
    queued = {run.path.parent for run, status in kept if status.state == "queued"}
    waiting = {root / run_id: place for root in queued for run_id, place in places(root).items()}
    frame["place"] = pd.array([waiting.get(run.path) for run, _ in kept], dtype="Int64")
    frame["name"] = [given.name for given in labels]
    frame["tags"] = [given.tags for given in labels]
    frame["pinned"] = [given.pinned for given in labels]
    frame["sample"] = [parents[run.path.parent] for run, _ in kept]
    frame["note"] = [
        "baseline" if pinned else "sample" if sample else ""
        for pinned, sample in zip(frame["pinned"], frame["sample"], strict=True)
    ]
    problems += [f"{run.run_id}: {problem}" for run, _ in kept for problem in run.problems]
    return frame, problems


def search_runs(frame: pd.DataFrame, text: str) -> pd.DataFrame:
    """Return the rows of `runs_frame` that hold every word of a text, in whatever case and column."""
    words = text.casefold().split()
    if not words or frame.empty:
        return frame
    texts = frame[list(SEARCHED)].astype(str).agg("\n".join, axis=1)
    unscaled = frame["policy"].map({"none": "\nno scaling"}).fillna("")  # as headings call it
    texts = (texts + unscaled + "\n" + frame["tags"].map("\n".join)).str.casefold()
    return frame[[all(word in text for word in words) for text in texts]]
