"""Choosing a run to ask, the same one on What-if, Replay and Blame; and a run as a line of any chooser."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.runs.reader import Run
from lsviz.runs.showing import showable
from lsviz.ui.state import last_run, remember_run
from lsviz.ui.text import plain


def choose_run(runs: Sequence[Run], words: str) -> Run:
    """Ask for a run: the one last asked or watched in this session comes first, else the first.

    Args:
        runs: In the order to show; not empty.
        words: What it is asked for, to be shown beside the field.
    """
    by_id = {run.run_id: run for run in runs}
    if st.session_state.get("seen") not in by_id:
        asked = st.query_params.get("seen")
        if asked is not None and asked not in by_id:
            st.warning(plain(f"The link asks for a run that is not here: {asked[:80]!r}"))
        first = next((name for name in (asked, last_run()) if name in by_id), runs[0].run_id)
        st.session_state["seen"] = first
    chosen = st.selectbox(
        "Run",
        list(by_id),
        key="seen",
        format_func=lambda run_id: _option(by_id[run_id]),
        help=f"{words} The address bar keeps your choice.",
    )
    st.query_params["seen"] = chosen
    remember_run(chosen)
    return by_id[chosen]


def run_option(run: Run, *words: str) -> str:
    """Return a run as a line to choose: what a person called it first, then these words."""
    return showable(" · ".join(filter(None, (run.labels.name, *words))))


def _option(run: Run) -> str:
    config = run.config
    reference = "" if config.reference_every else "no reference"
    return run_option(run, config.task, run_label(config), f"seed {config.seed}", run.run_id[-4:], reference)
