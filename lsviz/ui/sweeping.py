"""Sweeps on a Ray cluster, on Launch: where to train, how far each is, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import streamlit as st

from lsviz.analysis.compare import run_label
from lsviz.errors import UserError
from lsviz.jobs.sweeping import Sweep, cluster_address, has_ray, list_sweeps
from lsviz.runs.config import RunConfig
from lsviz.runs.showing import showable
from lsviz.runs.store import default_root
from lsviz.runs.sweeps import Part, SweepRecord
from lsviz.ui.access import changing
from lsviz.ui.acting import cancel_sweep, dismiss_sweep, resume_sweep
from lsviz.ui.links import link_page
from lsviz.ui.state import MAX_COMPARED, set_url_list
from lsviz.ui.text import plain

ENGINES: Final = {"local": "This machine", "ray": "Ray: CPUs", "ray-gpu": "Ray: GPUs"}
REFRESH_SECONDS: Final = 1.0
MAX_SHOWN: Final = 8
_FAILED: Final = "_sweep_failed_"


def engine_form() -> str:
    """Ask where to train, where there is a choice; return a key of `ENGINES`.

    No visitor names the cluster: who does has code run there. This machine's owner did, in RAY_ADDRESS.
    """
    if not has_ray():
        return "local"
    address = cluster_address()
    where = f"at {address}" if address != "local" else "of this machine alone, started for these runs"
    asked = st.query_params.get("engine", "")
    told = st.segmented_control(
        "Train on",
        list(ENGINES),
        default=asked if asked in ENGINES else "local",
        required=True,
        key="engine",
        format_func=ENGINES.__getitem__,
        help=f"The Ray cluster {plain(where)}: each run takes one of its CPUs, or a GPU beside it. A run "
        "that has finished here before is not trained again.",
    )
    chosen: str = told or "local"  # a browser that is not done yet sends nothing
    set_url_list("engine", [] if chosen == "local" else [chosen])
    return chosen


def show_sweeps() -> None:
    """Show the sweeps of the folder of runs, live while any is under way."""
    sweeps, broken = list_sweeps(default_root())
    for line in broken:
        st.error(plain(line), icon=":material/broken_image:")
    if sweeps:
        with st.container(key="live_sweeps"):
            live = any(sweep.record.live for sweep in sweeps[:MAX_SHOWN])
            st.fragment(run_every=REFRESH_SECONDS if live else None)(_show_sweeps)(_look(sweeps))


def _look(sweeps: Sequence[Sweep]) -> list[tuple[str, bool, int]]:
    """Return what the rest of the page hangs on: which are under way, and how many runs have landed."""
    return [(sweep.name, sweep.record.live, len(sweep.record.landed)) for sweep in sweeps]


def _show_sweeps(before: list[tuple[str, bool, int]]) -> None:
    sweeps, _ = list_sweeps(default_root())
    if _look(sweeps) != before:
        st.rerun()  # the page then lists what has landed, and declares the fragment anew, or none
    for sweep in sweeps[:MAX_SHOWN]:
        with st.container(border=True):
            _show_sweep(sweep)
    if len(sweeps) > MAX_SHOWN:
        st.caption(f"{len(sweeps) - MAX_SHOWN:,} older sweeps stand behind these: dismiss some to see them.")


def _show_sweep(sweep: Sweep) -> None:
    record = sweep.record
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{plain(_title(sweep))}**", width="stretch")
        _show_actions(sweep)
    if failed := st.session_state.pop(_FAILED + sweep.name, ""):
        st.error(plain(failed), icon=":material/error:")
    if record.error:
        st.error(plain(_sentence(record)), icon=":material/error:")
    if not record.live and not record.whole and (log := sweep.log_tail()):
        with st.popover("Its log", icon=":material/notes:", help="The last lines that its driver wrote."):
            st.code(showable(log), language=None, wrap_lines=True)
    for part in record.parts:
        _show_part(part, record)
    notes = [f"{note[:1].upper()}{note[1:]}." for note in record.notes]
    where = [] if record.cluster == "local" else [f"Cluster at {record.cluster}."]
    if notes or where:
        st.caption(plain(" ".join([*where, *notes])))
    ids = record.landed[:MAX_COMPARED]
    if not record.live and len(ids) > 1:
        link_page("compare", "See them on Compare", {"runs": ",".join(ids)})


def _title(sweep: Sweep) -> str:
    record = sweep.record
    number = len(record.parts)
    runs = "1 run" if number == 1 else f"{number:,} runs"
    if record.state == "waiting":
        return f"{runs} on Ray: waiting for another sweep to end"
    if sweep.ending:
        return f"{runs} on Ray: ending, what has finished stays"
    words = {
        "starting": "starting, which takes some seconds",
        "running": "under way",
        "finished": "finished" if record.whole else "ended",
        "cancelled": "cancelled",
        "failed": "failed",
        "interrupted": "interrupted",
    }[record.state]
    done = "" if record.whole else f", {len(record.landed):,} of {number:,} done"
    return f"{runs} on Ray: {words}{done}"


def _sentence(record: SweepRecord) -> str:
    error = record.error or ""
    more = "" if record.whole else " Go on trains what is missing."
    return f"{error[:1].upper()}{error[1:].rstrip('.')}.{more}"


def _show_part(part: Part, record: SweepRecord) -> None:
    name = _part_name(part.config)
    if part.run_id is not None:
        known = part.metric is not None and part.metric_name is not None
        result = f" with {part.metric_name} {part.metric:.3f}" if known else ""
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.progress(1.0, text=plain(f"{name}: finished{result}"), width="stretch")
            link_page("launch", "See it", {"run": part.run_id})
    elif part.state == "failed":
        st.progress(_share(part), text=plain(f"{name}: failed"))
        st.code(showable(part.error or "for no reason that it told"), language=None, wrap_lines=True)
    elif not record.live:
        st.progress(0.0, text=plain(f"{name}: not trained"))
    elif part.state == "running":
        steps = f"step {part.step:,} of {part.config.steps:,}" if part.step else "loading torch and the data"
        st.progress(_share(part), text=plain(f"{name}: {steps}"))
    else:
        st.progress(0.0, text=plain(f"{name}: waiting for room"))


def _part_name(config: RunConfig) -> str:
    return f"{run_label(config)} on {config.task}, seed {config.seed}"


def _share(part: Part) -> float:
    return min(1.0, part.step / max(1, part.config.steps))


def _show_actions(sweep: Sweep) -> None:
    record = sweep.record
    if record.live:
        words = "End its runs now." if sweep.ending else "End it. Runs that have finished stay."
        _action("End it now" if sweep.ending else "Cancel", ":material/stop:", sweep, cancel_sweep, words)
        return
    if not record.whole:
        words = "Train what is missing. What has finished is not trained again."
        _action("Go on", ":material/play_arrow:", sweep, resume_sweep, words)
    _action("Dismiss", ":material/close:", sweep, dismiss_sweep, "Its runs stay.")


def _action(label: str, icon: str, sweep: Sweep, act: Callable[[Sweep], object], words: str) -> None:
    key = f"{label.lower().replace(' ', '_')}-{sweep.name}"
    kind = "tertiary" if act is dismiss_sweep else "secondary"
    # By callback, so that what follows in the same run of the page already shows what came of it.
    st.button(label, icon=icon, key=key, type=kind, on_click=_carry_out, args=(act, sweep), **changing(words))


def _carry_out(act: Callable[[Sweep], object], sweep: Sweep) -> None:
    try:
        act(sweep)
    except UserError as error:
        st.session_state[_FAILED + sweep.name] = str(error)
