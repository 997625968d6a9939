"""The form of the weight update: how S is undone, and what each way breaks."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lsviz.analysis.findings import format_powers
from lsviz.errors import UserError
from lsviz.runs.config import RunConfig
from lsviz.runs.updates import (
    CLIP_ORDERS,
    L2_ORDERS,
    OPTIMIZERS,
    OVERFLOW_RULES,
    UPDATE_RULES,
)
from lsviz.training.catalog import TaskSpec
from lsviz.ui.text import plain


def update_form(spec: TaskSpec) -> dict[str, Any]:
    """Ask for the settings of the weight update, as `RunConfig` names them."""
    with st.expander("Weight update"):
        optimizer = _choice(
            "optimizer", "Optimizer", list(OPTIMIZERS), f"task: {spec.optimizer}, as it comes."
        )
        lr = _number("lr", "Learning rate", f"The task's own is {spec.lr:g}.", "the usual")
        update = _choice("update", "Undo S by", list(UPDATE_RULES), "How the update takes S back out.")
        st.caption(UPDATE_RULES[update])
        clip = _number("clip", "Clip the gradient norm to", "The L2 norm of all gradients together.", "off")
        clip_order = _choice("clip_order", "Clip", list(CLIP_ORDERS), "Before or after unscaling.")
        if clip is not None:
            st.caption(CLIP_ORDERS[_in_effect(clip_order, update)])
        l2 = _number("l2", "L2 penalty", "Coupled: this times the weight joins its gradient.", "off")
        l2_order = _choice("l2_order", "L2 joins", list(L2_ORDERS), "Before or after unscaling.")
        if l2:
            st.caption(L2_ORDERS[_in_effect(l2_order, update)])
        on_overflow = _choice("on_overflow", "On overflow", list(OVERFLOW_RULES), "A step with Inf or NaN.")
        st.caption(OVERFLOW_RULES[on_overflow])
        master_weights = st.toggle(
            "FP32 master weights",
            value=True,
            key="master_weights",
            bind="query-params",
            help=RunConfig.model_fields["master_weights"].description,
        )
    return {
        "optimizer": optimizer,
        "lr": lr,
        "update": update,
        "clip": clip,
        "clip_order": clip_order,
        "l2": l2 or 0.0,
        "l2_order": l2_order,
        "on_overflow": on_overflow,
        "master_weights": master_weights,
    }


def start_form() -> dict[str, Any]:
    """Ask for the dials that every task has: the weight of its loss and the size of its first weights."""
    with st.expander("Loss and first weights"):
        loss_weight = _power("loss_weight", "Loss weight", range(-20, 1))
        init_gain = _power("init_gain", "Initial gain", range(-6, 7))
    return {"loss_weight": loss_weight, "init_gain": init_gain}


def show_update_warnings(spec: TaskSpec, policy: str, settings: dict[str, Any]) -> None:
    """Say what in the chosen update S makes wrong."""
    try:
        config = RunConfig.build(task=spec.name, policy=policy, **settings)
    except UserError as error:
        st.caption(f":material/error: {plain(error)}")
        return
    for warning in config.warnings(spec.optimizer):
        st.warning(plain(f"{warning[0].upper()}{warning[1:]}."), icon=":material/warning:")


def _in_effect(order: str, update: str) -> str:
    """Where nothing is unscaled, after is as early as before."""
    return "before" if order == "after" and update != "unscale" else order


def _choice(key: str, label: str, options: list[str], explained: str) -> str:
    chosen = st.segmented_control(
        label, options, default=options[0], required=True, key=key, bind="query-params", help=explained
    )
    return chosen or options[0]


def _number(key: str, label: str, explained: str, empty: str) -> float | None:
    return st.number_input(
        label, value=None, key=key, bind="query-params", format="%g", help=explained, placeholder=empty
    )


def _power(key: str, label: str, exponents: range) -> float:
    """Ask for a power of two, which the URL holds as it is shown: 2⁻⁸."""
    labels = [format_powers(f"2^{e}") if e else "1" for e in exponents]
    if st.session_state.get(key, "1") not in labels:
        del st.session_state[key]
    explained = plain(format_powers(RunConfig.model_fields[key].description or ""))
    chosen = st.select_slider(label, labels, value="1", key=key, bind="query-params", help=explained)
    return 2.0 ** exponents[labels.index(chosen)]
