"""Explore: the story in one screen, on shipped runs."""

import streamlit as st

from lsviz.analysis.findings import finding
from lsviz.analysis.view import common_steps
from lsviz.runs.store import RunStore, samples_root
from lsviz.ui.ahead import READER
from lsviz.ui.drawing import drawn_shares, steps_beside
from lsviz.ui.exploring import choose_pair, choose_setting, show_nothing_yet, show_questions
from lsviz.ui.links import link_page
from lsviz.ui.loading import load_runs, loads_of
from lsviz.ui.state import colour_mode, run_store
from lsviz.ui.stepping import choose_step
from lsviz.ui.text import plain
from lsviz.ui.widgets import (
    HOW_TO_READ,
    heading_place,
    show_pictures,
    show_problems,
    show_spectra,
)


@st.fragment
def show_story() -> None:
    """Draw the page; what one chooses here draws only this again, not the frame around it."""
    samples = RunStore.at(samples_root())
    shown = samples.list_runs() or run_store().list_runs()
    heading = heading_place("explore")
    setting_column, beside_column, step_column = st.columns([4, 6, 5], vertical_alignment="bottom")
    with setting_column:
        of_setting = choose_setting(shown)
    with beside_column:
        pair = choose_pair(of_setting)
    views = load_runs(pair)
    steps = common_steps(views) if len(views) == 2 else []
    if not steps:
        show_nothing_yet(heading)
        show_problems(views, samples.list_broken())
        return

    config = views[0].record.config
    with step_column:
        step = choose_step(steps, config.steps)
    shares = drawn_shares(views, step)
    with heading:
        st.header(plain(finding(shares)))
        st.caption(
            f"Gradients at each layer's output, {config.task}, step {step} of {config.steps:,}. {HOW_TO_READ}"
        )
        show_questions(pair, [*of_setting, *shown])
    show_spectra(views, shares, step, key="explore_spectra")
    show_pictures(views)
    st.markdown(
        "FP16 rounds every gradient of 2⁻²⁵ and below to zero, without a word. Multiplying the loss by S "
        "moves all gradients up by log₂ S binades, out of that range; dividing by S before the update undoes "
        "it."
    )
    with st.container(horizontal=True):
        link_page("launch", "Launch your own run")
        link_page("compare", "Compare runs", {"runs": ",".join(run.run_id for run in of_setting[:4][::-1])})
        shown_runs = ",".join(view.record.run_id for view in views)
        link_page("layers", "See all exponents as a map", {"runs": shown_runs, "step": str(step)})
    show_problems(views, samples.list_broken())
    READER.ask([*steps_beside(views, steps, step, colour_mode()), *loads_of(shown)])


show_story()
