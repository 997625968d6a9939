"""Updates: the ways from scaled gradients to new weights, each beside float64."""

import streamlit as st

from lsviz.analysis.lab import lab_finding
from lsviz.ui.text import plain
from lsviz.ui.updating import (
    COMMAND,
    choose_variant,
    load_document,
    show_errors,
    show_origin,
    show_ratios,
    show_table,
    show_variant,
)

document = load_document()
if document is None:
    st.header("No updates compared yet")
    st.write("Every way to update the weights, on one task, each beside float64: about half a minute.")
    st.code(COMMAND, language=None)
    st.stop()

st.header(plain(lab_finding(document)))
show_origin(document)
show_errors(document)
show_table(document)
chosen = choose_variant(document)
if chosen is not None:
    show_variant(document, chosen)
show_ratios(document)
st.caption(f"The same for another task, policy or optimizer: `{COMMAND}`")
