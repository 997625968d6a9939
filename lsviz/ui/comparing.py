"""Compare's parts: choosing runs, timelines and the table of what differs."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lsviz.analysis.compare import difference_frame, run_label, run_labels, settings_and_results, update_label
from lsviz.analysis.cost import cost_finding
from lsviz.analysis.findings import format_scale
from lsviz.analysis.view import RunView
from lsviz.charts.views import timelines_figure, timelines_frame
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.ui.choosing import run_options
from lsviz.ui.links import link_page
from lsviz.ui.state import MAX_COMPARED, colour_mode, last_run, set_url_list, url_list
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure, show_rows


def choose_runs(runs: list[Run]) -> list[Run]:
    """Ask for up to four runs; the URL holds the choice."""
    by_id = {run.run_id: run for run in runs}
    if "chosen_runs" not in st.session_state:
        asked = url_list("runs")
        for run_id in (run_id for run_id in asked if run_id not in by_id):
            st.warning(plain(f"The link asks for a run that is not here: {run_id[:80]!r}"))
        chosen_first = [run_id for run_id in asked if run_id in by_id][:MAX_COMPARED]
        st.session_state["chosen_runs"] = chosen_first if asked else _default(runs)
    known = [run_id for run_id in st.session_state["chosen_runs"] if run_id in by_id]
    st.session_state["chosen_runs"] = known
    lines = run_options(runs, lambda run: (run_label(run.config), run.config.task))
    chosen: list[str] = st.multiselect(
        "Runs",
        list(by_id),
        key="chosen_runs",
        max_selections=MAX_COMPARED,
        format_func=lambda run_id: lines[run_id],
        placeholder="Choose up to four runs",
        help="Newest first. The address bar keeps your choice.",
    )
    set_url_list("runs", chosen)
    return [by_id[run_id] for run_id in chosen]


def baseline_of(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return what a run is held against: its task's pinned run, else the newest without loss scaling.

    That one is FP16 and updates its weights alike. None where the run is the baseline itself.
    """

    def unscaled(config: RunConfig) -> bool:
        plain_policy = config.policy == "none" and config.precision == "fp16"
        return plain_policy and update_label(config) == update_label(run.config)

    same_task = [other for other in runs if other.config.task == run.config.task]
    pinned = next((other for other in same_task if other.labels.pinned), None)
    if pinned is not None:
        return None if pinned.run_id == run.run_id else pinned
    if unscaled(run.config):
        return None
    return next((other for other in same_task if unscaled(other.config)), None)


def link_skips(views: Sequence[RunView]) -> None:
    """Lead on to why steps were skipped, of each run that skipped any."""
    labels = run_labels([view.record for view in views])
    for view, label in zip(views, labels, strict=True):
        skipped = int(view.steps["skipped"].sum())
        if skipped:
            steps = "1 step" if skipped == 1 else f"{skipped:,} steps"
            link_page("blame", f"Why did {label} skip {steps}?", {"seen": view.record.run_id})


def show_timelines(labels: Sequence[str], views: Sequence[RunView]) -> None:
    """Draw loss, S and flushed share over the steps."""
    figure = timelines_figure(views, colour_mode())
    alt = f"Loss, loss scale and flushed share over steps of {', '.join(labels)}."
    show_figure(figure, "timelines", alt, lambda: timelines_frame(views), second=True)


def show_differences(labels: Sequence[str], views: Sequence[RunView]) -> None:
    """Show settings and results that differ, one column a run."""
    rows = [settings_and_results(v.record, v.steps, v.status) for v in views]
    frame = difference_frame(labels, rows)
    metric_names = {v.record.metric_name for v in views if v.record.metric_name}
    name = metric_names.pop() if len(metric_names) == 1 else "metric"
    frame = frame.astype(object)
    if "final_loss_scale" in frame.index:
        frame.loc["final_loss_scale"] = [s and format_scale(s) for s in frame.loc["final_loss_scale"]]
    frame.index = [name if key == "metric" else key.replace("_", " ") for key in frame.index]
    st.subheader("What differs" if len(views) > 1 else "Settings and results")
    show_rows(frame.map(_cell).reset_index(names=""), alt="Settings and results that differ between the runs")
    costs = [cost_finding(view.steps, view.record.config) for view in views]
    told = [plain(f"{label}: {cost}") for label, cost in zip(labels, costs, strict=True) if cost]
    if told:
        st.caption("  \n".join(told))


def _default(runs: list[Run]) -> list[str]:
    """Return the newest run of each kind, up to four, oldest first, so that the unscaled come first.

    They are of one task and loss weight: those of the run last seen, which is among them, else of the
    newest. The task's pinned run stands before them all.
    """
    first = next((run for run in runs if run.run_id == last_run()), runs[0])
    setting = first.config.task, first.config.loss_weight
    alike = [run for run in (first, *runs) if (run.config.task, run.config.loss_weight) == setting]
    pinned = [run.run_id for run in alike if run.labels.pinned][:1]
    kinds: dict[str, str] = {}
    for run in alike:
        if run.run_id not in pinned:
            kinds.setdefault(run_label(run.config), run.run_id)
    return pinned + list(kinds.values())[: MAX_COMPARED - len(pinned)][::-1]


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
