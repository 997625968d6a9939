"""Launch: start a run and watch it."""

import streamlit as st

from lsviz.ui.launching import launch_form, show_recent_runs
from lsviz.ui.live import watch_runs
from lsviz.ui.state import watched_runs
from lsviz.ui.sweeping import show_sweeps

st.header("Launch a run")
form_column, live_column = st.columns([4, 8], gap="large")
with form_column:
    launch_form()
with live_column:
    show_sweeps()
    watched = watched_runs()
    if watched:
        watch_runs(watched)
    else:
        show_recent_runs()
