"""Live figures on the update: its order, its optimizer, its schedule and its weights."""

from __future__ import annotations

from typing import Final

import pandas as pd
import streamlit as st

from lsviz.analysis.demonstrations import accumulation_frame, half_sum_frame, half_sum_table
from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.lab import error_curve_frame, lab_frame
from lsviz.analysis.replay import replay
from lsviz.analysis.series import load_series
from lsviz.analysis.skips import lost_steps_frame
from lsviz.charts.curves import MetricLine, metric_figure
from lsviz.charts.skips import LostLine, lost_steps_figure
from lsviz.charts.theme import PALETTES, policy_colour
from lsviz.charts.updates import weight_error_figure
from lsviz.formats import Region
from lsviz.policies import format_number, parse_policy
from lsviz.ui.demos.shipped import shipped_lab, shipped_run
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure

ORDERS: Final = ("after", "before", "times S")
OPTIMIZERS: Final = ("SGD", "Adam")
RULES: Final = ("unscale", "fold-lr", "none")


def show_order() -> None:
    """How far weights end from float64's, by when gradients are clipped and decayed."""
    chosen = st.pills(
        "Clip, and add an L2 penalty",
        ORDERS,
        selection_mode="multi",
        default=ORDERS,
        key="learn_orders",
        help="After unscaling, before it, or before it with the threshold (the penalty) multiplied by S.",
    )
    names = [f"{group} {order}" for group in ("clip", "L2") for order in chosen or ORDERS]
    _show_lab(names, "learn_order")


def show_adam() -> None:
    """The same for the ways to undo S, under SGD and Adam."""
    rules = st.pills(
        "What undoes S",
        RULES,
        selection_mode="multi",
        default=RULES,
        key="learn_rules",
        help="unscale: gradients times 1/S. fold-lr: the learning rate times 1/S. none: nothing.",
    )
    names = [f"{rule} ({optimizer})" for optimizer in OPTIMIZERS for rule in rules or RULES]
    _show_lab(names, "learn_adam", panels=OPTIMIZERS)


def _show_lab(names: list[str], key: str, panels: tuple[str, ...] = ()) -> None:
    lab = shipped_lab()
    if lab is None:
        return
    rows = lab_frame(lab)
    rows = rows[rows["name"].isin(names)]
    lines = [f"- **{plain(row['name'])}:** {plain(row['verdict'])}" for row in rows.to_dict("records")]
    st.markdown("\n".join(lines))
    frame = error_curve_frame(lab)
    frame = frame[frame["name"].isin(names)]
    for panel in panels:  # what is named so goes into a panel of its own, which then says it
        mine = frame["name"].str.endswith(f" ({panel})")
        short = frame["name"].str.removesuffix(f" ({panel})")
        frame = frame.assign(group=frame["group"].mask(mine, panel), name=short)
    alt = f"Distance of the weights from float64's. {' '.join(rows['verdict'])}"
    show_figure(weight_error_figure(frame, colour_mode()), key, alt, frame)
    st.caption(f"{lab.task}, {lab.policy}: a whole run a line, each beside its own update in float64.")


def show_schedule() -> None:
    """How far a schedule is ahead of the optimizer, by the S that a run starts with."""
    run = shipped_run("shapes-ssd", "gradscaler")
    if run is None:
        return
    power = st.slider(
        "First S, as a power of two", 8, 30, 20, key="learn_first", help="PyTorch's default is 2¹⁶."
    )
    series, mode = load_series(run), colour_mode()
    lines, skipped = [], {}
    for text in ("gradscaler", f"gradscaler:init_scale={format_number(2.0**power)}"):
        done = replay(parse_policy(text), series)
        steps = pd.DataFrame({"step": done.steps, "skipped": [s in set(done.skipped) for s in done.steps]})
        skipped[text] = len(done.skipped)
        lines.append(LostLine(text, policy_colour(text, "fp16", mode), lost_steps_frame(steps)))
    finding = (
        f"Starting at S = {format_scale(2.0**power)}, {skipped[lines[-1].label]} updates are thrown away: "
        "a schedule that steps at every iteration ends that far ahead."
    )
    st.markdown(f"**{plain(finding)}**")
    show_figure(lost_steps_figure(lines, mode), "learn_lost", finding, lines[-1].lost)
    st.caption("The recorded gradients of shapes-ssd under both; once skips differ, the rest is a guess.")


def show_accumulation() -> None:
    """With which weight each micro-batch enters the sum."""
    left, right = st.columns(2)
    batches = left.slider("Micro-batches", 2, 16, 8, key="learn_batches", help="Summed for one update.")
    after = right.slider(
        "S doubles after", 1, 16, 5, key="learn_doubles", help="Clean micro-batches: the growth interval."
    )
    frame = accumulation_frame(batches, after)
    lost = 1 - frame["each"].mean()
    finding = (
        f"With S updated at every micro-batch, {format_percent(lost)} of the mean gradient is missing; the "
        f"first micro-batch counts {frame['each'].iloc[0]:.3g} times, the last once."
        if lost
        else "S does not change within these micro-batches: both are right."
    )
    st.markdown(f"**{plain(finding)}**")
    palette = PALETTES[colour_mode()]
    lines = [
        _line("update() once", palette.region_text[Region.NORMAL], frame["batch"], frame["once"]),
        _line("update() at each", palette.region_text[Region.FLUSHED], frame["batch"], frame["each"]),
    ]
    figure = metric_figure(lines, "weight in the sum", colour_mode(), axis="micro-batch")
    show_figure(figure, "learn_accumulated", finding, frame)


def show_masters() -> None:
    """A weight of 1 and a thousand small updates, in FP16 and in FP32."""
    power = st.slider(
        "Size of the update, as a power of two", -16, -6, -12, key="learn_update", help="Added 1,000 times."
    )
    frame = half_sum_frame(power)
    last = frame.iloc[-1]
    finding = (
        f"After 1,000 updates of {format_scale(2.0**power)} a weight of 1 is {last['fp32']:.4g} in FP32 and "
        f"{last['fp16']:.4g} in FP16."
    )
    st.markdown(f"**{plain(finding)}**")
    palette = PALETTES[colour_mode()]
    lines = [
        _line("FP32 weight", palette.neutral, frame["step"], frame["fp32"]),
        _line("FP16 weight", palette.region_text[Region.FLUSHED], frame["step"], frame["fp16"]),
    ]
    show_figure(metric_figure(lines, "weight", colour_mode()), "learn_sums", finding, frame)
    table = half_sum_table(power)
    st.table(table.assign(value=[repr(value) for value in table["value"]]).set_index("what"))


def _line(label: str, colour: str, x: pd.Series, y: pd.Series) -> MetricLine:
    return MetricLine(label, colour, pd.DataFrame({"step": x, "mean": y, "low": y, "high": y}))
