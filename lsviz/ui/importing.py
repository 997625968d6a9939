"""Importing exported runs, and logs of other programs, on Runs."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lsviz.errors import UserError
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore
from lsviz.ui.access import changing, may_change
from lsviz.ui.acting import import_file
from lsviz.ui.state import set_url_list
from lsviz.ui.text import plain

_ROUND: Final = "import_round"
_WRONG: Final = "import_errors"


def import_runs(store: RunStore) -> None:
    """Offer to import files; what came in is ticked in the table."""
    with st.popover("Import", icon=":material/upload:", width="stretch", key="import_runs", **changing()):
        st.markdown(
            "Zips that **Export** or `lsviz export` wrote, of one run or of several; TensorBoard's event "
            "files with histograms of gradients; logs of torch.amp in JSON, an object a step."
        )
        for reason in st.session_state.pop(_WRONG, []):
            st.error(plain(reason), icon=":material/broken_image:")
        held = st.session_state.setdefault(_ROUND, 0)
        files = st.file_uploader(
            "Exported runs and logs",
            accept_multiple_files=True,
            key=f"imported-{held}",
            disabled=not may_change(),
        )
        scaled = st.checkbox(
            "Event files: gradients were logged times S",
            key=f"imported-scaled-{held}",
            disabled=not may_change(),
            help="Straight after backward. Leave it off where they were logged after `scaler.unscale_` or "
            "`scaler.step`, which divide by S.",
        )
        if not st.button("Import them", key="import_now", type="primary", disabled=not files):
            return
        came: list[Run] = []
        wrong: list[str] = []
        for file in files:
            try:
                runs, reasons = import_file(file, store, file.name, "scaled" if scaled else "unscaled")
            except UserError as error:
                wrong.append(str(error))
            else:
                came += runs
                wrong += reasons
        if came:
            st.toast(f"{len(came)} {'run' if len(came) == 1 else 'runs'} imported.", icon=":material/check:")
            set_url_list("marked", [run.run_id for run in came])
        st.session_state[_WRONG] = wrong
        st.session_state[_ROUND] = held + 1  # an empty field: nothing is imported twice
        st.rerun()
