"""Layers' parts: what to show, the map of all layers at one step, and one layer's history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lsviz.analysis.compare import run_label, run_labels
from lsviz.analysis.findings import RunShares
from lsviz.analysis.layers import (
    LAYER_COLUMNS,
    all_names,
    layers_finding,
    layers_frame,
    named_like,
    telling_names,
    thinned_steps,
    tidy_frame,
    told_shares,
)
from lsviz.charts.labels import row_names
from lsviz.charts.layerhistory import layer_history_figure, step_lines
from lsviz.charts.layerparts import LayerFacet
from lsviz.charts.layers import MOST_ROWS, layers_figure, row_frames
from lsviz.charts.theme import Mode, policy_colour
from lsviz.formats import FP16
from lsviz.jobs.manager import live_status
from lsviz.runs.reader import Run
from lsviz.runs.showing import showable
from lsviz.ui.links import link_page
from lsviz.ui.marking import Marks
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure

KINDS: Final = {"outputs": "activation_grad", "weights": "weight_grad"}
NOUNS: Final = {"activation_grad": "layer", "weight_grad": "weight"}
REFERENCE, RECORDED = "FP32 x S", "recorded"
_KINDS_HELP: Final = (
    "Outputs: the gradient at each layer's output, as it travels down the model. "
    "Weights: the gradient of each parameter, which the update takes."
)
_VALUES_HELP: Final = (
    "FP32 x S: what the FP32 reference has, times the loss scale S, so that one sees what FP16 flushed. "
    "Recorded: only what the backward pass really held."
)


@dataclass(frozen=True)
class Shown:
    """What the controls ask for.

    Attributes:
        kind: ``activation_grad`` or ``weight_grad``.
        expected: The reference times S in place of what was recorded.
        wanted: Which layers, parts of their names.
    """

    kind: str
    expected: bool
    wanted: str

    @property
    def noun(self) -> str:
        """What a row is called."""
        return NOUNS[self.kind]


@dataclass(frozen=True)
class StepMaps:
    """Runs at one step.

    Attributes:
        runs: Left to right.
        facets: One of each run.
        shares: What is told of each.
        names: All rows that the filter leaves, lowest layer first.
    """

    runs: Sequence[Run]
    facets: list[LayerFacet]
    shares: list[RunShares]
    names: list[str]


def choose_names() -> str:
    """Ask which layers, by parts of their names."""
    return st.text_input(
        "Only layers named like",
        key="layers",
        bind="query-params",
        max_chars=200,
        placeholder="all; e.g. attention, head",
        help="Parts of names, comma-separated. Any of them is enough.",
    )


def choose_shown(wanted: str) -> Shown:
    """Ask which gradients, and which of their two records."""
    kind_column, values_column = st.columns([5, 6])
    with kind_column:
        kind = st.segmented_control(
            "Gradients of",
            list(KINDS),
            default="outputs",
            required=True,
            key="kind",
            bind="query-params",
            help=_KINDS_HELP,
        )
    with values_column:
        values = st.segmented_control(
            "Values",
            [REFERENCE, RECORDED],
            default=REFERENCE,
            required=True,
            key="values",
            bind="query-params",
            help=_VALUES_HELP,
        )
    return Shown(KINDS.get(kind or "", "activation_grad"), values != RECORDED, wanted)


def with_gradients(runs: Sequence[Run]) -> tuple[list[Run], list[int]]:
    """Return the runs that have gradients, and the recorded steps they share; tell of the others.

    Of each run the steps that have a reference count, or all where none has one.
    """
    steps = {run.run_id: _steps(*_version(run), run) for run in runs}
    for run in runs:
        if not steps[run.run_id]:
            st.caption(plain(f"{run_label(run.config)}: no gradients were recorded in this run."))
    recorded = [run for run in runs if steps[run.run_id]]
    if len(recorded) == 1:
        return recorded, steps[recorded[0].run_id]
    return recorded, sorted(set.intersection(*(set(steps[r.run_id]) for r in recorded))) if recorded else []


def step_maps(runs: Sequence[Run], step: int, shown: Shown) -> StepMaps:
    """Read the runs at one step."""
    facets, shares = [], []
    for run, label in zip(runs, run_labels([run.record for run in runs]), strict=True):
        config = run.config
        layers = layers_frame(
            _at_step(*_version(run), step, run),
            shown.kind,
            FP16,
            expected=shown.expected,
            half=config.precision == "fp16",
        )
        told = told_shares(layers, config.precision, config.policy)
        words = told.scale_words if len(layers) else "not recorded"
        if shown.expected and not layers["compared"].any():
            words += ", as recorded: no reference"
        shares.append(told)
        colour = policy_colour(config.policy, config.precision, colour_mode())
        facets.append(LayerFacet(label, words, colour, layers))
    return StepMaps(runs, facets, shares, named_like(all_names([f.layers for f in facets]), shown.wanted))


def headline(maps: StepMaps, shown: Shown) -> str:
    """Return what the map shows in a sentence."""
    return layers_finding(maps.shares, shown.noun)


def how_to_read(step: int, shown: Shown) -> str:
    """Return what stands under the headline."""
    return (
        f"Step {step:,}. A row is a {shown.noun}, a cell an exponent: the stronger, the more values (by "
        "powers of ten). Orange: flushed to zero. Amber, blue: kept. Grey: too small for FP16, "
        "kept in FP32. Red-brown: Inf. Click a row for its history."
    )


def link_limits(runs: Sequence[Run]) -> None:
    """Lead on to what one asks next of these layers, of each run apart."""
    with st.container(horizontal=True):
        for run, label in zip(runs, run_labels([run.record for run in runs]), strict=True):
            words = "Which layer limits S?" if len(runs) == 1 else f"Which layer limits S of {label}?"
            link_page("blame", words, {"seen": run.run_id})


def show_no_match(shown: Shown) -> None:
    """Say that there is no row to draw."""
    wanted = shown.wanted
    here = next(word for word, kind in KINDS.items() if kind == shown.kind)
    other = next(word for word, kind in KINDS.items() if kind != shown.kind)
    none = f"No gradients of {here} were recorded; choose {other}."
    st.info(plain(f"No {shown.noun} here is named like {wanted!r}." if wanted else none))


def choose_layer(maps: StepMaps) -> str:
    """Return the layer whose history is shown: the one clicked, linked to or chosen, else the worst."""
    asked = st.session_state.get("layer", st.query_params.get("layer"))
    if asked not in maps.names:
        if asked is not None and "layer" in st.query_params:
            st.warning(plain(f"There is no such layer among these: {asked[:80]!r}"))
        worst = telling_names([facet.layers for facet in maps.facets], maps.names, 1, "")
        st.session_state["layer"] = worst[0]
    elif "layer" not in st.session_state:
        st.session_state["layer"] = asked
    chosen: str = st.session_state["layer"]
    return chosen


def show_layers(maps: StepMaps, layer: str, step: int, shown: Shown) -> None:
    """Draw the map; a click on a row chooses its layer."""
    frames = [facet.layers for facet in maps.facets]
    names = telling_names(frames, maps.names, MOST_ROWS, layer)
    left_out = len(maps.names) - len(names)
    mode = colour_mode()
    drawn = (*(_version(run) for run in maps.runs), step, shown.kind, shown.expected)
    figure = _map_figure(drawn, tuple((f.title, f.colour) for f in maps.facets), names, mode, maps.facets)
    framed = row_frames(len(frames), names.index(layer), mode)
    marks = Marks(framed, names, on_row=_take_click)
    alt = f"Gradients of each {shown.noun} by exponent at step {step}. {headline(maps, shown)}"
    show_figure(figure, "layers_map", alt, data=lambda: _tidy(maps, frames), marks=marks)
    if left_out:
        st.caption(f"The {left_out:,} {shown.noun}s that lose least are left out: find them by name above.")


def ask_layer(maps: StepMaps) -> None:
    """Offer the rows as a list too: for the keyboard, and for those that are not drawn."""
    st.selectbox(
        "History of",
        maps.names,
        key="layer",
        format_func=lambda name: showable(name) or "(model)",
        bind="query-params",
        help="Or click a row above.",
    )


def show_history(maps: StepMaps, layer: str, step: int, shown: Shown) -> None:
    """Draw one layer over the steps."""
    facets = []
    for run, facet in zip(maps.runs, maps.facets, strict=True):
        layers = _history(*_version(run), layer, shown.kind, shown.expected, run)
        facets.append(LayerFacet(facet.title, "", facet.colour, layers))
    mode = colour_mode()
    drawn = (*(_version(run) for run in maps.runs), layer, shown.kind, shown.expected)
    figure = _history_figure(drawn, tuple((f.title, f.colour) for f in facets), mode, facets)
    name = row_names([layer])[0]
    alt = f"Exponents of {layer} over the recorded steps, one panel a run."
    frames = [facet.layers for facet in facets]
    marks = Marks(step_lines(len(facets), step, mode))
    show_figure(figure, "layer_history", alt, data=lambda: _tidy(maps, frames), marks=marks, second=True)
    st.caption(
        plain(
            f"{name} at every recorded step, or 400 of them. Colours as above; dashed: the step shown there."
        )
    )


def _take_click(layer: str) -> None:
    """Put the clicked row's layer into the list."""
    st.session_state["layer"] = layer


def _tidy(maps: StepMaps, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    tables = [tidy_frame(frame, run.run_id) for run, frame in zip(maps.runs, frames, strict=True)]
    return pd.concat(tables, ignore_index=True)


def _version(run: Run) -> tuple[str, float]:
    return str(run.path.resolve()), live_status(run).updated


@st.cache_resource(max_entries=64, show_spinner=False)
def _steps(path: str, updated: float, _run: Run) -> list[int]:
    return _run.recorded_steps(reference=True) or _run.recorded_steps()


@st.cache_resource(max_entries=256, show_spinner=False)
def _at_step(path: str, updated: float, step: int, _run: Run) -> pd.DataFrame:
    if not _run.small:
        return _run.exponents(steps=[step], columns=LAYER_COLUMNS)
    rows = _all_rows(path, updated, _run)
    return rows[rows["step"].to_numpy() == step].reset_index(drop=True)


@st.cache_resource(max_entries=8, show_spinner=False)
def _all_rows(path: str, updated: float, _run: Run) -> pd.DataFrame:
    """Return a small run's rows, of which a step or a tensor is a part: a read takes them all anyway."""
    return _run.exponents(columns=LAYER_COLUMNS)


@st.cache_resource(max_entries=32, show_spinner=False)
def _history(path: str, updated: float, tensor: str, kind: str, expected: bool, _run: Run) -> pd.DataFrame:
    rows = _rows_of(path, updated, tensor, kind, _run)
    half = _run.config.precision == "fp16"
    return layers_frame(thinned_steps(rows, compared=expected), kind, FP16, expected=expected, half=half)


def _rows_of(path: str, updated: float, tensor: str, kind: str, run: Run) -> pd.DataFrame:
    if not run.small:
        return run.exponents(tensor=tensor, kind=kind, columns=LAYER_COLUMNS)
    rows = _all_rows(path, updated, run)
    mine = (rows["tensor"].to_numpy(object) == tensor) & (rows["kind"].to_numpy(object) == kind)
    return rows[mine].reset_index(drop=True)


@st.cache_resource(max_entries=32, show_spinner=False)
def _map_figure(
    drawn: tuple[object, ...],
    named: tuple[tuple[str, str], ...],
    names: list[str],
    mode: Mode,
    _facets: list[LayerFacet],
) -> go.Figure:
    """Return the same figure again at a click, which only moves the frame over it."""
    return layers_figure(_facets, names, mode, FP16)


@st.cache_resource(max_entries=32, show_spinner=False)
def _history_figure(
    drawn: tuple[object, ...], named: tuple[tuple[str, str], ...], mode: Mode, _facets: list[LayerFacet]
) -> go.Figure:
    """Return the same figure again at every step, which only moves the line over it."""
    return layer_history_figure(_facets, mode, FP16)
