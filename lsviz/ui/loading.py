"""Run tables kept in memory between reruns; a live run is read afresh when it has moved on."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from lsviz.analysis.shares import flushed_frame, layer_names, total_flushed_frame
from lsviz.jobs.manager import live_status
from lsviz.runs.reader import Run, RunError
from lsviz.runs.schema import ORIGINAL, RunRecord, RunStatus
from lsviz.ui.text import plain

_COLUMNS = [
    "step",
    "tensor",
    "kind",
    "reference",
    "loss_scale",
    "numel",
    "zero",
    "inf",
    "nan",
    "amax",
    "counts",
]


@dataclass(frozen=True)
class RunView:
    """One run as the pages need it. Frames are shared between sessions: never change them.

    ``picture`` and ``original`` are PNG files of a task whose result can be seen.
    """

    record: RunRecord
    status: RunStatus
    steps: pd.DataFrame
    exponents: pd.DataFrame
    layers: list[str]
    flushed: pd.DataFrame
    problems: list[str]
    picture: bytes | None = None
    original: bytes | None = None

    @property
    def recorded_steps(self) -> list[int]:
        """Steps to choose from: recorded ones that have a reference, or all where none has one."""
        reference = self.exponents["reference"].astype(bool)
        recorded = {int(s) for s in self.exponents.loc[~reference, "step"].unique()}
        compared = recorded & {int(s) for s in self.exponents.loc[reference, "step"].unique()}
        return sorted(compared or recorded)

    @property
    def metric(self) -> float | None:
        """The metric as last measured, once the run has ended."""
        measured = self.steps["metric"].dropna()
        return None if self.status.live or measured.empty else float(measured.iloc[-1])


@st.cache_resource(max_entries=24, show_spinner=False)
def _load(
    path: str, updated: float, _run: Run
) -> tuple[pd.DataFrame, pd.DataFrame, list[str], pd.DataFrame, list[str]]:
    exponents = _run.exponents(columns=_COLUMNS)
    layers = layer_names(exponents)
    steps = _run.steps()
    totals = total_flushed_frame(flushed_frame(exponents), layers)
    return steps, exponents, layers, totals, list(_run.problems)


def load_run(run: Run) -> RunView:
    """Return the run's tables, from memory where it has not changed since.

    Raises:
        RunError: Its JSON files can't be read.
    """
    status = live_status(run)
    steps, exponents, layers, totals, problems = _load(str(run.path.resolve()), status.updated, run)
    pictures = run.picture(), run.picture(ORIGINAL)
    return RunView(run.record, status, steps, exponents, layers, totals, problems, *pictures)


def load_runs(runs: list[Run]) -> list[RunView]:
    """Return the views of the runs that can be read; the others are told on the page."""
    views = []
    for run in runs:
        try:
            views.append(load_run(run))
        except RunError as error:
            st.warning(plain(error), icon=":material/broken_image:")
    return views
