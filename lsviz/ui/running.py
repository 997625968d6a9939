"""What one can do with the runs that are ticked on Runs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.errors import UserError
from lsviz.jobs.exporting import DASHBOARDS, dashboard_zip, installed_dashboards
from lsviz.jobs.exporting import MAX_RUNS as MAX_DASHBOARD_RUNS
from lsviz.jobs.removal import refuse_to_delete
from lsviz.report import report_html
from lsviz.runs.bundle import MAX_RUNS, export_bundle
from lsviz.runs.exchange import TABLE_FORMATS, export_tables, export_zip
from lsviz.runs.labels import MAX_NAME, MAX_TAG, MAX_TAGS, Labels
from lsviz.runs.reader import Run
from lsviz.runs.showing import file_stem, showable
from lsviz.runs.store import RunStore, is_sample
from lsviz.ui.access import changing
from lsviz.ui.acting import delete_run, pin_run, set_labels
from lsviz.ui.links import link_page
from lsviz.ui.state import MAX_COMPARED
from lsviz.ui.text import plain

NAMED: Final = 6
"""How many runs the question before a deletion names."""
_ASKED: Final = {"whatif": "What-if", "blame": "Blame", "replay": "Replay"}
"""Pages that ask one run."""


def show_actions(chosen: Sequence[Run], store: RunStore) -> None:
    """Offer what can be done with these runs."""
    if not chosen:
        st.caption("Tick rows to compare, name, export, report or delete runs.")
        return
    own = [run for run in chosen if not is_sample(run)]
    st.markdown(f"**{plain(_called(chosen[0]) if len(chosen) == 1 else f'{len(chosen):,} runs ticked')}**")
    if len(chosen) == 1 and chosen[0].record.source:
        st.caption(plain(chosen[0].record.source))
    with st.container(horizontal=True, vertical_alignment="center", key="run_actions"):
        _links(chosen)
        if len(chosen) == 1 and own:
            _labelling(chosen[0], store)
        _exports(chosen)
        if len(chosen) <= MAX_COMPARED:
            _report(chosen)
        if own and st.button("Delete", icon=":material/delete:", key="delete_runs", **changing()):
            _ask_to_delete(own)
    samples = len(chosen) - len(own)
    if samples:
        words = (
            "One of them is a shipped sample" if samples == 1 else f"{samples:,} of them are shipped samples"
        )
        words = "This is a shipped sample run" if len(chosen) == 1 else words
        st.caption(f"{words}: read-only. Export and import one for a copy to name or delete.")


def _links(chosen: Sequence[Run]) -> None:
    if len(chosen) == 1:
        run = chosen[0]
        if run.status.live:
            link_page("launch", "Watch", {"run": run.run_id})
        for page, label in _ASKED.items():
            link_page(page, label, {"seen": run.run_id})
    if len(chosen) <= MAX_COMPARED:
        together = {"runs": ",".join(run.run_id for run in chosen)}
        if len(chosen) > 1:
            link_page("compare", "Compare", together)
        link_page("layers", "Layers", together)


def _labelling(run: Run, store: RunStore) -> None:
    if st.button("Name and tags", icon=":material/label:", key="label_run", **changing()):
        _edit_labels(run, store)
    pinned = run.labels.pinned
    if st.button(
        "Unpin" if pinned else "Pin as baseline",
        icon=":material/keep_off:" if pinned else ":material/keep:",
        key="pin_run",
        **changing("A task's baseline comes first on Compare, and new runs are shown beside it."),
    ):
        _try(lambda: pin_run(run, store, pinned=not pinned))


def _exports(chosen: Sequence[Run]) -> None:
    if len(chosen) > MAX_RUNS:
        return
    one = len(chosen) == 1
    file = file_stem(chosen[0].run_id) if one else "lsviz-runs"
    ended = [run for run in chosen if not run.status.live]
    with st.popover("Export", icon=":material/download:", key="export_run"):
        if len(ended) < len(chosen):
            who = "It is" if one else f"{len(chosen) - len(ended):,} of them are"
            st.caption(f"{who} still running: a whole run can be exported when it has ended.")
        if ended:
            what = "The run" if one else f"{len(ended):,} runs"
            _download(
                f"{what}, as a zip to import elsewhere", lambda: _zip_of(ended), f"{file}.zip", "export_zip"
            )
        for fmt in TABLE_FORMATS:
            name = fmt.upper() if fmt == "csv" else "Parquet"
            _download(
                f"{'Its' if one else 'Their'} tables, as {name}",
                _tables_of(chosen, fmt),
                f"{file}-{fmt}.zip",
                f"export_{fmt}",
            )
        for fmt in installed_dashboards() if len(chosen) <= MAX_DASHBOARD_RUNS else ():
            what = f"Event file{'' if one else 's'}" if fmt == "tensorboard" else "Offline runs"
            what = "An offline run" if fmt == "wandb" and one else what
            make = partial(dashboard_zip, list(chosen), fmt)
            _download(f"{what}, for {DASHBOARDS[fmt]}", make, f"{file}-{fmt}.zip", f"export_{fmt}")


def _download(label: str, make: Callable[[], bytes], file: str, key: str) -> None:
    st.download_button(label, make, file, "application/zip", key=key, type="tertiary", on_click="ignore")


def _report(chosen: Sequence[Run]) -> None:
    st.download_button(
        "Report",
        lambda: report_html(chosen).encode(),
        "lsviz-report.html",
        "text/html",
        key="report_runs",
        icon=":material/description:",
        help="One HTML file with every figure of these runs. It opens offline; making it takes a moment.",
        on_click="ignore",
    )


def _zip_of(runs: Sequence[Run]) -> bytes:
    file = io.BytesIO()
    if len(runs) == 1:
        export_zip(runs[0], file)
    else:
        export_bundle(runs, file)
    return file.getvalue()


def _tables_of(runs: Sequence[Run], fmt: str) -> Callable[[], bytes]:
    """Return how to make a zip of the tables, in a folder a run where there are several."""

    def make() -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for run in runs:
                for name, content in export_tables(run, fmt):
                    archive.writestr(name if len(runs) == 1 else f"{file_stem(run.run_id)}/{name}", content)
        return file.getvalue()

    return make


@st.dialog("Name and tags")
def _edit_labels(run: Run, store: RunStore) -> None:
    """Ask for a run's name and tags."""
    st.caption(plain(f"{run_label(run.config)} on {run.config.task}, {run.run_id}"))
    labels = run.labels
    with st.form("labels_form", border=False, enter_to_submit=True):
        known = {tag for other in store.list_runs() for tag in other.labels.tags}
        tags = st.multiselect(
            "Tags",
            sorted(known | set(labels.tags)),
            list(labels.tags),
            key=f"tags-{run.run_id}",
            max_selections=MAX_TAGS,
            accept_new_options=True,
            select_all=False,
            placeholder="Choose or type, then Enter",
            help=f"At most {MAX_TAGS}, of {MAX_TAG} characters each.",
        )
        # Last, so that the list of tags opens over the name and not over what saves.
        name = st.text_input("Name", labels.name, key=f"name-{run.run_id}", max_chars=MAX_NAME)
        saved = st.form_submit_button("Save", type="primary", key="save_labels")
    if saved:
        _try(lambda: set_labels(run, Labels.build(name=name, tags=tags, pinned=run.labels.pinned)))


@st.dialog("Delete?")
def _ask_to_delete(runs: Sequence[Run]) -> None:
    """Ask once more, and say what stays."""
    reasons = {run.run_id: refuse_to_delete(run) for run in runs}
    going = [run for run in runs if reasons[run.run_id] is None]
    for reason in filter(None, reasons.values()):
        st.warning(plain(reason), icon=":material/lock:")
    if not going:
        return
    number = "this run" if len(going) == 1 else f"these {len(going):,} runs"
    st.markdown(f"Delete {number}? All that was recorded goes, and nothing brings it back.")
    names = [_exactly(run) for run in going[:NAMED]]
    names += [f"and {len(going) - NAMED:,} more"] if len(going) > NAMED else []
    st.code(showable("\n".join(names)), language=None, wrap_lines=True)
    if st.button("Delete", type="primary", icon=":material/delete:", key="delete_for_good"):
        _try(lambda: [delete_run(run) for run in going])


def _try(act: Callable[[], object]) -> None:
    """Do it and draw the page anew, or say why not."""
    try:
        act()
    except UserError as error:
        st.error(plain(error))
    else:
        st.rerun()


def _called(run: Run) -> str:
    return run.labels.name or _exactly(run)


def _exactly(run: Run) -> str:
    name = f"{run.labels.name}, " if run.labels.name else ""
    return f"{name}{run_label(run.config)} on {run.config.task}, {run.run_id}"
