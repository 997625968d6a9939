"""Live figures on values: which format holds them, and what it matters that some are lost."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lsviz.analysis.findings import finding, format_scale
from lsviz.analysis.lessonfacts import PARTLY, WHOLLY
from lsviz.analysis.view import common_steps
from lsviz.charts.scalemap import scale_map_figure
from lsviz.charts.views import spectra_figure, spectra_frame, view_shares
from lsviz.ui.demos.shipped import shipped_run, shipped_views
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain
from lsviz.ui.whatif import FORMATS, answer_of
from lsviz.ui.widgets import show_figure, show_pictures

CAST: Final = {"sigmoid-mlp": 1.0, "image-fit": WHOLLY, "shapes-ssd": 2.0**-14}
CONSTANTS: Final = {1.0: "constant:256", PARTLY: "constant:4096", WHOLLY: "constant:16384"}


def show_formats() -> None:
    """What every S would flush of a run's gradients, cast to one format."""
    left, right = st.columns(2)
    task = left.segmented_control(
        "Gradients of",
        list(CAST),
        default="sigmoid-mlp",
        required=True,
        key="learn_cast",
        help="image-fit and shapes-ssd with a small factor on their loss.",
    )
    chosen = right.segmented_control(
        "Cast to", FORMATS, default="FP16", required=True, key="learn_format", help="From FP32, at each S."
    )
    run = shipped_run(task or "sigmoid-mlp", "none", loss_weight=CAST[task or "sigmoid-mlp"])
    if run is None:
        return
    answer = answer_of(run, (chosen or "FP16").lower())
    st.markdown(f"**{plain(answer.found.headline)}.** {plain(answer.found.reason)}")
    figure = scale_map_figure(answer.frame, answer.layers, answer.found, colour_mode(), answer.ceilings)
    alt = f"Share that a cast to {chosen} would flush, by layer and S. {answer.found.reason}"
    show_figure(figure, "learn_formats", alt, answer.frame)


def show_harm() -> None:
    """Exponents of image-fit without scaling and with it, and the pictures that came of them."""
    weight = st.segmented_control(
        "Factor on the loss",
        list(CONSTANTS),
        default=PARTLY,
        required=True,
        format_func=format_scale,
        key="learn_weight",
        help="It makes all gradients smaller, as a small term of a sum of losses has them.",
    )
    weight = weight or PARTLY
    runs = (
        shipped_run("image-fit", "none", loss_weight=weight),
        shipped_run("image-fit", CONSTANTS[weight], loss_weight=weight),
    )
    views = shipped_views(*runs)
    steps = common_steps(views)
    if not steps:
        return
    # Gradients shrink as it learns: the middle of the training stands for its mean.
    step = st.select_slider(
        "Step", steps, value=steps[len(steps) // 2], key="learn_step", help="Recorded steps of the run."
    )
    shares = view_shares(views, step)
    words = finding(shares)
    st.markdown(f"**{plain(words)}**")
    figure = spectra_figure(views, shares, step, colour_mode())
    show_figure(
        figure, "learn_harm", f"Exponents at step {step}. {words}", lambda: spectra_frame(views, step)
    )
    show_pictures(views)
