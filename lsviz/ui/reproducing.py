"""Reproduce's parts: the table beside the paper and its figures."""

from __future__ import annotations

import contextlib
import textwrap

import pandas as pd
import streamlit as st

from lsviz.analysis.curves import (
    falls_behind,
    metric_finding,
    metric_frame,
    scale_curve_finding,
    scale_curve_frame,
    working_scales,
)
from lsviz.analysis.findings import format_powers, format_scale
from lsviz.analysis.history import history_finding, history_frame
from lsviz.analysis.reproduction import VARIANT_LABELS, paper_frame
from lsviz.analysis.view import RunView
from lsviz.charts.curves import scale_curve_figure
from lsviz.charts.history import history_figure
from lsviz.charts.views import metrics_figure
from lsviz.formats import FP16
from lsviz.policies import parse_number
from lsviz.runs.reader import Run, RunError
from lsviz.runs.reproduction import FILE_NAME, Reproduction, ReproductionError, load_reproduction
from lsviz.runs.store import RunStore, default_root, samples_root
from lsviz.training.catalog import TASKS
from lsviz.training.experiments import CURVE_TASK
from lsviz.ui.loading import load_run, load_runs
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure, show_pictures

COMMAND = "lsviz reproduce"
LATE_EXPERIMENT = "image-fit, loss x 2^-4"
FIGURE_3_TASK = "shapes-ssd"
PICTURE_TASK = "image-fit"
WRAP = 30
U_CURVE, FIGURE_3 = PICTURES = ("which S works", "gradients over a training")
RESCUES = ("8", "128", "1024", "2^18")


def load_results() -> Reproduction | None:
    """Return this machine's results where there are any, else the shipped ones."""
    for folder in (default_root() / "reproduce", samples_root()):
        try:
            found = load_reproduction(folder / FILE_NAME)
        except ReproductionError as error:
            st.warning(plain(error), icon=":material/broken_image:")
            continue
        if found is not None:
            return found
    return None


def show_origin(document: Reproduction) -> None:
    """Tell on what machine, with what and in which time the results were made."""
    machine, versions = document.machine, document.versions
    seeds = len({r.seed for r in document.results})
    parts = [
        f"{seeds} seeds" if seeds > 1 else "1 seed",
        f"{len(document.results)} runs",
        f"{machine.get('cpu', 'unknown processor')}, {machine.get('cores', '?')} cores",
        f"torch {versions.get('torch', '?')}",
        *([f"{document.seconds / 60:.0f} min"] if not document.reused else []),
        document.created[:10],
    ]
    quick = " --quick" if document.quick else ""
    st.caption(plain(f"Made by {COMMAND}{quick}: {' · '.join(map(str, parts))}."))


def show_table(document: Reproduction) -> None:
    """Show the table beside the paper: a row an experiment."""
    frame = paper_frame(document)
    if frame.empty:
        st.info("None of these results belongs to an experiment of this version.")
        return
    constant = frame["constant"].where(frame["S"] == "", frame["constant"] + " S = " + frame["S"])
    shown = pd.DataFrame(
        {
            "Experiment": frame["experiment"] + ": " + frame["metric_name"],
            "Finding": frame["finding"].map(_wrapped),
            "FP32": frame["fp32"],
            "S = 1": frame["none"],
            "Constant S": constant.map(_with_power),
            "Gradscaler": frame["gradscaler"],
            "FP16 weights": frame["fp16-weights"],
            "Flushed at S = 1, most in": (frame["flushed"] + ", " + frame["worst"]).str.strip(", "),
            "The paper's": frame["paper"].map(_wrapped),
        }
    ).set_index("Experiment")
    shown.index = shown.index.map(format_powers)
    st.table(shown.map(lambda cell: _unbroken(plain(cell)) or "–"), border="horizontal")
    st.caption(
        "Means over the seeds ± half the distance between the highest and the lowest. As FP32: the means "
        "differ by no more than the highest and the lowest seed do, which is all that so few seeds can "
        "show; fails: less than half of what FP32 gains over fresh "
        "weights. Flushed: share of the values at all layers' outputs that FP32 has and FP16 lost, mean "
        "over training. FP16 weights: no FP32 master copy, at the constant S. The paper's networks are far "
        "larger: arXiv 1710.03740."
    )


def _with_power(text: str) -> str:
    """Write the constant policy's S as people do, on a line of its own where it must: S = 2¹⁸."""
    cell, found, scale = text.partition(" S = ")
    return f"{cell} S\u00a0=\u00a0{format_scale(float(parse_number(scale)))}" if found else text


def _wrapped(text: str) -> str:
    """Break text at about WRAP characters and nowhere else: a narrow page then scrolls the table."""
    return " ".join(line.replace(" ", "\u00a0") for line in textwrap.wrap(_unbroken(text), WRAP))


def _unbroken(text: str) -> str:
    """Keep a number and its spread together."""
    for broken in (" ± ", " %", "S = ", "< 0", "> 9"):
        text = text.replace(broken, broken.replace(" ", "\u00a0"))
    return text


@st.fragment
def show_metrics(document: Reproduction) -> None:
    """Draw one experiment's metric over the steps, every variant a line. Another draws only this again."""
    frame = metric_frame(document.results)
    names = list(dict.fromkeys(frame["experiment"]))
    if not names:
        return
    first = LATE_EXPERIMENT if LATE_EXPERIMENT in names else names[0]
    if st.session_state.get("experiment", first) not in names:
        del st.session_state["experiment"]
    title = st.container()
    chosen = st.selectbox(
        "Experiment",
        names,
        index=names.index(first),
        key="experiment",
        bind="query-params",
        help="Whose metric is drawn. A factor on the loss makes gradients small, as an auxiliary loss does.",
    )
    task = next(r.task for r in document.results if r.experiment == chosen)
    mine = frame[frame["experiment"] == chosen]
    title.subheader(plain(metric_finding(task, mine)) if task in TASKS else "Metric over the steps")
    results = [r for r in document.results if r.experiment == chosen]
    labels = {variant: words.removeprefix("FP16, ") for variant, words in VARIANT_LABELS.items()}
    since = falls_behind(task, mine) if task in TASKS else None
    figure = metrics_figure(results, colour_mode(), labels, since or None)
    alt = f"Metric of {chosen} over the steps, a line a variant"
    show_figure(figure, "metric_over_steps", alt, mine)
    st.caption("Lines are means over the seeds, pale bands from the lowest to the highest.")


def choose_picture() -> str:
    """Ask which of the two other figures to see: two at once are enough."""
    chosen = st.segmented_control(
        "Picture",
        PICTURES,
        default=PICTURES[0],
        required=True,
        key="picture",
        bind="query-params",
        label_visibility="collapsed",
    )
    return chosen or PICTURES[0]


def show_scale_curve(document: Reproduction) -> None:
    """Draw the U-curve: what every constant S comes to."""
    curve = scale_curve_frame(document.curve)
    if curve.empty:
        return
    fp32 = [r.metric for r in document.results if r.experiment == CURVE_TASK and r.variant == "fp32"]
    st.subheader(plain(scale_curve_finding(CURVE_TASK, curve, fp32)))
    figure = scale_curve_figure(
        curve, TASKS[CURVE_TASK].metric_name, colour_mode(), working_scales(CURVE_TASK, curve, fp32)
    )
    alt = f"{CURVE_TASK}: metric, flushed and skipped share over log2 S"
    show_figure(figure, "scale_curve", alt, curve, second=True)
    st.caption(
        f"{CURVE_TASK}, seed 0, a run for every S. Shaded: reaches 95 % of what FP32 gains. What-if asks for "
        "more, so its range is narrower: no layer loses more than 1 % of its values, and no step overflows."
    )


def show_figure_3() -> None:
    """Draw the exponents of shapes-ssd over its training, with the band that a chosen S rescues."""
    views = _samples(FIGURE_3_TASK, "none")
    if not views:
        return
    title, choice = st.container(), st.container(horizontal=True)
    by_weight = {v.record.config.loss_weight: v for v in views}
    with choice:
        weight = st.segmented_control(
            "Loss weight",
            sorted(by_weight, reverse=True),
            default=max(by_weight),
            required=True,
            format_func=lambda w: format_scale(w),
            help="A factor on the loss, as a small term of a sum of losses has it.",
        )
        rescue = st.segmented_control(
            "S",
            RESCUES,
            default=RESCUES[0],
            required=True,
            key="rescue",
            bind="query-params",
            help="The green frame holds what this loss scale brings into FP16's range.",
        )
    view = by_weight[weight or max(by_weight)]
    history = history_frame(view.exponents, view.layers)
    scale = float(parse_number(rescue or RESCUES[0]))
    title.subheader(plain(history_finding(history, scale, FP16)))
    show_figure(
        history_figure(history, scale, colour_mode()),
        "figure_3",
        f"Share of gradient values by exponent over the training of {FIGURE_3_TASK}",
        history,
        second=True,
    )
    st.caption(
        "The paper's Figure 3 in small: activation gradients of a multibox detector in FP32, all layers."
    )


def show_learned_pictures() -> None:
    """Show the photograph as each policy learned it, beside the original."""
    runs = [r for r in RunStore.at(samples_root()).list_runs() if r.config.task == PICTURE_TASK]
    smallest = min((r.config.loss_weight for r in runs), default=1.0)
    views = load_runs([r for r in runs if r.config.loss_weight == smallest][::-1])
    if not any(view.picture for view in views):
        return
    st.subheader("The picture as each policy learned it")
    show_pictures(views)


def _samples(task: str, policy: str) -> list[RunView]:
    runs: list[Run] = RunStore.at(samples_root()).list_runs()
    views = []
    for run in runs:
        if run.config.task == task and run.config.policy == policy and run.config.precision == "fp16":
            with contextlib.suppress(RunError):
                views.append(load_run(run))
    return views
