"""The form of a fault to inject, for teaching."""

from __future__ import annotations

import streamlit as st

from lsviz.analysis.findings import format_powers
from lsviz.errors import UserError
from lsviz.runs.injection import FAULT_KINDS, parse_injections
from lsviz.training.catalog import TaskSpec
from lsviz.ui.text import plain


def fault_form(spec: TaskSpec) -> str:
    """Ask for faults in their string form, which `RunConfig` checks; empty: none.

    Args:
        spec: The task, whose layers are named.
    """
    names = ", ".join(f"`{name}`" for name in spec.layers)
    with st.expander("Inject a fault"):
        kinds = " ".join(f"{kind}: {words}" for kind, words in FAULT_KINDS.items())
        inject: str = st.text_input(
            "Faults",
            "",
            key="inject",
            bind="query-params",
            placeholder=f"step:layer:kind, as 20:{spec.layers[len(spec.layers) // 2]}:inf",
            help=f"{format_powers(kinds)} Commas separate several. A layer has the name of its row.",
        )
        st.caption(
            "Spoils the gradient at a layer's output at one step. Give several policies the same fault, and "
            f"compare how they react. Layers of {spec.name}: {names}."
        )
    _tell_faults(inject, spec)
    return inject.strip()


def _tell_faults(inject: str, spec: TaskSpec) -> None:
    """Say what will be injected, also where the form is folded up, and name layers that the task has not."""
    try:
        faults = parse_injections(inject)
    except UserError:
        return  # told with the rest of the form
    if faults:
        st.caption(plain(f"Injects {', '.join(str(fault) for fault in faults)}."))
    for fault in faults:
        if not any(f"{name}.".startswith(f"{fault.layer}.") for name in spec.layers):
            known = ", ".join(spec.layers)
            words = f"{spec.name} has no layer {fault.layer!r} with weights; choose one of: {known}"
            st.warning(plain(words), icon=":material/warning:")
