"""Compare: two to four runs side by side."""

import streamlit as st

from lsviz.analysis.compare import run_label, run_labels
from lsviz.analysis.findings import finding
from lsviz.analysis.view import common_steps
from lsviz.ui.ahead import READER
from lsviz.ui.comparing import choose_runs, link_skips, show_differences, show_timelines
from lsviz.ui.drawing import drawn_shares, steps_beside
from lsviz.ui.links import link_page
from lsviz.ui.loading import load_runs
from lsviz.ui.state import colour_mode
from lsviz.ui.stepping import choose_step
from lsviz.ui.text import plain
from lsviz.ui.widgets import (
    HOW_TO_READ,
    runs_or_stop,
    show_pictures,
    show_problems,
    show_spectra,
)

store, runs = runs_or_stop(
    "No runs to compare yet",
    "Launch two runs, for example without loss scaling and with constant:1024.",
)

heading = st.empty()
views = load_runs(choose_runs(runs))
if not views:
    heading.header("Compare runs")
    st.info("Choose two to four runs above.", icon=":material/arrow_upward:")
    st.stop()

recorded = [view for view in views if view.recorded_steps]
common = common_steps(recorded)


@st.fragment
def show_step() -> None:
    """Draw one step; another one draws only this part again."""
    step = choose_step(common, max(v.record.config.steps for v in recorded))
    shares = drawn_shares(recorded, step)
    with heading.container():
        st.header(plain(finding(shares)))
        where = "of each weight" if all(view.shows_weights for view in recorded) else "at each layer's output"
        st.caption(f"Gradients {where}, step {step}. {HOW_TO_READ}")
    show_spectra(recorded, shares, step, key="compare_spectra")
    asked = {"runs": ",".join(view.record.run_id for view in recorded), "step": str(step)}
    with st.container(horizontal=True):
        link_page("layers", "See all exponents as a map", asked)
        link_skips(views)
    READER.ask(steps_beside(recorded, common, step, colour_mode()))


if common:
    show_step()
else:
    heading.header("Compare runs")
    st.info("There is no recorded step that these runs share: only their timelines can be compared.")
for view in views:
    if not view.recorded_steps:
        st.caption(plain(f"{run_label(view.record.config)}: no gradients were recorded in this run."))

labels = run_labels([view.record for view in views])
show_timelines(labels, views)
show_pictures(views)
show_differences(labels, views)
show_problems(views, store.list_broken())
