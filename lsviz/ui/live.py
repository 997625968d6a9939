"""Watching runs: progress, figures, their ends. One flat fragment that ends itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from lsviz.analysis.cost import cost_finding
from lsviz.analysis.flushmap import flushed_map_finding
from lsviz.analysis.lab import run_verdict
from lsviz.analysis.view import RunView
from lsviz.charts.views import (
    flushed_map_views,
    flushed_maps_figure,
    timelines_figure,
    timelines_frame,
    view_labels,
)
from lsviz.jobs.manager import live_status
from lsviz.jobs.queue import tend
from lsviz.runs.reader import Run, RunError
from lsviz.runs.tables import stacked_frame
from lsviz.ui.comparing import baseline_of
from lsviz.ui.links import link_page
from lsviz.ui.livestates import close_button, numbers_line, show_numbers, show_state, show_title
from lsviz.ui.loading import load_run
from lsviz.ui.state import colour_mode, run_store
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure, show_pictures, show_problems
from lsviz.ui.zooming import keep_zoom

REFRESH_SECONDS: Final = 1.0


def watch_runs(run_ids: Sequence[str]) -> None:
    """Show the runs of these ids, live while any of them runs."""
    runs: list[Run] = []
    live: set[str] = set()
    for run_id in run_ids:
        try:
            run = run_store().find(run_id)
            if live_status(run).live:
                live.add(run_id)
        except RunError as error:
            st.error(plain(error), icon=":material/broken_image:")
            close_button(run_id)
        else:
            runs.append(run)
    if not runs:
        return
    with st.container(key="live_runs"):
        st.fragment(run_every=REFRESH_SECONDS if live else None)(_show_runs)(runs, live)


def _show_runs(runs: Sequence[Run], were_live: set[str]) -> None:
    for root in {run.path.parent for run in runs if run.run_id in were_live}:
        tend(root)
    views: list[RunView] = []
    for run in runs:
        try:
            view = load_run(run)
        except RunError as error:
            st.error(plain(error), icon=":material/broken_image:")
            continue
        if run.run_id in were_live and not view.status.live:
            st.rerun()  # the page then declares the fragment anew, without a timer where all have ended
        views.append(view)
    by_id = {run.run_id: run for run in runs}
    for view, label in zip(views, view_labels(views), strict=True):
        run = by_id[view.record.run_id]
        if len(views) == 1:
            show_title(run, view)
            show_state(run, view)
            show_numbers(view)
            _show_afterwards(run, view)
        else:
            show_title(run, view, label)
            show_state(run, view, numbers_line(view))
    _show_links(runs, views)
    _show_figures([view for view in views if len(view.steps)])
    show_problems(views)


def _show_afterwards(run: Run, view: RunView) -> None:
    """Tell what recording cost, and how the run's updates compare with float64, where that was checked."""
    cost = cost_finding(view.steps, view.record.config)
    if cost:
        st.caption(plain(cost))
    updates = run.updates() if view.record.config.check_update and not view.status.live else ()
    if len(updates):
        _, sentence = run_verdict(run, updates)
        st.markdown(plain(f"Its weight updates beside float64: {sentence[0].lower()}{sentence[1:]}"))
        link_page("updates", "All ways to update, side by side")


def _show_links(runs: Sequence[Run], views: Sequence[RunView]) -> None:
    """Lead on to the pages that answer what one asks next, once there is nothing left to wait for."""
    recorded = [view.record.run_id for view in views if len(view.steps)]
    if not recorded or any(view.status.live for view in views):
        return
    alone = len(runs) == 1
    beside = baseline_of(runs[0], run_store().list_runs()) if alone else None
    ids = [beside.run_id, *recorded] if beside else recorded
    with st.container(horizontal=True):
        link_page("compare", f"See {'it' if alone else 'them'} on Compare", {"runs": ",".join(ids)})
        if alone:
            link_page("whatif", "Which S should I use?", {"seen": recorded[0]})
            link_page("blame", "Which layer limits S?", {"seen": recorded[0]})
            link_page("whatif", "Would BF16 have helped?", {"seen": recorded[0], "format": "BF16"})
        else:
            link_page("layers", "Which layers lose what?", {"runs": ",".join(recorded)})
        for view, label in zip(views, view_labels(views), strict=True):
            if view.steps["skipped"].any():
                words = "Why were steps skipped?" if alone else f"Why did {label} skip steps?"
                link_page("blame", words, {"seen": view.record.run_id})


def _show_figures(views: Sequence[RunView]) -> None:
    """Draw which layers lost what so far, and loss, S and flushed share: the same axis of steps in both."""
    if not views:
        return
    mode, labels, cells = colour_mode(), view_labels(views), flushed_map_views(views)
    if any(len(frame) for frame in cells):
        figure = flushed_maps_figure(views, cells, mode)
        keep_zoom(figure, "live_layers")
        found = [f"{name}: {flushed_map_finding(frame)}" for name, frame in zip(labels, cells, strict=True)]
        alt = f"Flushed share, layer by layer, over the steps so far. {'; '.join(found)}."
        show_figure(
            figure,
            "live_layers",
            alt,
            lambda: stacked_frame(dict(zip(labels, cells, strict=True)), "run"),
        )
    elif all(view.record.config.reference_every == 0 for view in views):
        st.caption("No FP32 reference is recorded, so that nothing tells what is flushed.")
    figure = timelines_figure(views, mode)
    keep_zoom(figure, "live_timeline")
    alt = f"Loss, loss scale and flushed share so far of {', '.join(labels)}"
    show_figure(figure, "live_timeline", alt, lambda: timelines_frame(views))
    show_pictures(views)
