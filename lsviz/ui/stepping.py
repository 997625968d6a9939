"""Choosing a recorded step: a slider, and a button and a key to go one back or on."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import streamlit as st

from lsviz.analysis.view import early_step

MOST_OPTIONS: Final = 500
"""Of more steps the slider is told only their range: a browser takes its time over thousands of words."""
_HELP: Final = "Which training step to show. Only recorded steps can be chosen. Keys: ← and →."


def choose_step(steps: Sequence[int], run_length: int) -> int:
    """Ask which recorded step to show; it starts early in the run, where layers are decided.

    A step that is not recorded, in the address or after a change of runs, becomes the nearest that is.

    Args:
        steps: The recorded ones, in order.
        run_length: How many steps the run has.
    """
    if len(steps) < 2:
        return steps[0] if steps else 0
    early = early_step(steps, run_length)
    asked = st.session_state.get("step", _whole(st.query_params.get("step")))
    if asked is not None and asked not in steps:
        st.session_state["step"] = nearest_step(steps, asked)
    shown = st.session_state.get("step", early if asked is None else asked)
    with st.container(
        key="step_controls", horizontal=True, gap="small", vertical_alignment="bottom", width="stretch"
    ):
        _button(steps, shown, -1)
        chosen = _slider(steps, early)
        _button(steps, shown, 1)
    return nearest_step(steps, chosen)


def nearest_step(steps: Sequence[int], step: int) -> int:
    """Return the recorded step nearest to any; of two, the earlier.

    Args:
        steps: The recorded ones, in order; not empty.
        step: Any.
    """
    at = bisect_left(steps, step)
    return min(steps[max(0, at - 1) : at + 1], key=lambda recorded: abs(recorded - step))


def _slider(steps: Sequence[int], early: int) -> int:
    shared = {"value": early, "key": "step", "bind": "query-params", "help": _HELP}
    if len(steps) <= MOST_OPTIONS:
        return st.select_slider("Step", options=list(steps), **shared)
    width = math.gcd(*(later - step for step, later in pairwise(steps)))
    return st.slider("Step", steps[0], steps[-1], step=width, **shared)


def _button(steps: Sequence[int], shown: int, places: int) -> None:
    """Draw the button to the recorded step before or after the one shown."""
    at = bisect_left(steps, shown) + places
    there = 0 <= at < len(steps)
    back = places < 0
    st.button(
        "",
        key="step_back" if back else "step_on",
        type="tertiary",
        shortcut="Left" if back else "Right",
        help="The recorded step before" if back else "The recorded step after",
        disabled=not there,
        on_click=_go,
        args=(steps[at] if there else shown,),
    )


def _go(step: int) -> None:
    st.session_state["step"] = step


def _whole(text: str | None) -> int | None:
    """Return a number of the address; it is untrusted, and may be none."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None
