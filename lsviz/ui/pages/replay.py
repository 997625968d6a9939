"""Replay: what any other policy would have done with the gradients that a run recorded."""

import streamlit as st

from lsviz.ui.choosing import choose_run
from lsviz.ui.replaying import (
    choose_replayed,
    read_ahead,
    read_series,
    replay_policies,
    replays_finding,
    show_lost,
    show_replays,
    show_table,
)
from lsviz.ui.text import plain
from lsviz.ui.widgets import heading_place, runs_or_stop, show_problems


@st.fragment
def show_replay() -> None:
    """Draw the page; what one chooses here draws only this again, not the frame around it."""
    store, runs = runs_or_stop(
        "No run to replay yet",
        "Launch one: it keeps the largest gradient of every layer at every step.",
    )
    heading = heading_place("replay")
    run = choose_run(runs, "Whose gradients the policies are shown.")
    policies = choose_replayed(run)
    read = read_series(run)
    replays = replay_policies(read, policies)
    heading.header(plain(replays_finding(read, replays)))
    heading.caption(
        "No training: each policy is shown the gradients that the run recorded. That is exact for as long as "
        "it skips the steps that the run skipped (and flushes about as much); from then on training would "
        "have gone another way, and the line is dotted."
    )
    if run.status.live:
        st.info(
            "This run is still going: what stands here is of its steps so far.", icon=":material/schedule:"
        )
    show_replays(read, replays)
    show_table(read, replays)
    show_lost(read, replays)
    show_problems([], store.list_broken(), read.problems)
    read_ahead(runs, run, policies)


show_replay()
