"""Updates' parts: the ways to update the weights side by side, one of them closely, and what FP16 loses."""

from __future__ import annotations

import shlex
from typing import Any, Final

import pandas as pd
import streamlit as st

from lsviz.analysis.lab import error_curve_frame, lab_frame, ratio_finding, update_ratio_frame
from lsviz.analysis.updates import format_error, format_ratio
from lsviz.charts.updateratio import update_ratio_figure
from lsviz.charts.updates import weight_error_figure
from lsviz.runs.lab import FILE_NAME, Lab, LabError, VariantResult, load_lab
from lsviz.runs.store import default_root, samples_root
from lsviz.training.catalog import TASKS
from lsviz.ui.keys import KEYS
from lsviz.ui.links import link_page
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_command, show_figure

COMMAND: Final = "lsviz lab --task digits-mlp --policy constant:1024"
WEIGHTS: Final = "weights"


def load_document() -> Lab | None:
    """Return this machine's lab where there is one, else the shipped one."""
    for folder in (default_root() / "lab", samples_root()):
        try:
            found = load_lab(folder / FILE_NAME)
        except LabError as error:
            st.warning(plain(error), icon=":material/broken_image:")
            continue
        if found is not None:
            return found
    return None


def show_origin(document: Lab) -> None:
    """Tell what was trained, and with what."""
    parts = [
        document.task,
        document.policy,
        f"seed {document.seed}",
        f"{len(document.variants)} runs",
        f"torch {document.versions.get('torch', '?')}",
        document.created[:10],
    ]
    st.caption(plain(f"Made by lsviz lab: {' · '.join(parts)}."))


def show_errors(document: Lab) -> None:
    """Draw how far each variant's weights part from float64's."""
    frame = error_curve_frame(document)
    if frame.empty:
        return
    alt = "Distance of the weights from float64's over the steps, a line a way to update them"
    show_figure(weight_error_figure(frame, colour_mode()), "weight_error", alt, frame)
    st.caption(
        "Each run takes its own gradients a second time, by the right rule in float64. Drawn is the distance "
        "between the two sets of weights, as a share of the way that float64's have gone since the first "
        "step: at 1 they are as far off as they should have gone. A line that ends early had its later steps "
        "skipped."
    )


def show_table(document: Lab) -> None:
    """Show every variant: what it does, what came of it, and the numbers behind that."""
    frame = lab_frame(document)
    metric = next((r.metric_name for r in document.variants if r.metric_name), "metric")
    shown = pd.DataFrame(
        {
            "Update": frame["name"],
            "What it does": frame["shows"],
            "Verdict": frame["verdict"].where(frame["error"] == "", frame["error"]),
            "Off": frame["weight_error"].map(format_error),
            "Norm seen": frame["norm_ratio"].map(format_ratio),
            "Step": frame["step_ratio"].map(format_ratio),
            metric.capitalize(): frame["metric"].map(lambda value: f"{value:.3f}"),
        }
    ).set_index("Update")
    shown.index = shown.index.map(lambda name: plain(name).replace(" ", "\u00a0"))
    st.table(shown.map(_cell), border="horizontal")
    st.caption(
        "Off: the distance at the end, as above. Norm seen: the gradients' norm where clipping looks at it, "
        "over the true one. Step: size of a step over float64's. Both are medians over the updates."
    )


def choose_variant(document: Lab) -> VariantResult | None:
    """Ask for one variant, which the address bar keeps."""
    by_name = {result.name: result for result in document.variants}
    if not by_name:
        return None
    if st.session_state.get("rule", next(iter(by_name))) not in by_name:
        del st.session_state["rule"]
    chosen = st.selectbox(
        "One of them, to try",
        list(by_name),
        key="rule",
        bind="query-params",
        help="Its command, and Launch with the same settings.",
    )
    return by_name.get(chosen or "")


def show_variant(document: Lab, result: VariantResult) -> None:
    """Tell what one variant does and came to, and offer to train it."""
    with st.container(key="rule_told"):
        st.markdown(plain(f"{result.shows} {result.error or result.verdict}"))
    with st.container(horizontal=True, vertical_alignment="center"):
        if document.task in TASKS:
            link_page("launch", f"Launch {result.name}", launch_query(document, result))
        show_command(variant_command(document, result))


def show_ratios(document: Lab) -> None:
    """Draw which updates change a weight, with master weights and without."""
    results = [result for result in document.variants if result.group == WEIGHTS]
    frame = update_ratio_frame(results)
    if frame.empty:
        return
    st.subheader(plain(ratio_finding(results)))
    show_figure(
        update_ratio_figure(frame, colour_mode()),
        "update_ratio",
        f"Updates by size. {ratio_finding(results)}",
        frame,
        second=True,
    )
    st.caption(
        "All updates of all steps, by the power of two of |update| / |weight|. Filled: they change the "
        "weight as it is stored. Pale: the weight is rounded back to what it was. FP16 has 11 significant "
        "bits: less than 2⁻¹² of a weight never counts, more than 2⁻¹¹ always does (of weights from 2⁻¹⁴ "
        "up), and between them it is up to the weight's digits. Master weights in FP32 have 24."
    )


def variant_command(document: Lab, result: VariantResult) -> str:
    """Return the command that trains a variant alone."""
    settings = _settings(document, result)
    return " ".join(["lsviz run", *(_option(key, value) for key, value in settings.items())])


def launch_query(document: Lab, result: VariantResult) -> dict[str, str]:
    """Return a variant's settings as Launch's address holds them."""
    return {key: _word(value) for key, value in _settings(document, result).items() if key in KEYS}


def _settings(document: Lab, result: VariantResult) -> dict[str, Any]:
    common = {"task": document.task, "policy": document.policy, "seed": document.seed, "steps": result.steps}
    return {**common, **result.settings, "check_update": True}


def _option(key: str, value: object) -> str:
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {shlex.quote(_word(value))}"


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(cell: str) -> str:
    for broken in (" %", "x ", " x", "÷ "):
        cell = cell.replace(broken, broken.replace(" ", "\u00a0"))
    return plain(cell) or "–"
