"""Blame: which gradient overflowed first at each skipped step, and which layer limits S for all."""

import streamlit as st

from lsviz.ui.blaming import (
    examine_ahead,
    examine_run,
    show_finding,
    show_headroom,
    show_next,
    show_one_scale,
    show_skipped,
    skipping_first,
)
from lsviz.ui.choosing import choose_run
from lsviz.ui.widgets import heading_place, runs_or_stop, show_problems


@st.fragment
def show_blame() -> None:
    """Draw the page; what one chooses here draws only this again, not the frame around it."""
    store, runs = runs_or_stop(
        "No run to examine yet",
        "Launch one: it keeps the largest gradient of every layer at every step.",
    )
    heading = heading_place("blame")
    examined = "Whose gradients are examined; your own runs come first, then samples with skipped steps."
    in_order = skipping_first(runs)
    run = choose_run(in_order, examined)
    found = examine_run(run)
    show_finding(heading, found)
    show_headroom(found)
    show_skipped(found)
    show_next(run, found)
    show_one_scale(found)
    show_problems([], store.list_broken(), found.problems)
    examine_ahead(in_order, run)


show_blame()
