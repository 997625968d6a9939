"""Policies: what every library's scaler would do with the same steps."""

import streamlit as st

from lsviz.analysis.traces import trace_finding
from lsviz.errors import UserError
from lsviz.ui.text import plain
from lsviz.ui.tracing import (
    DRIVERS,
    LARGEST,
    OVERFLOWS,
    choose_amax,
    choose_pattern,
    choose_policies,
    run_traces,
    show_counters,
    show_traces,
)


@st.fragment
def show_policies() -> None:
    """Draw the page; what one chooses here draws only this again, not the frame around it."""
    heading = st.container()
    driver_column, start_column = st.columns([7, 5], vertical_alignment="bottom")
    driven_by = (
        driver_column.segmented_control(
            "Policies are driven by",
            DRIVERS,
            default=OVERFLOWS,
            required=True,
            key="driven_by",
            bind="query-params",
            help="Back-off policies only see overflows; patent, logmax and histogram look at the gradients.",
        )
        or OVERFLOWS
    )
    same_start = start_column.toggle(
        "Same start for all",
        value=True,
        key="same_start",
        bind="query-params",
        help="S starts at 2⁸ and may grow after 4 clean steps, which compares rules instead of defaults. "
        "Off, every policy starts and waits as its library does.",
    )
    texts = choose_policies(driven_by)
    steps = choose_amax() if driven_by == LARGEST else choose_pattern()
    try:
        policies, traces, amax = run_traces(texts, driven_by, steps, same_start=same_start)
    except UserError as error:
        heading.header("What would each policy do?")
        st.error(plain(error))
        return

    length = len(amax) if driven_by == LARGEST else len(steps)
    heading.header(plain(trace_finding(list(policies), list(traces.values()), length)))
    start = "S starts at 2⁸ and may grow after 4 clean steps. " if same_start else ""
    heading.caption(
        "Shaded: an overflow, whose step is skipped. No training: each policy's own rule over the same "
        f"steps. {start}Lines of the same S are drawn beside each other."
    )
    if policies and length:
        show_traces(policies, traces, length, amax)
        show_counters(policies, traces)


show_policies()
