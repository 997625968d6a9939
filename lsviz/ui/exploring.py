"""Explore's parts: which two runs stand side by side, and what is shown without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.runs.reader import Run
from lsviz.ui.links import link_page

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


def choose_pair(runs: Sequence[Run]) -> list[Run]:
    """Ask for the run that stands beside the unscaled one; a constant scale comes first.

    Returns:
        The unscaled run and the chosen one, of the same task; empty where there is no such pair.
    """
    unscaled = [r for r in runs if r.config.policy == "none" and r.config.precision == "fp16"]
    if not unscaled:
        return []
    left = unscaled[0]
    others: dict[str, Run] = {}
    for run in runs:
        if run.config.task == left.config.task and run not in unscaled:
            others.setdefault(run_label(run.config), run)
    labels = sorted(others, key=lambda label: (not label.startswith("constant"), label))
    if not labels:
        return []
    if st.session_state.get("beside", labels[0]) not in labels:
        del st.session_state["beside"]
    chosen = st.segmented_control(
        "Beside no scaling",
        labels,
        default=labels[0],
        required=True,
        key="beside",
        bind="query-params",
        help="The run on the right. The one on the left trains without loss scaling.",
    )
    return [left, others[chosen or labels[0]]]  # an empty value in the URL comes as None


def show_nothing_yet(heading: DeltaGenerator) -> None:
    """Say what belongs here and how to get it."""
    with heading:
        st.header("Nothing to show yet")
        st.write(
            "Explore shows a run without loss scaling beside one with it, and there is no such pair yet: "
            "the shipped sample runs are missing. Launch the two, then come back."
        )
        link_page("launch", "Launch a run", {"policy": "none"})
