"""What-if's parts: choosing run and format, the map of layers and scales, and what to do with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.analysis.recommend import Recommendation, recommend
from lsviz.analysis.scalemap import scale_map_frame
from lsviz.analysis.shares import layer_names
from lsviz.analysis.whatif import READ_COLUMNS, Histograms
from lsviz.charts.scalemap import scale_map_figure
from lsviz.exponents import ROUNDING_FORMATS
from lsviz.formats import parse_format
from lsviz.jobs.manager import live_status
from lsviz.runs.reader import Run
from lsviz.training.catalog import TASKS
from lsviz.ui.links import link_page
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure

FORMATS = [fmt.name.upper() for fmt in ROUNDING_FORMATS]
_RANGES = (
    "FP16: from 2⁻²⁴ to 65,504. BF16: from 2⁻¹³³ on, as far as FP32. "
    "The two of FP8: E4M3 from 2⁻⁹ to 448, E5M2 from 2⁻¹⁶ to 57,344."
)


@dataclass(frozen=True)
class Answer:
    """What a run's references say about S. Shared between sessions: never change it.

    Attributes:
        found: What to use.
        frame: `scale_map_frame`.
        layers: The rows of the picture.
        steps: How many recorded steps it is read from.
    """

    found: Recommendation
    frame: pd.DataFrame
    layers: list[str]
    steps: int


def choose_run(runs: Sequence[Run]) -> Run:
    """Ask for a run; those with an FP32 reference come first."""
    ordered = sorted(runs, key=lambda run: run.config.reference_every == 0)  # stable: newest first
    by_id = {run.run_id: run for run in ordered}
    if st.session_state.get("seen") not in by_id:
        asked = st.query_params.get("seen")
        if asked is not None and asked not in by_id:
            st.warning(plain(f"The link asks for a run that is not here: {asked[:80]!r}"))
        st.session_state["seen"] = asked if asked in by_id else ordered[0].run_id
    chosen = st.selectbox(
        "Run",
        list(by_id),
        key="seen",
        format_func=lambda run_id: _option(by_id[run_id]),
        help="Whose FP32 reference gradients are asked. The address bar keeps your choice.",
    )
    st.query_params["seen"] = chosen
    return by_id[chosen]


def choose_format() -> str:
    """Ask for the format that gradients would be cast to, and return its name."""
    chosen = st.segmented_control(
        "Cast to", FORMATS, default="FP16", required=True, key="format", bind="query-params", help=_RANGES
    )
    return (chosen or "FP16").lower()


def answer_of(run: Run, fmt: str) -> Answer:
    """Return what the run's references say, from memory where it has not changed since.

    Raises:
        WhatIfError: It has none.
    """
    return _answer(str(run.path.resolve()), live_status(run).updated, fmt, run)


@st.cache_resource(max_entries=24, show_spinner="Reading the run")
def _answer(path: str, updated: float, fmt: str, _run: Run) -> Answer:
    exponents = _run.exponents(columns=READ_COLUMNS)
    rows, target = Histograms.of(exponents), parse_format(fmt)
    frame = scale_map_frame(rows, target)
    return Answer(
        found=recommend(rows, target, scale_map=frame),
        frame=frame,
        layers=layer_names(exponents),
        steps=int(rows.keys["step"].nunique()),
    )


def show_map(answer: Answer) -> None:
    """Draw layers by loss scales."""
    alt = f"Share of each layer's gradients that a cast would flush, by loss scale. {answer.found.reason}"
    show_figure(scale_map_figure(answer.frame, answer.layers, answer.found, colour_mode()), "scale_map", alt)
    safe = "The frame holds every S that is safe for all tensors, the dotted line the S to use. "
    st.caption(
        "The stronger the orange, the more of a layer's values (its output's or its weights' gradient, "
        "whichever loses more) become zero; hatched: some value becomes Inf. "
        f"{safe if answer.found.window else ''}"
        "It is told of one cast of the FP32 gradients: a real FP16 backward pass flushes more, since what is "
        "lost at one layer never reaches the next."
    )


def show_next(run: Run, answer: Answer) -> None:
    """Offer to try the answer."""
    policy, task = answer.found.policy, run.config.task
    if policy is None:
        return
    st.code(f"lsviz run --task {task} --policy {policy}", language="sh")
    if task in TASKS:
        link_page("launch", f"Launch {task} with {policy}", {"task": task, "policy": policy})


def _option(run: Run) -> str:
    config = run.config
    reference = "" if config.reference_every else " · no reference"
    return f"{config.task} · {run_label(config)} · seed {config.seed} · {run.run_id[-4:]}{reference}"
