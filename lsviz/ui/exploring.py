"""Explore's parts: which two runs stand side by side, what to ask of them, and what is shown without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from lsviz.analysis.compare import run_label, update_label
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.training.catalog import TASKS
from lsviz.ui.links import link_page
from lsviz.ui.text import plain

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


def choose_setting(runs: Sequence[Run]) -> list[Run]:
    """Ask what is trained, of what there is both without loss scaling and with it; the first comes first.

    Returns:
        The runs of that task and setting.
    """
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: _place(run.config)):
        name = ", ".join(filter(None, (run.config.task, update_label(run.config))))
        groups.setdefault(name, []).append(run)
    groups = {name: group for name, group in groups.items() if _is_pair(group)}
    names = list(groups)
    if len(names) < 2:
        return groups[names[0]] if names else []
    if st.session_state.get("setting", names[0]) not in names:
        del st.session_state["setting"]
    chosen = st.selectbox(
        "What is trained",
        names,
        key="setting",
        bind="query-params",
        help="A task, and what is unusual in its loss: 'loss x 2^-14' is a small term of a sum of losses.",
    )
    return groups[chosen]


def _place(config: RunConfig) -> tuple[int, float]:
    """The catalog's order, the task itself before its small loss weights."""
    tasks = list(TASKS)
    return tasks.index(config.task) if config.task in tasks else len(tasks), -config.loss_weight


def _is_pair(group: Sequence[Run]) -> bool:
    unscaled = [_is_unscaled(run) for run in group]
    return any(unscaled) and not all(unscaled)


def _is_unscaled(run: Run) -> bool:
    return run.config.policy == "none" and run.config.precision == "fp16"


def choose_pair(runs: Sequence[Run]) -> list[Run]:
    """Ask for the run that stands beside the unscaled one; a constant scale comes first.

    Returns:
        The unscaled run and the chosen one, of the same task; empty where there is no such pair.
    """
    unscaled = [run for run in runs if _is_unscaled(run)]
    if not unscaled:
        return []
    left = unscaled[0]
    others: dict[str, Run] = {}
    for run in runs:
        if run.config.task == left.config.task and not _is_unscaled(run):
            others.setdefault(_short_label(run.config), run)
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


def _short_label(config: RunConfig) -> str:
    """The run without what all of its setting have in common."""
    return run_label(config).removesuffix(f", {update_label(config)}")


def show_questions(pair: Sequence[Run], runs: Sequence[Run]) -> None:
    """Link questions to the pages that answer them of these runs.

    Args:
        pair: The unscaled run and the one beside it, which has learned.
        runs: Those of that setting and then all others: the first that skipped steps tells why.
    """
    unscaled, beside = pair
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plain(f"Ask {_short_label(beside.config)}:"), width="content")
        link_page("whatif", "Which S should I use?", {"seen": beside.run_id, "format": "FP16"})
        link_page("blame", "Which layer limits S?", {"seen": beside.run_id})
        st.caption(plain(f"Ask {_short_label(unscaled.config)}:"), width="content")
        link_page("whatif", "Would BF16 have helped?", {"seen": unscaled.run_id, "format": "BF16"})
        skipping = next((run for run in (beside, *runs) if _skipped(run)), None)
        if skipping is not None:
            elsewhere = f" on {skipping.config.task}" if skipping.config.task != beside.config.task else ""
            words = f"Why did {_short_label(skipping.config)}{elsewhere} skip steps?"
            link_page("blame", words, {"seen": skipping.run_id})


def _skipped(run: Run) -> bool:
    return run.status.skipped_steps > 0 and not run.config.injections


def show_nothing_yet(heading: DeltaGenerator) -> None:
    """Say what belongs here and how to get it."""
    with heading:
        st.header("Nothing to show yet")
        st.write(
            "Explore shows a run without loss scaling beside one with it, and there is no such pair yet: "
            "the shipped sample runs are missing. Launch the two, then come back."
        )
        link_page("launch", "Launch a run", {"policy": "none"})
