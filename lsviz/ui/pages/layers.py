"""Layers: every layer's exponents on FP16's range at one step, and one layer's over all steps."""

import streamlit as st

from lsviz.ui.comparing import choose_runs
from lsviz.ui.layering import (
    ask_layer,
    choose_layer,
    choose_names,
    choose_shown,
    headline,
    how_to_read,
    link_limits,
    show_history,
    show_layers,
    show_no_match,
    step_maps,
    with_gradients,
)
from lsviz.ui.stepping import choose_step
from lsviz.ui.text import plain
from lsviz.ui.widgets import runs_or_stop, show_problems

store, runs = runs_or_stop(
    "No layers to show yet",
    "Launch a run: its gradients are recorded layer by layer.",
)

heading = st.empty()
runs_column, names_column = st.columns([8, 4])
with runs_column:
    chosen = choose_runs(runs)
with names_column:
    wanted = choose_names()
recorded, steps = with_gradients(chosen)


@st.fragment
def show_step() -> None:
    """Draw one step and one layer; what one chooses here draws only this part again."""
    shown_column, step_column = st.columns(2, vertical_alignment="bottom")
    with shown_column:
        shown = choose_shown(wanted)
    with step_column:
        step = choose_step(steps, max(run.config.steps for run in recorded))
    maps = step_maps(recorded, step, shown)
    with heading.container():
        st.header(plain(headline(maps, shown)))
        st.caption(how_to_read(step, shown))
    if maps.names:
        layer = choose_layer(maps)
        show_layers(maps, layer, step, shown)
        ask_layer(maps)
        show_history(maps, layer, step, shown)
    else:
        show_no_match(shown)


if steps:
    show_step()
    link_limits(recorded)
else:
    heading.header("Layers by exponent")
    st.info(
        "There is no recorded step that these runs share. Choose others, or fewer."
        if recorded
        else "Choose a run whose gradients were recorded."
    )
show_problems([], store.list_broken(), [problem for run in recorded for problem in run.problems])
