"""Layers: every layer's exponents on FP16's range at one step, and one layer's over all steps."""

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.ui.comparing import choose_runs
from lsviz.ui.layering import (
    ask_layer,
    choose_layer,
    choose_names,
    choose_shown,
    headline,
    recorded_steps,
    show_history,
    show_layers,
    step_maps,
)
from lsviz.ui.state import run_store
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_problems, step_slider, stop_without_runs

store = run_store()
runs = store.list_runs()
if not runs:
    stop_without_runs(
        store, "No layers to show yet", "Launch a run: its gradients are recorded layer by layer."
    )

heading = st.container()
runs_column, names_column = st.columns([8, 4])
with runs_column:
    chosen = choose_runs(runs)
with names_column:
    wanted = choose_names()
steps = recorded_steps(chosen)
for run in chosen:
    if not steps[run.run_id]:
        st.caption(plain(f"{run_label(run.config)}: no gradients were recorded in this run."))
chosen = [run for run in chosen if steps[run.run_id]]
common = sorted(set.intersection(*(set(steps[run.run_id]) for run in chosen))) if chosen else []
if not common:
    heading.header("Layers by exponent")
    share_none = "There is no recorded step that these runs share. Choose others, or fewer."
    st.info(share_none if chosen else "Choose a run whose gradients were recorded.")
    st.stop()

shown_column, step_column = st.columns(2, vertical_alignment="bottom")
with shown_column:
    shown = choose_shown(wanted)
with step_column:
    step = step_slider(common, max(run.config.steps for run in chosen))
maps = step_maps(chosen, step, shown)
heading.header(plain(headline(maps, shown)))
heading.caption(
    f"Step {step:,}. A row is a {shown.noun}, a cell an exponent: the stronger, the more values (by "
    "powers of ten). Orange: flushed to zero. Amber, blue: kept. Grey: too small for FP16, "
    "kept in FP32. Red-brown: Inf. Click a row for its history."
)
if not maps.names:
    st.info(
        plain(f"No {shown.noun} here is named like {shown.wanted!r}." if shown.wanted else "None recorded.")
    )
    st.stop()
layer = choose_layer(maps)
show_layers(maps, layer, step, shown)
ask_layer(maps)
show_history(maps, layer, step, shown)
show_problems([], store.list_broken(), [p for run in chosen for p in run.problems])
