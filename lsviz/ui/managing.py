"""The table on Runs: searching it, ticking its rows, and what stands in its place."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import pandas as pd
import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.analysis.findings import format_powers, ordinal
from lsviz.analysis.listing import SHOWN_LIVE
from lsviz.jobs.manager import live_status
from lsviz.jobs.queue import tend
from lsviz.runs.reader import Run, RunError
from lsviz.runs.store import RunStore
from lsviz.runs.tables import csv_text
from lsviz.ui.importing import import_runs
from lsviz.ui.links import link_page
from lsviz.ui.queueing import queue_line
from lsviz.ui.state import set_url_list, url_list
from lsviz.ui.text import plain, plain_frame
from lsviz.ui.widgets import show_problems

COLUMNS: Final = (
    "note", "name", "task", "policy", "precision", "state", "metric", "metric_name", "step", "skipped_steps",
    "loss_scale", "tags", "created", "run_id",
)  # fmt: skip
MAX_ROWS_SHOWN: Final = 14
MAX_IN_URL: Final = 20
MAX_LIVE: Final = 3
REFRESH_SECONDS: Final = 2.0
_ROW_PX: Final = 35


def search_box() -> str:
    """Ask for words; the address holds them."""
    if "search" not in st.session_state:
        st.session_state["search"] = st.query_params.get("search", "")[:200]
    text: str = st.text_input(
        "Search",
        key="search",
        bind="query-params",
        max_chars=200,
        type="search",
        icon=":material/search:",
        placeholder="task, policy, tag, name, id or state",
        help="Rows that hold every word. The address bar keeps your search.",
    )
    return text


def title_of(found: pd.DataFrame, frame: pd.DataFrame, asked: str) -> str:
    """Return what one sees, as a sentence."""
    number = "1 run" if len(found) == 1 else f"{len(found):,} runs"
    if asked.strip():
        return plain(f"{number} of {len(frame):,} for “{' '.join(asked.split())}”")
    tasks = found["task"].nunique()
    title = f"{number} of {tasks} tasks" if tasks > 1 else f"{number} of {found['task'].iloc[0]}"
    live = int(found["state"].isin(SHOWN_LIVE).sum())
    return plain(f"{title}, {live} under way" if live else title)


def show_live(runs: Sequence[Run]) -> None:
    """Show how far runs that are under way have come, and keep that fresh; the table waits for a click."""
    if runs:
        st.fragment(run_every=REFRESH_SECONDS)(_show_live)(runs[:MAX_LIVE])


def _show_live(runs: Sequence[Run]) -> None:
    for root in {run.path.parent for run in runs}:
        tend(root)
    for run in runs:
        try:
            status = live_status(run)
        except RunError:  # deleted since
            continue
        name = run.labels.name or f"{run_label(run.config)} on {run.config.task}"
        where = queue_line(run) or f"{status.shown_state}, step {status.step:,} of {status.steps:,}"
        text = plain(f"{name}: {where}")
        bar, link = st.columns([10, 2], vertical_alignment="center")
        bar.progress(min(1.0, status.step / max(1, status.steps)), text=text)
        with link:
            link_page("launch", "Watch it" if status.live else "See it", {"run": run.run_id})


def show_runs(found: pd.DataFrame) -> list[str]:
    """Draw the table and return the ids of the rows that are ticked; the address holds them."""
    ids = found["run_id"].tolist()
    # A key of its own for other rows: ticks are places, and would mean other runs.
    key = f"runs_table-{zlib.crc32('/'.join(ids).encode()):08x}"
    marked = set(url_list("marked"))
    event = st.dataframe(
        plain_frame(shown_frame(found)),
        hide_index=True,
        height=min(MAX_ROWS_SHOWN, len(ids) + 1) * _ROW_PX + 3,
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [at for at, run_id in enumerate(ids) if run_id in marked]}},
        key=key,
        placeholder="–",
        column_config=_column_config(),
        alt="Runs with task, policy, state and results; tick rows to act on them",
    )
    chosen = [ids[at] for at in event.selection.rows if at < len(ids)]
    set_url_list("marked", chosen[:MAX_IN_URL])
    _save_table(found)
    return chosen


def _save_table(found: pd.DataFrame) -> None:
    """Offer the table as CSV; Streamlit's own, which leaves formulas in it, is hidden."""
    with st.container(horizontal=True, horizontal_alignment="right", key="save-runs"):
        st.download_button(
            "CSV",
            lambda: csv_text(found.assign(tags=found["tags"].map(", ".join))).encode(),
            "lsviz-runs.csv",
            "text/csv",
            key="csv-runs",
            type="tertiary",
            icon=":material/download:",
            help="The rows of this table.",
            on_click="ignore",
        )


def shown_frame(found: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that the table shows, of `runs_frame`."""
    frame = found[list(COLUMNS)].copy()
    frame["policy"] = [
        format_powers(", ".join(filter(None, pair)))
        for pair in zip(found["policy"], found["update"], strict=True)
    ]
    frame["step"] = [
        f"{a:,}" if a == b else f"{a:,} of {b:,}" for a, b in zip(found["step"], found["steps"], strict=True)
    ]
    frame["state"] = [
        state if pd.isna(place) else f"{state}, {ordinal(place)}"
        for state, place in zip(found["state"], found["place"], strict=True)
    ]
    frame["tags"] = [list(tags) for tags in found["tags"]]
    frame["created"] = pd.to_datetime(found["created"], errors="coerce", utc=True, format="ISO8601")
    empty = [name for name in ("note", "name") if not frame[name].any()]
    empty += ["tags"] if not frame["tags"].map(len).any() else []
    return frame.drop(columns=empty)


def _column_config() -> dict[str, object]:
    config = st.column_config
    return {
        "note": config.TextColumn(
            "mark", help="baseline: pinned. sample: shipped with lsviz, read-only.", width=70
        ),
        "name": config.TextColumn(width=145),
        "policy": config.TextColumn(width=170),
        "precision": config.TextColumn(help="Number format of the forward and backward pass.", width=70),
        "state": config.TextColumn(width=75),
        "metric": config.NumberColumn(format="%.3f", width=70),
        "metric_name": config.TextColumn("of", help="What the metric is.", width=110),
        "step": config.TextColumn("steps", help="Steps done.", width=85),
        "skipped_steps": config.NumberColumn(
            "skipped", help="Steps left out because a gradient was Inf or NaN.", width=70
        ),
        "loss_scale": config.NumberColumn(
            "final S", help="The factor on the loss in the last step.", format="localized", width=75
        ),
        "tags": config.ListColumn(width=115),
        "created": config.DatetimeColumn(format="D MMM, HH:mm", width=110),
        "run_id": config.TextColumn("id", width=190),
    }


def show_no_match(asked: str) -> None:
    """Say that nothing holds the words."""
    st.info(
        plain(
            f"No run holds all of “{' '.join(asked.split())}”. Try fewer words, such as a task or a policy."
        ),
        icon=":material/search_off:",
    )


def show_no_runs(store: RunStore) -> None:
    """Say what belongs on the page and how to get it."""
    st.header("No runs yet")
    st.write(
        "Every run that you launch, record or import is listed here, to be named, compared and handed on."
    )
    launch, take, _ = st.columns([3, 3, 6], vertical_alignment="center")
    with launch:
        link_page("launch", "Launch a run")
    with take:
        import_runs(store)
    show_problems([], store.list_broken())
