"""Choosing a run to ask, the same one on What-if, Replay and Blame; and a run as a line of any chooser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.runs.reader import Run
from lsviz.runs.schema import OWN_LOOP
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
    lines = run_options(runs, _words)
    chosen = st.selectbox(
        "Run",
        list(by_id),
        key="seen",
        format_func=lambda run_id: lines[run_id],
        help=f"{words} The address bar keeps your choice.",
    )
    st.query_params["seen"] = chosen
    remember_run(chosen)
    return by_id[chosen]


def run_options(runs: Sequence[Run], words: Callable[[Run], Sequence[str]]) -> dict[str, str]:
    """Return each run as a line to choose, by id: as short as tells it from the others.

    What a person called it comes first, then the words; then, of those that read alike, the seed, the time
    at which they began and the end of the id, as far as these tell them apart.

    Args:
        runs: All that can be chosen.
        words: What to say of each.
    """
    said = {run.run_id: " · ".join(filter(None, (_name(run), *words(run)))) for run in runs}
    lines = {run_id: showable(line) for run_id, line in said.items()}
    by_id = {run.run_id: run for run in runs}
    for more in (_seed, _time, _end_of_id):
        alike: dict[str, list[str]] = {}
        for run_id, line in lines.items():
            alike.setdefault(line, []).append(run_id)
        for line, group in alike.items():
            told = {run_id: more(by_id[run_id]) for run_id in group}
            if len(set(told.values())) > 1:
                lines |= {run_id: f"{line} · {text}" for run_id, text in told.items()}
    return lines


def _name(run: Run) -> str:
    """Return what a person called the run; a recorded loop, by its folder."""
    return run.labels.name or (run.run_id if run.record.engine == OWN_LOOP else "")


def _seed(run: Run) -> str:
    return f"seed {run.config.seed}"


def _time(run: Run) -> str:
    return run.record.created[5:16].replace("T", " ")


def _end_of_id(run: Run) -> str:
    return showable(run.run_id[-4:])


def _words(run: Run) -> list[str]:
    config = run.config
    asked = config.reference_every > 0 or run.record.engine == OWN_LOOP  # which has none to ask for
    return [config.task, run_label(config), "" if asked else "no reference"]
