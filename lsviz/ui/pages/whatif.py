"""What-if: which loss scale a run's own gradients ask for, and what any other would do."""

import streamlit as st

from lsviz.analysis.whatif import WhatIfError
from lsviz.ui.choosing import choose_run
from lsviz.ui.text import plain
from lsviz.ui.whatif import (
    GAPS,
    answer_of,
    choose_closer,
    choose_format,
    show_finding,
    show_gaps,
    show_map,
    show_next,
    show_scale,
    show_warnings,
    show_window,
)
from lsviz.ui.widgets import heading_place, runs_or_stop, show_problems


@st.fragment
def show_answer() -> None:
    """Draw the page; what one chooses here draws only this again, not the frame around it."""
    store, runs = runs_or_stop(
        "No run to ask yet",
        "Launch one: every recorded step then has an FP32 reference beside it.",
    )
    heading = heading_place("whatif")
    run_column, format_column = st.columns([6, 5], vertical_alignment="bottom")
    with run_column:
        with_reference = sorted(runs, key=lambda run: run.config.reference_every == 0)  # stable: newest first
        run = choose_run(with_reference, "Whose FP32 reference gradients are asked.")
    with format_column:
        fmt = choose_format()
    try:
        answer = answer_of(run, fmt)
    except WhatIfError as error:
        heading.header("Nothing can be told of this run")
        st.info(plain(error), icon=":material/info:")
        return

    show_finding(heading, run, answer)
    show_window(answer, fmt)
    show_warnings(answer)
    show_next(run, answer)
    if choose_closer(answer) == GAPS:
        show_gaps(answer, fmt)
    else:
        show_map(answer)
    show_scale(answer, fmt)
    show_problems([], store.list_broken())


show_answer()
