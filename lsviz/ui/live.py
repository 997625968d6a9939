"""Watching one run: progress, figures, its end. One flat fragment that ends itself."""

from __future__ import annotations

import time

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.analysis.cost import cost_finding
from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.lab import run_verdict
from lsviz.analysis.view import RunView
from lsviz.charts.theme import policy_colour
from lsviz.charts.timelines import Timeline, timeline_figure
from lsviz.charts.views import timelines_frame
from lsviz.jobs.manager import cancel_run, live_status
from lsviz.runs.reader import Run, RunError
from lsviz.ui.comparing import baseline_of
from lsviz.ui.links import link_page
from lsviz.ui.loading import load_run
from lsviz.ui.state import colour_mode, run_store, watch
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure, show_pictures, show_problems

REFRESH_SECONDS = 1.0

_ENDS = {
    "finished": ("success", ":material/check_circle:", "Finished."),
    "cancelled": ("warning", ":material/cancel:", "Cancelled. What was recorded so far is kept."),
    "failed": ("error", ":material/error:", "Failed."),
    "interrupted": ("error", ":material/power_off:", "Interrupted."),
}


def watch_run(run_id: str) -> None:
    """Show the run of that id, live while it runs."""
    try:
        run = run_store().find(run_id)
        live = live_status(run).live
    except RunError as error:
        st.error(plain(error), icon=":material/broken_image:")
        _close_button()
        return
    refresh = REFRESH_SECONDS if live else None
    st.fragment(run_every=refresh)(_show_run)(run, live)


def _show_run(run: Run, was_live: bool) -> None:
    try:
        view = load_run(run)
    except RunError as error:
        st.error(plain(error), icon=":material/broken_image:")
        return
    if was_live and not view.status.live:
        st.rerun()  # a full run of the page declares the fragment anew, without its timer
    config = view.record.config
    title, action = st.columns([8, 3], vertical_alignment="center")
    title.subheader(plain(f"{run_label(config)} on {config.task}, seed {config.seed}"))
    with action:
        _action(run, view)
    _show_state(run, view)
    _show_figures(view)
    if config.check_update and not view.status.live:
        _show_checked(run)
    if len(view.steps):
        mode = colour_mode()
        colour = policy_colour(config.policy, config.precision, mode)
        line = Timeline("", colour, view.steps, view.flushed, faults=config.injections)
        figure = timeline_figure([line], config.steps, mode)
        alt = "Loss, loss scale and flushed share so far"
        show_figure(figure, "live_timeline", alt, lambda: timelines_frame([view]))
    show_pictures([view])
    show_problems([view])


def _action(run: Run, view: RunView) -> None:
    if view.status.live:
        if st.button("Cancel", icon=":material/stop:", key="cancel", width="stretch"):
            cancel_run(run)
            st.toast("Asked it to stop after the step in hand.")
    else:
        _close_button()


def _close_button() -> None:
    if st.button("Close", icon=":material/close:", key="close", width="stretch"):
        watch(None)
        st.rerun(scope="app")


def _show_state(run: Run, view: RunView) -> None:
    status = view.status
    if status.live:
        text = (
            f"Step {status.step:,} of {status.steps:,}{_time_left(view)}"
            if status.step
            else "Starting: loading torch and the data"
        )
        st.progress(min(1.0, status.step / max(1, status.steps)), text=text)
        return
    kind, icon, words = _ENDS[status.state]
    if status.state == "finished" and view.metric is not None:
        words = plain(f"Finished with {view.record.metric_name} {view.metric:.3f}.")
        skipped = int(view.steps["skipped"].sum())
        if skipped > len(view.steps) / 2:
            kind, icon = "warning", ":material/warning:"
            words += f" {skipped:,} of {len(view.steps):,} steps overflowed and were skipped."
    getattr(st, kind)(words, icon=icon)
    if status.error:
        st.code(status.error, language=None, wrap_lines=True)
    log = run.log_tail()
    if log and status.state in ("failed", "interrupted"):
        with st.expander("Last lines of its log"):
            st.code(log, language=None, wrap_lines=True)
    if len(view.steps):
        beside = baseline_of(run, run_store().list_runs())
        ids = [beside.run_id, run.run_id] if beside else [run.run_id]
        link_page("compare", "See it on Compare", {"runs": ",".join(ids)})


def _show_checked(run: Run) -> None:
    """Tell how the run's updates compare with float64, where it held them against that."""
    updates = run.updates()
    if len(updates):
        _, sentence = run_verdict(run, updates)
        st.markdown(plain(f"Its weight updates beside float64: {sentence[0].lower()}{sentence[1:]}"))
        link_page("updates", "All ways to update, side by side")


def _show_figures(view: RunView) -> None:
    loss, scale, skipped, flushed = st.columns(4)
    steps = view.steps
    loss.metric("Loss", f"{steps['loss'].iloc[-1]:.4g}" if len(steps) else "–")
    scale.metric(
        "Loss scale S",
        format_scale(float(steps["loss_scale"].iloc[-1])) if len(steps) else "–",
        help="The factor on the loss in the last step.",
    )
    skipped.metric(
        "Skipped",
        f"{int(steps['skipped'].sum()):,}",
        help="Steps left out because a gradient was Inf or NaN.",
    )
    flushed.metric(
        "Flushed",
        format_percent(float(view.flushed["flushed"].iloc[-1])) if len(view.flushed) else "–",
        help="Share of the values at all layers' outputs that FP32 has and FP16 lost.",
    )
    cost = cost_finding(steps, view.record.config)
    if cost:
        st.caption(plain(cost))


def _time_left(view: RunView) -> str:
    done = view.status.step
    if done < 5:
        return ""
    per_step = (view.steps["ms"] + view.steps["ms_recording"]).mean() / 1e3
    since = max(0.0, time.time() - view.status.updated)
    left = max(0.0, (view.status.steps - done) * per_step - since)
    return f", about {left:.0f} s left" if left < 90 else f", about {left / 60:.0f} min left"
