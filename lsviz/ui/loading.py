"""Run tables kept in memory between reruns; a live run is read afresh when it has moved on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from lsviz.analysis.view import RunView
from lsviz.jobs.manager import live_status
from lsviz.runs.reader import Run, RunError
from lsviz.runs.schema import RunStatus
from lsviz.ui.text import plain


@st.cache_resource(max_entries=48, show_spinner=False)
def _load_small(path: str, updated: float, _run: Run, _status: RunStatus) -> RunView:
    return RunView.of(_run, _status)


@st.cache_resource(max_entries=4, show_spinner=False)
def _load_large(path: str, updated: float, _run: Run, _status: RunStatus) -> RunView:
    """Return a view of which Compare shows up to four: of 10,000 steps x 100 tensors each takes 1 GB."""
    return RunView.of(_run, _status)


def load_run(run: Run) -> RunView:
    """Return the run's tables, from memory where it has not changed since.

    Raises:
        RunError: Its JSON files can't be read.
    """
    status = live_status(run)
    load = _load_small if run.small else _load_large
    view = load(str(run.path.resolve()), status.updated, run, status)
    return replace(view, record=run.record, status=status)


def loads_of(runs: Sequence[Run]) -> list[partial[RunView]]:
    """Return what reads these, as far as they are small and have ended, while a visitor looks at others."""
    return [partial(load_run, run) for run in runs if run.small]


def load_runs(runs: list[Run]) -> list[RunView]:
    """Return the views of the runs that can be read; the others are told on the page."""
    views = []
    for run in runs:
        try:
            views.append(load_run(run))
        except RunError as error:
            st.warning(plain(error), icon=":material/broken_image:")
    return views
