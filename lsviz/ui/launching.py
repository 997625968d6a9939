"""Launch's form: every bound and message comes from the config models, never from a widget."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lsviz.analysis.compare import list_frame, run_label
from lsviz.analysis.findings import format_powers
from lsviz.errors import UserError
from lsviz.jobs.manager import check_room, live_status
from lsviz.runs.config import MAX_SEED, MAX_STEPS, PRECISIONS, RunConfig
from lsviz.runs.reader import RunError
from lsviz.runs.store import default_root
from lsviz.training.catalog import TASKS, TaskSpec, find_task
from lsviz.ui.access import changing
from lsviz.ui.acting import start_sweep, submit_run
from lsviz.ui.also_form import also_form
from lsviz.ui.fault_form import fault_form
from lsviz.ui.policy_form import policy_form
from lsviz.ui.queueing import queue_line, session_owner
from lsviz.ui.state import MAX_COMPARED, remember_run, run_store, watch, watched_runs
from lsviz.ui.sweeping import ENGINES, engine_form
from lsviz.ui.text import plain, plain_frame
from lsviz.ui.update_form import show_update_warnings, start_form, update_form

RECENT = 8
_NEW_TASK = "_new_task"


def launch_form() -> None:
    """Ask for a run, and start it. The button stands first, where it covers nothing and stays in reach."""
    start_bar = st.container(key="start_bar")
    _tell_unknown("task", TASKS)
    _tell_unknown("precision", PRECISIONS)
    _tell_unknown("engine", ENGINES)
    task = st.selectbox(
        "Task",
        list(TASKS),
        key="task",
        bind="query-params",
        help="What is trained.",
        on_change=_take_the_tasks_steps,
    )
    spec = find_task(task)
    with st.container(key="task-about"):
        st.caption(f"**{spec.title}.** {format_powers(spec.teaches)}")
    policy_place, plain_place, seldom_place = st.container(), st.container(), st.container()
    with policy_place:
        policy = policy_form("policy", "constant", seldom_place)
    with plain_place:
        precision, also, steps, seed = _plain_settings(spec)
        engine = engine_form()
    start = start_form()
    update = update_form(spec)
    recording = _recording_settings()
    inject = fault_form(spec)
    show_update_warnings(spec, policy, {**update, "steps": steps, "inject": inject})
    settings = {
        "task": task,
        "policy": policy,
        "precision": precision,
        "steps": steps,
        "seed": seed,
        "inject": inject,
        **recording,
        **start,
        **update,
    }
    label = f"Start {1 + len(also)} runs" if also else "Start"
    label += "" if engine == "local" else " on Ray"
    with start_bar:  # and what is wrong is told beside it
        if st.button(
            label,
            key="start",
            type="primary",
            icon=":material/play_arrow:",
            width="stretch",
            shortcut="Ctrl+Enter",
            **changing(),
        ):
            asked = [settings, *(settings | changes for changes in also)]
            _start(asked) if engine == "local" else _start_on_ray(asked, engine)


def _plain_settings(spec: TaskSpec) -> tuple[str, list[dict[str, Any]], int, int]:
    """Ask for precision, what starts beside the run, steps and seed."""
    precision = st.segmented_control(
        "Precision",
        PRECISIONS,
        default="fp16",
        required=True,
        key="precision",
        bind="query-params",
        help="Number format of the forward and backward pass.",
    )
    also = also_form()
    steps_column, seed_column = st.columns(2)
    steps = steps_column.number_input(
        "Steps",
        1,
        MAX_STEPS,
        # Streamlit warns where a value comes both from the state and as a default.
        "min" if st.session_state.pop(_NEW_TASK, False) else spec.steps,
        key="steps",
        bind="query-params",
        help="Number of training steps.",
    )
    seed = seed_column.number_input(
        "Seed", 0, MAX_SEED, 0, key="seed", bind="query-params", help="Of weights, batches and dropout."
    )
    return precision, also, steps, seed


def _recording_settings() -> dict[str, Any]:
    """Ask what is recorded, as `RunConfig` names it."""
    with st.expander("Recording"):
        record_every = st.number_input(
            "Record every N steps",
            0,
            MAX_STEPS,
            10,
            key="record_every",
            bind="query-params",
            help="0 turns it off.",
        )
        reference_every = st.number_input(
            "FP32 reference every N steps",
            0,
            MAX_STEPS,
            10,
            key="reference_every",
            bind="query-params",
            help="The same weights and batch in FP32, to tell what was flushed. 0 turns it off.",
        )
        check_update = st.toggle(
            "Check the update",
            key="check_update",
            bind="query-params",
            help="Hold every weight update against the right one in float64; `lsviz updates RUN` tells.",
        )
    return {
        "record_every": record_every,
        "reference_every": reference_every,
        "check_update": check_update,
    }


def _start_on_ray(asked: Sequence[dict[str, Any]], engine: str) -> None:
    """Start a sweep of these runs, or none; the panel of sweeps shows it."""
    device = "cuda" if engine == "ray-gpu" else "auto"
    try:
        start_sweep(default_root(), [RunConfig.build(**settings, device=device) for settings in asked])
    except UserError as error:
        st.error(plain(error))
        return
    st.toast("Started on Ray. It goes on when you close this page.", icon=":material/play_arrow:")
    st.rerun()


def _start(asked: Sequence[dict[str, Any]]) -> None:
    """Start all these runs, or none, and watch them beside those that still run."""
    try:
        configs = [RunConfig.build(**settings) for settings in asked]
        check_room(default_root(), len(configs))
        owner = session_owner()
        started = [submit_run(default_root(), config, owner=owner).run_id for config in configs]
    except UserError as error:
        st.error(plain(error))
        return
    going = [run_id for run_id in watched_runs() if _still_runs(run_id)]
    waits = any(queue_line(run_store().find(run_id)) for run_id in started)
    words = "Queued: it starts when its turn comes, and goes" if waits else "Started. It goes"
    st.toast(f"{words} on when you close this page.", icon=":material/play_arrow:")
    remember_run(started[0])
    watch([*going[: MAX_COMPARED - len(started)], *started])
    st.rerun()


def _still_runs(run_id: str) -> bool:
    try:
        return live_status(run_store().find(run_id)).live
    except RunError:
        return False


def show_recent_runs() -> None:
    """List the newest runs, each a click from being watched."""
    store = run_store()
    pairs = []
    for run in store.list_runs()[:RECENT]:
        try:
            pairs.append((run.record, live_status(run)))
        except RunError:
            continue
    st.subheader("Recent runs")
    if not pairs:
        st.info("Your runs will appear here. Start one on the left: it takes a few seconds.")
        return
    frame = list_frame(pairs)
    frame["run"] = [format_powers(run_label(record.config)) for record, _ in pairs]
    frame["state"] = [status.shown_state for _, status in pairs]
    shown = frame[["task", "run", "state", "metric", "seed", "created"]]
    shown = shown.assign(created=pd.to_datetime(shown["created"]))
    event = st.dataframe(
        plain_frame(shown),
        hide_index=True,
        on_select="rerun",
        placeholder="–",
        selection_mode="single-row",
        key="recent_runs",
        column_config={
            "metric": st.column_config.NumberColumn(format="%.3f"),
            "seed": st.column_config.NumberColumn(width=50),
            "created": st.column_config.DatetimeColumn(format="D MMM, HH:mm"),
        },
        alt="The newest runs with task, policy, state and metric",
    )
    if event.selection.rows:
        chosen = str(frame["run_id"].iloc[event.selection.rows[0]])
        remember_run(chosen)
        watch([chosen])
        st.rerun()
    st.caption("Tick a row to see the run.")


def _tell_unknown(key: str, known: Collection[str]) -> None:
    """Say so where the URL asks for something that there isn't; the form then shows its default."""
    asked = st.query_params.get(key)
    if asked and asked not in known:
        st.warning(plain(f"unknown {key} {asked!r} in the link; choose one of: {', '.join(known)}"))


def _take_the_tasks_steps() -> None:
    st.session_state["inject"] = ""  # another task has other layers
    st.session_state["steps"] = find_task(st.session_state["task"]).steps
    st.session_state[_NEW_TASK] = True
