"""Live figures on S itself: what makes it fall, where it ends, and which S works."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import streamlit as st

from lsviz.analysis.curves import scale_curve_frame
from lsviz.analysis.findings import format_percent, format_powers, format_scale
from lsviz.analysis.lessonfacts import NAN_STEPS
from lsviz.analysis.traces import trace_finding, traces_frame
from lsviz.charts.curves import scale_curve_figure
from lsviz.charts.theme import policy_colour
from lsviz.charts.traces import trace_figure
from lsviz.charts.views import timelines_figure
from lsviz.policies import Policy, Trace, parse_policy, trace_amax, trace_overflows
from lsviz.training.catalog import TASKS
from lsviz.training.experiments import CURVE_TASK
from lsviz.ui.demos.shipped import shipped_results, shipped_run, shipped_views
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure

STEPS: Final = 20
FALLING: Final = ("gradscaler", "deepspeed", "megatron", "fairseq")
SHOWN_STEPS: Final = 60
NAN_FROM: Final = 10
SILENT: Final = {
    "sigmoid-mlp": 1.0,
    "image-fit": 2.0**-8,
    "digits-cnn": 1.0,
}


def show_overflow() -> None:
    """S over a series of steps whose overflows are clicked."""
    clicked = st.pills(
        "Steps that overflow",
        range(STEPS),
        selection_mode="multi",
        default=[0, 1, 2, 14],
        key="learn_overflows",
        help="Click a step to make it overflow, and again to make it clean.",
    )
    interval = st.slider(
        "Growth interval", 1, 12, 6, key="learn_interval", help="Clean steps until S doubles."
    )
    pattern = "".join("O" if step in set(clicked or []) else "." for step in range(STEPS))
    policy = parse_policy(f"gradscaler:growth_interval={interval}")
    _draw({"gradscaler": policy}, {"gradscaler": trace_overflows(policy, pattern)}, STEPS, "learn_trace")


def show_to_zero() -> None:
    """S under a gradient that is too large, and under NaN."""
    left, right = st.columns(2)
    kind = left.segmented_control(
        f"From step {NAN_FROM} on, the gradients hold",
        ["a large value", "NaN"],
        default="NaN",
        required=True,
        key="learn_spoilt",
        help="The large value is 64: it fits into FP16 once S is below 1,024.",
    )
    chosen = right.segmented_control(
        "Policy",
        FALLING,
        default=FALLING[0],
        required=True,
        key="learn_falling",
        help="Its own rule.",
    )
    name = chosen or FALLING[0]
    steps = SHOWN_STEPS if kind == "a large value" else NAN_STEPS
    spoilt = 64.0 if kind == "a large value" else math.nan
    policy = parse_policy(name)
    trace = trace_amax(policy, [0.25] * NAN_FROM + [spoilt] * (steps - NAN_FROM))
    _draw({name: policy}, {name: trace}, steps, "learn_falling_trace")
    if trace.warning:
        st.warning(plain(format_powers(f"{name}: {trace.warning}.")), icon=":material/warning:")


def _draw(policies: Mapping[str, Policy], traces: Mapping[str, Trace], steps: int, key: str) -> None:
    mode = colour_mode()
    finding = trace_finding(list(policies), list(traces.values()), steps)
    skipped = len(next(iter(traces.values())).skipped)
    finding = f"{finding} {skipped} {'step was' if skipped == 1 else 'steps were'} skipped."
    st.markdown(f"**{plain(format_powers(finding))}**")
    colours = {label: policy_colour(label, "fp16", mode) for label in policies}
    frame = traces_frame(policies, traces)
    show_figure(trace_figure(frame, traces, colours, steps, mode), key, f"S over the steps. {finding}", frame)


def show_window() -> None:
    """The metric over S, with one S framed."""
    results = shipped_results()
    curve = scale_curve_frame(results.curve) if results is not None else None
    if curve is None or curve.empty:
        return
    scales = curve["loss_scale"].tolist()
    scale = st.select_slider(
        "S",
        scales,
        value=scales[0],
        format_func=format_scale,
        key="learn_scale",
        help="A constant.",
    )
    row = curve[curve["loss_scale"] == scale].iloc[0]
    spec = TASKS[CURVE_TASK]
    finding = (
        f"At S = {format_scale(scale)}: {spec.metric_name} {row['metric']:.2f}, "
        f"{format_percent(row['worst_flushed'])} flushed in the layer that loses most, "
        f"{format_percent(row['skipped'])} of the steps skipped."
    )
    st.markdown(f"**{plain(finding)}**")
    about = (scale / 2, scale * 2)
    figure = scale_curve_figure(curve, spec.metric_name, colour_mode(), about)
    show_figure(figure, "learn_curve", f"{CURVE_TASK} at every constant S. {finding}", curve)
    st.caption(f"{CURVE_TASK}, a whole run for every S. Shaded: the S that you chose.")


def show_silent() -> None:
    """Loss, S and flushed share of a run without scaling, beside one with it."""
    task = st.segmented_control(
        "What is trained",
        list(SILENT),
        default=next(iter(SILENT)),
        required=True,
        key="learn_silent",
        help="image-fit's loss has the factor 2⁻⁸ here, as a small term of a sum of losses.",
    )
    weight = SILENT[task or "sigmoid-mlp"]
    constant = {"sigmoid-mlp": "constant:1024", "image-fit": "constant:16384", "digits-cnn": "constant:128"}
    views = shipped_views(
        shipped_run(task, "none", loss_weight=weight), shipped_run(task, constant[task], loss_weight=weight)
    )
    if not views:
        return
    skipped = sum(view.status.skipped_steps for view in views)
    finding = (
        f"No step was skipped and no Inf was seen, yet without scaling a mean of "
        f"{format_percent(views[0].flushed['flushed'].mean())} of the gradient was lost."
        if not skipped
        else f"{skipped} steps were skipped."
    )
    st.markdown(f"**{plain(finding)}**")
    figure = timelines_figure(views, colour_mode())
    show_figure(figure, "learn_timeline", f"Loss, S and flushed share of {task}. {finding}", views[0].flushed)
