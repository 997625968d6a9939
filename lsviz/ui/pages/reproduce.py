"""Reproduce: the paper's findings in small, beside the paper's own."""

import streamlit as st

from lsviz.analysis.reproduction import headline
from lsviz.ui.reproducing import (
    COMMAND,
    FIGURE_3,
    choose_picture,
    load_results,
    show_figure_3,
    show_learned_pictures,
    show_metrics,
    show_origin,
    show_scale_curve,
    show_table,
)
from lsviz.ui.text import plain

document = load_results()
if document is None:
    st.header("No results yet")
    st.write("The paper's findings in small: 25 minutes on two cores, or 3 with --quick.")
    st.code(COMMAND, language=None)
    st.stop()

st.header(plain(headline(document)))
show_origin(document)
show_table(document)
show_metrics(document)
if choose_picture() == FIGURE_3:
    show_figure_3()
else:
    show_scale_curve(document)
show_learned_pictures()
