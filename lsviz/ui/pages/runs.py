"""Runs: find them, name them, hand them on, be rid of them."""

import streamlit as st

from lsviz.analysis.listing import SHOWN_LIVE, runs_frame, search_runs
from lsviz.ui.importing import import_runs
from lsviz.ui.managing import search_box, show_live, show_no_match, show_no_runs, show_runs, title_of
from lsviz.ui.running import show_actions
from lsviz.ui.state import run_store
from lsviz.ui.widgets import show_problems

store = run_store()
runs = store.list_runs()
if not runs:
    show_no_runs(store)
    st.stop()

frame, problems = runs_frame(runs)
heading = st.container()
search_column, import_column = st.columns([9, 3], vertical_alignment="bottom")
with search_column:
    asked = search_box()
with import_column:
    import_runs(store)
found = search_runs(frame, asked)
heading.header(title_of(found, frame, asked))
by_id = {run.run_id: run for run in runs}
under_way = found.loc[found["state"].isin(SHOWN_LIVE), "run_id"]
show_live([by_id[run_id] for run_id in under_way])
if found.empty:
    show_no_match(asked)
else:
    show_actions([by_id[run_id] for run_id in show_runs(found)], store)
show_problems([], store.list_broken(), problems)
