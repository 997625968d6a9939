"""One watched run in words: how far it is, what can be done, how it ended and what its log says last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.view import RunView
from lsviz.errors import UserError
from lsviz.jobs.manager import is_ending, is_ours
from lsviz.jobs.pausing import is_pausing
from lsviz.runs.reader import Run
from lsviz.runs.schema import RunStatus
from lsviz.runs.showing import showable
from lsviz.runs.store import default_root
from lsviz.ui.access import changing
from lsviz.ui.acting import cancel_run, pause_run, resume_run, submit_run
from lsviz.ui.queueing import queue_line, session_owner
from lsviz.ui.state import unwatch, watch_instead
from lsviz.ui.text import plain

_FAILED: Final = "_failed_"
_ENDS = {
    "finished": ("info", ":material/check_circle:", "Finished."),
    "cancelled": ("warning", ":material/cancel:", "Cancelled"),
    "failed": ("error", ":material/error:", "Failed"),
    "interrupted": ("error", ":material/power_off:", "Interrupted"),
}
SOON_SECONDS: Final = 4.0
_KEPT = "What was recorded so far is kept."


def show_title(run: Run, view: RunView, label: str = "") -> None:
    """Name the run, with what can be done with it beside the name.

    Args:
        run: The run.
        view: Its tables.
        label: What figures of several runs call it; empty where it stands alone.
    """
    config = view.record.config
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if label:
            st.markdown(f"**{plain(run.labels.name or label)}**", width="stretch")
        else:
            name = run.labels.name or f"{run_label(config)} on {config.task}, seed {config.seed}"
            st.subheader(plain(name), width="stretch")
        _show_actions(run, view.status)


def close_button(run_id: str) -> None:
    """Offer to leave a run out of sight."""
    if st.button("Close", icon=":material/close:", key=f"close-{run_id}"):
        unwatch(run_id)
        st.rerun(scope="app")


def show_state(run: Run, view: RunView, numbers: str = "") -> None:
    """Tell how far a live run is, or how it ended.

    Args:
        run: The run.
        view: Its tables.
        numbers: What stands behind that, in one line.
    """
    status = view.status
    if not status.live:
        _show_end(run, view, numbers)
        return
    bar = min(1.0, status.step / max(1, status.steps))
    text = _progress(run, view)
    st.progress(bar, text=plain(f"{text} · {numbers}" if numbers and len(view.steps) else text))


def show_numbers(view: RunView) -> None:
    """Show loss, S, skipped steps and flushed share of the last step, as four figures."""
    columns = st.columns(4)
    for column, (name, value, words) in zip(columns, _numbers(view), strict=True):
        column.metric(name, value, help=words)


def numbers_line(view: RunView) -> str:
    """Return the same in one line."""
    return " · ".join(
        f"{name.lower() if name != 'Loss scale S' else 'S'} {v}" for name, v, _ in _numbers(view)
    )


def _show_actions(run: Run, status: RunStatus) -> None:
    if failed := st.session_state.pop(_FAILED + run.run_id, ""):
        st.error(plain(failed), icon=":material/error:")
    if not status.live or not is_ours(run):
        close_button(run.run_id)
        return
    if is_ending(run):
        return
    if is_pausing(run):
        _action("Resume", ":material/play_arrow:", run, resume_run)
    else:
        _action("Pause", ":material/pause:", run, pause_run, "Wait after the step in hand.")
    _action("Cancel", ":material/stop:", run, cancel_run, f"End it. {_KEPT}")


def _action(label: str, icon: str, run: Run, act: Callable[[Run], object], words: str | None = None) -> None:
    key = f"{label.lower()}-{run.run_id}"
    # By callback, so that what follows in the same run of the page already shows what came of it.
    st.button(label, icon=icon, key=key, on_click=_carry_out, args=(act, run), **changing(words))


def _carry_out(act: Callable[[Run], object], run: Run) -> None:
    # Told by what runs next: shown from here, in a part of the page, it would take the place of its style.
    try:
        act(run)
    except UserError as error:
        st.session_state[_FAILED + run.run_id] = str(error)


def _progress(run: Run, view: RunView) -> str:
    status = view.status
    if not is_ours(run):
        return f"Step {status.step:,}, recorded from a loop of your own: stop it where it runs"
    queued = queue_line(run) if status.state == "queued" else ""
    if queued:
        return queued
    step, of = f"{status.step:,}", f"of {status.steps:,}"
    pausing = is_pausing(run)
    if is_ending(run):
        return f"Step {step} {of}, cancelled: it ends after the step in hand" if status.step else "Cancelled"
    if status.paused:
        return f"Paused at step {step} {of}" if pausing else f"Going on from step {step} {of}"
    if pausing:
        return f"Step {step} {of}, pausing after the step in hand" if status.step else "Starting, then paused"
    return f"Step {step} {of}{_time_left(view)}" if status.step else _starting(view)


def _starting(view: RunView) -> str:
    since = time.time() - view.status.updated
    return f"Starting: loading torch and the data, {max(0, since):.0f} s"


def _time_left(view: RunView) -> str:
    done = view.status.step
    if done < 5:
        return ""
    per_step = (view.steps["ms"] + view.steps["ms_recording"]).mean() / 1e3
    since = max(0.0, time.time() - view.status.updated)
    left = max(0.0, (view.status.steps - done) * per_step - since)
    if left < SOON_SECONDS:
        return ", a few seconds left"
    return f", about {left:.0f} s left" if left < 90 else f", about {left / 60:.0f} min left"


def _show_end(run: Run, view: RunView, numbers: str) -> None:
    status = view.status
    kind, icon, words = _ENDS[status.state]
    if status.state != "finished":
        kept = _KEPT if status.step else "Nothing was recorded."
        words += f" at step {status.step:,} of {status.steps:,}. {kept}"
    elif view.metric is not None:
        words = plain(f"Finished with {view.record.metric_name} {view.metric:.3f}.")
    skipped = int(view.steps["skipped"].sum())
    if status.state == "finished" and skipped > len(view.steps) / 2:
        kind, icon = "warning", ":material/warning:"
        words += f" {skipped:,} of {len(view.steps):,} steps overflowed and were skipped."
    getattr(st, kind)(f"{words}  \n{plain(numbers)}" if numbers and len(view.steps) else words, icon=icon)
    if status.error:
        st.code(showable(status.error), language=None, wrap_lines=True)
    with st.container(horizontal=True, gap="small"):
        if status.state != "finished" and is_ours(run):
            _show_again(run)
        _show_log(run)


def _show_log(run: Run) -> None:
    log = run.log_tail()
    if log:
        with st.popover("Its log", icon=":material/notes:", help="The last lines that its process wrote."):
            st.code(showable(log), language=None, wrap_lines=True)


def _show_again(run: Run) -> None:
    words = "With the same settings, from step 0."
    if st.button("Start it again", icon=":material/replay:", key=f"again-{run.run_id}", **changing(words)):
        try:
            again = submit_run(default_root(), run.config, owner=session_owner())
        except UserError as error:
            st.error(plain(error))
        else:
            watch_instead(run.run_id, again.run_id)
            st.rerun(scope="app")


def _numbers(view: RunView) -> list[tuple[str, str, str]]:
    steps, flushed = view.steps, view.flushed
    any_step = len(steps) > 0
    return [
        ("Loss", f"{steps['loss'].iloc[-1]:.4g}" if any_step else "–", "Of the last step, before S."),
        (
            "Loss scale S",
            format_scale(float(steps["loss_scale"].iloc[-1])) if any_step else "–",
            "The factor on the loss in the last step.",
        ),
        ("Skipped", f"{int(steps['skipped'].sum()):,}", "Steps left out because a gradient was Inf or NaN."),
        (
            "Flushed",
            format_percent(float(flushed["flushed"].iloc[-1])) if len(flushed) else "–",
            "Share of the values at all layers' outputs that FP32 has and FP16 lost.",
        ),
    ]
