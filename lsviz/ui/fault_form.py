"""The form of a fault to inject, for teaching."""

from __future__ import annotations

import streamlit as st

from lsviz.analysis.findings import format_powers
from lsviz.runs.injection import FAULT_KINDS


def fault_form() -> str:
    """Ask for faults in their string form, which `RunConfig` checks; empty: none."""
    with st.expander("Inject a fault"):
        kinds = " ".join(f"{kind}: {words}" for kind, words in FAULT_KINDS.items())
        inject: str = st.text_input(
            "Faults",
            "",
            key="inject",
            bind="query-params",
            placeholder="step:layer:kind, as 20:layer3:inf",
            help=f"{format_powers(kinds)} Commas separate several. A layer has the name of its row.",
        )
        st.caption(
            "Spoils the gradient at a layer's output at one step. Give several policies the same fault, and "
            "compare how they react."
        )
    return inject.strip()
