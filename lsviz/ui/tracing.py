"""Policies' parts: which policies, which steps, and what each would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from lsviz.analysis.findings import format_powers
from lsviz.analysis.traces import counters_frame, traces_frame
from lsviz.charts.theme import policy_colour
from lsviz.charts.traces import trace_figure
from lsviz.errors import UserError
from lsviz.policies import (
    POLICIES,
    Policy,
    Trace,
    format_policy,
    parse_amax,
    parse_policy,
    trace_amax,
    trace_overflows,
)
from lsviz.ui.links import link_page
from lsviz.ui.policy_form import canonical_policies, policy_form
from lsviz.ui.state import colour_mode, set_url_list, url_list
from lsviz.ui.text import plain
from lsviz.ui.widgets import FEW_ROWS, show_figure, show_rows

OVERFLOWS: Final = "overflows"
LARGEST: Final = "largest gradients"
DRIVERS: Final = (OVERFLOWS, LARGEST)
FIRST_POLICIES: Final = {
    OVERFLOWS: ("gradscaler", "megatron", "deepspeed"),
    LARGEST: ("gradscaler", "patent", "logmax", "histogram"),
}
EXAMPLES: Final = {
    "now and then": "OO....O.........O.O.....",
    "start too high": "OOOOOOO.........O.......",
    "every third step": "..O..O..O..O..O..O..O..O",
    "a burst": "............OOOOOO......",
    "all clean": "........................",
}
FIRST_AMAX: Final = (
    "2^-3 2^-4 2^-5 2^-5 2^-6 2^-7 2^-8 2^-8 2^-9 2^-10 2^-10 2^-11 "
    "2^-11 2^-12 2^-4 2^-12 2^-12 inf 2^-13 2^-13 2^-13 2^-14 2^-14 2^-14"
)
MAX_STEPS: Final = 2000
MAX_CLICKED: Final = 60
SAME_SCALE, SAME_INTERVAL = 2.0**8, 4


def choose_policies(driven_by: str) -> list[str]:
    """Ask for policies, a choice of its own for each driver; the URL holds it.

    Returns:
        Canonical string forms, each once; what is no policy is told and left out.
    """
    key = f"traced.{driven_by}"
    kept: dict[str, list[str]] = st.session_state.setdefault("traced.kept", {})
    asked = url_list("policies", ";")
    if asked and asked != st.session_state.get("traced.written"):
        kept[driven_by] = asked
        st.session_state.pop(key, None)
    if key not in st.session_state:
        st.session_state[key] = kept.get(driven_by, list(FIRST_POLICIES[driven_by]))
    added = st.session_state.pop("traced.add", None)
    st.session_state[key] = canonical_policies([*st.session_state[key], *([added] if added else [])])
    chosen_column, form_column = st.columns([9, 2], vertical_alignment="bottom")
    with form_column, st.popover("Add one", icon=":material/add:", width="stretch"):
        text = policy_form("traced.form", "megatron")
        if st.button("Add", type="primary", width="stretch", disabled=not _is_policy(text)):
            st.session_state["traced.add"] = text
            st.rerun()
    options = list(dict.fromkeys([*POLICIES, *st.session_state[key]]))
    chosen: list[str] = chosen_column.multiselect(
        "Policies",
        options,
        key=key,
        accept_new_options=True,
        placeholder="Choose policies, or type one: megatron:hysteresis=1",
        help="Every library's own rule. Typed ones may have settings, as on the command line.",
    )
    chosen = canonical_policies(chosen)
    kept[driven_by] = chosen
    st.session_state["traced.written"] = chosen
    set_url_list("policies", chosen, ";")
    return chosen


def choose_pattern() -> str:
    """Ask which steps overflow: typed, clicked or from an example."""
    if "pattern" not in st.session_state:
        st.session_state["pattern"] = st.query_params.get("pattern", EXAMPLES["now and then"])
    _clicked_from_pattern()
    pattern = st.text_input(
        "Steps: O overflows, . is clean",
        key="pattern",
        bind="query-params",
        max_chars=MAX_STEPS,
        help="One character a step. Below you can click steps too.",
    )
    st.pills(
        "Examples",
        list(EXAMPLES),
        key="traced.example",
        on_change=_take_example,
        label_visibility="collapsed",
    )
    if len(pattern) <= MAX_CLICKED and set(pattern) <= {"O", "."}:
        st.pills(
            "Click the steps that overflow",
            range(len(pattern)),
            selection_mode="multi",
            key="traced.clicked",
            on_change=_pattern_from_clicked,
        )
    return pattern


def choose_amax() -> str:
    """Ask for the largest unscaled gradient of each step."""
    if "amax" not in st.session_state:
        st.session_state["amax"] = st.query_params.get("amax", FIRST_AMAX)
    return st.text_area(
        "Largest unscaled |gradient| of each step",
        key="amax",
        bind="query-params",
        height=80,
        help="Numbers such as 0.01, 2^-10 or inf. A step overflows where it times S reaches 65,520.",
    )


def run_traces(
    texts: Sequence[str], driven_by: str, steps: str, *, same_start: bool
) -> tuple[dict[str, Policy], dict[str, Trace], list[float]]:
    """Return each policy and its trace by label, and the series of largest gradients.

    Raises:
        UserError: A policy, the pattern or a number is wrong.
    """
    amax = parse_amax(steps) if driven_by == LARGEST else []
    if max(len(amax), len(steps) if driven_by == OVERFLOWS else 0) > MAX_STEPS:
        raise UserError(f"the page shows up to {MAX_STEPS:,} steps; lsviz trace takes any number")
    policies = {text: _same_start(parse_policy(text)) if same_start else parse_policy(text) for text in texts}
    traces = {
        text: trace_amax(policy, amax) if driven_by == LARGEST else trace_overflows(policy, steps)
        for text, policy in policies.items()
    }
    return policies, traces, amax


def show_traces(
    policies: dict[str, Policy], traces: dict[str, Trace], steps: int, amax: Sequence[float]
) -> None:
    """Draw S of every policy over the steps."""
    mode = colour_mode()
    colours = {label: policy_colour(label, "fp16", mode) for label in policies}
    frame = traces_frame(policies, traces)
    figure = trace_figure(frame, traces, colours, steps, mode, amax or None)
    show_figure(figure, "traces", f"Loss scale over {steps} steps of {', '.join(policies)}.", frame)
    for label, trace in traces.items():
        if trace.warning:
            st.warning(plain(f"{label}: {trace.warning}."), icon=":material/warning:")


def show_counters(policies: dict[str, Policy], traces: dict[str, Trace]) -> None:
    """Show what one policy remembers at every step, beside its rule and source."""
    key = "traced.remembers"
    if st.session_state.get(key) not in policies:
        st.session_state[key] = next(iter(policies))
    label = st.segmented_control("What it remembers, step by step", list(policies), required=True, key=key)
    policy = policies[label]
    counters, rule = st.columns([7, 5], gap="large")
    frame, alt = counters_frame(policy, traces[label]), f"S and counters of {label} at every step"
    with counters:
        if len(frame) <= FEW_ROWS:
            show_rows(frame, alt, height=300)
        else:
            st.dataframe(frame, hide_index=True, height=300, alt=alt)
    with rule:
        st.markdown(f"**{plain(policy.name)}** {plain(format_powers(policy.rule))}")
        st.caption(f"Read in: {plain(policy.source)}.")
        for note in policy.notes():
            st.caption(f":material/info: {plain(note)}")
        st.caption(f"As traced: `{format_policy(policy)}`")
        link_page("launch", "Train with it", {"policy": label})


def _same_start(policy: Policy) -> Policy:
    """Begin alike: settings left at their defaults take a start and an interval that show the rule."""
    cls = type(policy)
    shared = {"init_scale": SAME_SCALE, "growth_interval": SAME_INTERVAL}
    changes = {
        key: value
        for key, value in shared.items()
        if key in cls.settings() and getattr(policy, key) == cls.model_fields[key].default
    }
    if "max_interval" in cls.settings():
        changes.pop("growth_interval", None)  # it climbs a ladder of its own
    try:
        return parse_policy(format_policy(policy.model_copy(update=changes)))
    except UserError:  # its own bounds leave no room for that start
        return policy


def _is_policy(text: str) -> bool:
    try:
        parse_policy(text)
    except UserError:
        return False
    return True


def _take_example() -> None:
    example = st.session_state.get("traced.example")
    if example:
        st.session_state["pattern"] = EXAMPLES[example]


def _clicked_from_pattern() -> None:
    pattern = st.session_state["pattern"]
    st.session_state["traced.clicked"] = [i for i, c in enumerate(pattern) if c == "O"]


def _pattern_from_clicked() -> None:
    clicked = set(st.session_state["traced.clicked"])
    length = len(st.session_state["pattern"])
    st.session_state["pattern"] = "".join("O" if i in clicked else "." for i in range(length))
    st.session_state["traced.example"] = None
