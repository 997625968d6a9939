"""What-if's parts: choosing run and format, the map of layers and scales, and what to do with the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.gap import gap_finding, layer_gap_frame, other_format_finding, predicted_frame
from lsviz.analysis.limits import Limits, advice, judge_run, own_scale_finding
from lsviz.analysis.recommend import Recommendation
from lsviz.analysis.scalemap import SCALES, layer_map_frame
from lsviz.analysis.series import run_format
from lsviz.analysis.shares import flushed_frame, layer_names
from lsviz.analysis.whatif import SHARES, Histograms, check_scale, whatif_frame
from lsviz.analysis.window import (
    NOTHING_LOST,
    layer_outputs,
    nearest_scale,
    unscaled_frame,
    window_finding,
    window_frame,
)
from lsviz.charts.pairs import LayerPair, pairs_figure
from lsviz.charts.scalemap import scale_map_figure
from lsviz.charts.window import window_figure
from lsviz.errors import UserError
from lsviz.exponents import ROUNDING_FORMATS
from lsviz.formats import parse_format
from lsviz.jobs.manager import live_status
from lsviz.policies import format_number, parse_number
from lsviz.runs.reader import Run
from lsviz.training.catalog import TASKS
from lsviz.ui.links import link_page
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain, plain_frame
from lsviz.ui.widgets import show_cautions, show_command, show_figure

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

MAP = "all layers at every S"
GAPS = "predicted and actual"
HALF = ("fp16", "bf16")
FORMATS = [fmt.name.upper() for fmt in ROUNDING_FORMATS]
_RANGES = (
    "FP16: from 2⁻²⁴ to 65,504. BF16: from 2⁻¹³³ on, as far as FP32. "
    "The two of FP8: E4M3 from 2⁻⁹ to 448, E5M2 from 2⁻¹⁶ to 57,344."
)

_RULE = (
    "A cast rounds each FP32 gradient to the format once. Every S between the two limits serves. The S to "
    "use is the middle between them, two binades (doublings) or more under the upper one where there is "
    "room: at other steps gradients may be larger."
)
_OFFERED = "_offered_scale"
_COLUMNS = {
    "tensor": "A module: the gradient at its output. A parameter: its own gradient.",
    "kind": "Of a module's output (activation) or of a parameter (weight).",
    "flushed": "Not zero in FP32, zero after the cast; share of all values.",
    "subnormal": "Below the format's smallest normal number: kept, with fewer digits.",
    "normal": "Kept with all digits.",
    "overflow": "Too large: Inf after the cast.",
    "zero before": "Zero in FP32 too, as behind a ReLU or a mask: no S matters.",
}


@dataclass(frozen=True)
class Answer:
    """What a run's references say about S. Shared between sessions: never change it.

    Attributes:
        found: What to use.
        limits: Which layers limit S.
        cautions: What to mind before one follows it, a sentence each.
        frame: `scale_map_frame`.
        ceilings: Layer -> the largest S that its own gradients allow over all steps, where that is known.
        layers: The rows of the picture.
        gaps: `layer_gap_frame`; empty where nothing in that format was recorded beside a reference.
        beside: Whether the run would have kept more in that format; empty where it computed in it.
        advice: What to do about S (`lsviz.analysis.limits.advice`).
        keeps: Whether that is to leave it as it was.
        scale: The S to use (`lsviz.analysis.limits.Judged.scale`).
        reason: Why that one, in two sentences.
        own: What the run's own S cost, where it does not serve.
        caution: What to know of histograms that lack what was flushed; empty of others.
        pooled: Each tensor's values of all recorded steps together.
        spectrum: `unscaled_frame` of the layers' outputs.
        window: `window_frame` of them.
    """

    found: Recommendation
    limits: Limits
    cautions: list[str]
    frame: pd.DataFrame
    ceilings: dict[str, float]
    layers: list[str]
    gaps: pd.DataFrame
    beside: str
    advice: str
    keeps: bool
    scale: float | None
    reason: str
    own: str
    caution: str
    pooled: Histograms
    spectrum: pd.DataFrame
    window: pd.DataFrame


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
    target = parse_format(fmt)
    judged = judge_run(_run, target)
    rows, found, frame = judged.asked
    exponents = judged.exponents
    layers = layer_names(exponents)
    precision = _run.config.precision
    same, half = precision == fmt, precision in HALF
    pooled = rows.pooled()
    outputs = layer_outputs(pooled, layers)
    predicted = predicted_frame(rows, flushed_frame(exponents if half else exponents.head(0)), target)
    computed = run_format(precision)
    return Answer(
        found=found,
        limits=judged.limits,
        cautions=judged.cautions,
        frame=frame,
        ceilings=judged.layer_ceilings,
        layers=layers,
        gaps=layer_gap_frame(predicted if same else predicted.head(0), layers),
        beside=""
        if same
        else other_format_finding(
            predicted, layers, judged.blame, computed=computed, cast=target, steps=len(judged.steps)
        ),
        advice=advice(_run.config, judged),
        keeps=judged.keeps is not None,
        scale=judged.scale,
        reason=judged.reason,
        own=own_scale_finding(_run.config, judged) if same else "",
        caution=rows.caution,
        pooled=pooled,
        spectrum=unscaled_frame(outputs, layers),
        window=window_frame(outputs, layers, target),
    )


def show_window(answer: Answer, fmt: str) -> None:
    """Draw the layers' gradients under the format's window, which a slider moves with S."""
    if answer.window.empty:
        return
    first = nearest_scale(_asked() or answer.scale or 1.0)
    target = parse_format(fmt)
    alt = f"Gradients of each layer's output and {target.name.upper()}'s range. " + window_finding(
        answer.window, first, target
    )
    figure = window_figure(answer.spectrum, answer.window, answer.layers, target, first, colour_mode())
    show_figure(figure, "window", alt, answer.window)
    st.caption(
        "Drag the slider: the gradients of all recorded steps stay where they are, and S moves "
        f"{target.name.upper()}'s range over them. Shares are of one cast of the non-zero "
        "values at a layer's output; the limits above and the map below count its weights' gradients too. A "
        "link to this page begins at the S that is asked for at its end."
    )


def choose_closer(answer: Answer) -> str:
    """Ask what to see below: the map of all S, or what was really flushed, where that is known."""
    options = [MAP] if answer.gaps.empty else [MAP, GAPS]
    if st.session_state.get("closer", MAP) not in options:
        del st.session_state["closer"]
    chosen = st.segmented_control(
        "Closer",
        options,
        default=MAP,
        required=True,
        key="closer",
        bind="query-params",
        label_visibility="collapsed",
    )
    return chosen or MAP


def show_map(answer: Answer) -> None:
    """Draw layers by loss scales."""
    name = answer.found.format.upper()
    rows = layer_map_frame(answer.frame, answer.layers)
    if rows["flushed"].max() < NOTHING_LOST and rows["overflow"].max() == 0:
        low, high = (format_scale(SCALES[end]) for end in (0, -1))
        st.markdown(
            f"At no S from {low} to {high} does {name} flush a layer's gradient, and nothing overflows: "
            "there is nothing to draw."
        )
        return
    alt = f"Share of each layer's gradients that a cast would flush, by loss scale. {answer.reason}"
    found = replace(answer.found, best=answer.scale)
    figure = scale_map_figure(answer.frame, answer.layers, found, colour_mode(), answer.ceilings)
    show_figure(figure, "scale_map", alt, answer.frame, second=True)
    safe = (
        "The frame holds every S that is safe: no tensor loses more than "
        f"{format_percent(answer.found.threshold)} of its values or overflows. Dotted: the S to use. "
    )
    st.caption(
        "The stronger the orange, the more of a layer's values (its output's or its weights' gradient, "
        "whichever loses more) become zero; hatched: some value becomes Inf, at one of the steps that tell. "
        f"{safe if answer.found.safe else ''}"
        f"It is told of one cast of the FP32 gradients: a real {name} backward pass can flush more, since "
        "what is lost at one layer never reaches the next."
    )


def show_gaps(answer: Answer, fmt: str) -> None:
    """Draw what one cast would flush beside what was really flushed, layer by layer."""
    if answer.gaps.empty:
        return
    finding = gap_finding(answer.gaps)
    st.markdown(plain(finding))
    pairs = [
        LayerPair(
            row["layer"],
            row["predicted"],
            row["actual"],
            f"{row['layer']}: a cast would flush {format_percent(row['predicted'])}, "
            f"really flushed {format_percent(row['actual'])}",
        )
        for row in answer.gaps.to_dict("records")
    ]
    figure = pairs_figure(
        pairs,
        ring="one cast of the FP32 gradient",
        dot=f"really flushed by {fmt.upper()}",
        mode=colour_mode(),
    )
    alt = f"Flushed share of each layer, predicted and actual. {finding}"
    show_figure(figure, "gaps", alt, answer.gaps, second=True)
    st.caption("At the S that was in force; means over the recorded steps, at each layer's output.")


def show_scale(answer: Answer, fmt: str) -> None:
    """Ask for any S and list what a cast would do to each tensor there, with bounds where it is not exact."""
    # Drawn once it is open: a table is a third of what a browser must load for this page.
    asked = st.expander(
        "Every tensor at one S", expanded=_asked_text() is not None, key="every_tensor", on_change="rerun"
    )
    if not asked.open:
        if "ask" in st.session_state:
            st.session_state["ask"] = st.session_state["ask"]  # else it is forgotten with its field
        return
    with asked:
        _follow(format_number(answer.scale or 1.0))
        text = st.text_input(
            "Loss scale S",
            key="ask",
            bind="query-params",
            max_chars=30,
            help="From 2^-10 to 2^40, as 1000 or 2^10. Powers of two are exact; others have bounds.",
        )
        try:
            scale = check_scale(float(parse_number(text)))
        except UserError as error:
            st.error(plain(error))
            return
        except ValueError:
            st.error(plain(f"{text!r} is no number such as 1000 or 2^10"))
            return
        frame = whatif_frame(answer.pooled, [scale], parse_format(fmt))
        table = frame[["tensor", "kind"]].assign(kind=frame["kind"].str.replace("_", " "))
        for name in SHARES:
            table[name] = [_bounded(row, name) for row in frame.to_dict("records")]
        table["zero before"] = [format_percent(share) for share in frame["structural_zero"]]
        st.dataframe(
            plain_frame(table),
            hide_index=True,
            height=320,
            column_config={name: st.column_config.TextColumn(help=words) for name, words in _COLUMNS.items()},
            alt=f"Shares of each tensor at S = {text}",
        )
        if not frame["exact"].all():
            st.caption(
                "Bounds: exponents alone do not tell what becomes of values between two powers of two, or of "
                "what lies at an end of the format."
            )


def _asked() -> float | None:
    """Return the S that is asked for below, where it can be told."""
    text = _asked_text()
    if text is None:
        return None
    try:
        return check_scale(float(parse_number(text)))
    except (UserError, ValueError):
        return None


def _asked_text() -> str | None:
    """Return what was written into the field below, or stands in the link; None where it is our offer."""
    text: str | None = st.session_state.get("ask", st.query_params.get("ask"))
    return None if text == st.session_state.get(_OFFERED) else text


def _follow(recommended: str) -> None:
    """Put the recommended S into the field, until someone has written another there."""
    state = st.session_state
    if "ask" not in state:
        state["ask"] = st.query_params.get("ask", recommended)
    elif state["ask"] == state.get(_OFFERED):
        state["ask"] = recommended
    state[_OFFERED] = recommended


def _bounded(row: Any, name: str) -> str:
    low, high = (format_percent(row[f"{name}_{end}"]) for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"


def show_finding(heading: DeltaGenerator, run: Run, answer: Answer) -> None:
    """Say first what the page is asked: whether another format would have helped, or which S to use.

    Where the run's own S is one of those that are safe, there is nothing to change.
    """
    limits, reason = f"**{plain(answer.limits.finding)}.**", f"{answer.reason} "
    note = answer.limits.note
    with heading:
        if answer.beside:
            st.header(plain(answer.beside))
            st.markdown(f"{limits} {plain(answer.found.headline)}.")
            reason = "" if answer.found.best == 1 else reason  # the limits say it all
            note = f"{note} The flushed shares are means over the recorded steps, at each layer's output."
        else:
            st.header(plain(answer.advice))
            st.markdown(f"{limits} {plain(answer.own)}", help=_RULE)
        st.caption(plain(f"{run.config.task}, {run_label(run.config)}: {reason}{note}"))


def show_warnings(answer: Answer) -> None:
    """Say what to mind before one follows the answer."""
    if answer.caution:
        st.warning(plain(answer.caution), icon=":material/visibility_off:")
    show_cautions(answer.cautions)


def show_next(run: Run, answer: Answer) -> None:
    """Offer to try the answer, in a format that a run can compute in."""
    policy, task, precision = answer.found.policy, run.config.task, answer.found.format
    if precision not in HALF:
        st.caption(f"Nothing trains in {precision.upper()} here: a run computes in FP16, BF16 or FP32.")
        return
    if task not in TASKS or answer.keeps or (policy is None and not answer.cautions):
        return
    policy = policy or "gradscaler"
    changed = _changed(run)
    shown = changed if precision == "fp16" else {"precision": precision, **changed}
    others = "".join(f" --{name.replace('_', '-')} {value}" for name, value in shown.items())
    scaled = "without loss scaling" if policy == "none" else f"with {policy}"
    if policy.startswith("constant:") and answer.found.best is not None:
        scaled = f"with S = {format_scale(answer.found.best)}"  # as the page has called it so far
    label = f"Launch {task}{'' if precision == 'fp16' else f' in {precision.upper()}'}, {scaled}"
    with st.container(horizontal=True, vertical_alignment="center"):
        link_page("launch", label, {"task": task, "policy": policy, "precision": precision, **changed})
        show_command(f"lsviz run --task {task} --policy {policy}{others}")


def _changed(run: Run) -> dict[str, str]:
    """Return what of a run's length, loss and start is not its task's own, as text."""
    config = run.config
    usual = {"steps": TASKS[config.task].steps, "loss_weight": 1.0, "init_gain": 1.0}
    return {
        name: str(value)
        for name, own in usual.items()
        if (value := getattr(config, name)) is not None and value != own
    }
