"""Replay's parts: which policies, what each would have done, and where that is a guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
import streamlit as st

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.replay import Replay, replay
from lsviz.analysis.replayshares import flushing_note, recorded_frame, replay_frame
from lsviz.analysis.series import GradientSeries, load_series, run_format
from lsviz.analysis.shares import layer_names
from lsviz.analysis.skips import lost_steps_frame
from lsviz.analysis.whatif import Histograms, load_references
from lsviz.charts.replay import RECORDED, ReplayLine, replay_figure
from lsviz.charts.skips import LostLine, lost_steps_figure
from lsviz.charts.theme import policy_colour
from lsviz.jobs.manager import live_status
from lsviz.policies import POLICIES, parse_policy
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.tables import stacked_frame
from lsviz.ui.ahead import read_neighbours
from lsviz.ui.links import link_page
from lsviz.ui.policy_form import canonical_policies
from lsviz.ui.state import colour_mode, set_url_list, url_list
from lsviz.ui.text import plain
from lsviz.ui.widgets import show_figure, show_rows

FIRST_POLICIES: Final = ("gradscaler", "patent", "histogram")
MAX_REPLAYED: Final = 6
_KEY: Final = "replay.policies"

Replays = dict[str, tuple[Replay, pd.DataFrame]]
"""Each policy's replay and `replay_frame`, by string form."""


@dataclass(frozen=True)
class RunSeries:
    """What replays read of a run. Shared between sessions: never change it.

    Attributes:
        key: Its folder, and when it last changed.
        config: What it was asked to do.
        series: Its steps.
        recorded: `recorded_frame`.
        references: Its references; None where it has none.
        layers: Whose outputs count as flushed.
        problems: One line for each file that could not be read.
    """

    key: tuple[str, float]
    config: RunConfig
    series: GradientSeries
    recorded: pd.DataFrame
    references: Histograms | None
    layers: list[str]
    problems: list[str]


def choose_replayed(run: Run) -> list[str]:
    """Ask for policies; the URL holds them. The run's own comes first by default.

    Returns:
        Canonical string forms, each once; what is no policy is told and left out.
    """
    asked = url_list("replayed", ";")
    if _KEY not in st.session_state:
        first = asked or [run.config.policy, *FIRST_POLICIES]
        st.session_state[_KEY] = canonical_policies(first)[:MAX_REPLAYED]
    options = list(dict.fromkeys([*POLICIES, run.config.policy, *st.session_state[_KEY]]))
    chosen: list[str] = st.multiselect(
        "Policies",
        options,
        key=_KEY,
        accept_new_options=True,
        max_selections=MAX_REPLAYED,
        placeholder="Choose policies, or type one: megatron:hysteresis=1",
        help="Each is run over the recorded gradients. Typed ones may have settings, as on the command line.",
    )
    chosen = canonical_policies(chosen)[:MAX_REPLAYED]
    set_url_list("replayed", chosen, ";")
    return chosen


def read_series(run: Run) -> RunSeries:
    """Return what replays read of a run, from memory where it has not changed since."""
    with st.spinner("Reading the run"):
        return _series(run)


def _series(run: Run) -> RunSeries:
    return _read(str(run.path.resolve()), live_status(run).updated, run)


@st.cache_resource(max_entries=12, show_spinner=False)
def _read(path: str, updated: float, _run: Run) -> RunSeries:
    references = load_references(_run)
    layers = [] if references is None else layer_names(references.keys)
    series, fmt = load_series(_run), run_format(_run.config.precision)
    recorded = recorded_frame(series, references, fmt, layers)
    key = (path, updated)
    return RunSeries(key, _run.config, series, recorded, references, layers, list(_run.problems))


def replay_policies(read: RunSeries, policies: Sequence[str]) -> Replays:
    """Return each policy's replay and its frame, by string form."""
    with st.spinner("Replaying"):
        return _replays(read, policies)


def read_ahead(runs: Sequence[Run], chosen: Run, policies: Sequence[str]) -> None:
    """Replay these policies over the runs beside the chosen one soon."""
    read_neighbours(runs, chosen, lambda run: _replays(_series(run), policies))


def _replays(read: RunSeries, policies: Sequence[str]) -> Replays:
    return {text: _replayed(*read.key, text, read) for text in policies}


@st.cache_resource(max_entries=64, show_spinner=False)
def _replayed(path: str, updated: float, policy: str, _read: RunSeries) -> tuple[Replay, pd.DataFrame]:
    done = replay(parse_policy(policy), _read.series)
    fmt = run_format(_read.config.precision)
    return done, replay_frame(done, _read.references, fmt, _read.layers)


def replays_finding(read: RunSeries, replays: Replays) -> str:
    """Return in one sentence which policy would skip most, beside what the run skipped."""
    skipped = int(read.series.skipped.sum())
    run = f"The run skipped {_steps(skipped)}"
    own = read.config.policy
    counts = {text: len(one.skipped) for text, (one, _) in replays.items() if text != own}
    if not counts:
        return f"{run}: what would other policies have done?"
    most, least = max(counts, key=lambda text: counts[text]), min(counts, key=lambda text: counts[text])
    if counts[most] == counts[least]:
        who = most if len(counts) == 1 else f"each of {len(counts)} other policies"
        return f"{run}; {who} would skip {_steps(counts[most])}{_guess(replays[most][0])}"
    told = [f"{_steps(counts[text])}{_guess(replays[text][0])}" for text in (most, least)]
    return f"{run}; {most} would skip {told[0]}, {least} {told[1]}"


def _guess(one: Replay) -> str:
    return "" if one.guess_from is None else f" (a guess from step {one.guess_from:,} on)"


def show_replays(read: RunSeries, replays: Replays) -> None:
    """Draw S of every policy over the run's steps, and what each would flush."""
    mode, steps = colour_mode(), read.recorded
    lines = [
        ReplayLine(text, policy_colour(text, "fp16", mode), frame, one.guess_from, one.raised_at)
        for text, (one, frame) in replays.items()
    ]
    alt = f"Loss scale over {len(steps)} steps as recorded, and of {', '.join(replays) or 'no other policy'}."
    frames = {RECORDED: steps, **{text: frame for text, (_, frame) in replays.items()}}
    show_figure(replay_figure(lines, steps, mode), "replays", alt, lambda: stacked_frame(frames, "policy"))


def show_lost(read: RunSeries, replays: Replays) -> None:
    """Draw the updates that the run and each policy throw away, where any does."""
    mode = colour_mode()
    lines = [LostLine(RECORDED, None, lost_steps_frame(read.recorded))]
    lines += [
        LostLine(text, policy_colour(text, "fp16", mode), lost_steps_frame(frame))
        for text, (_, frame) in replays.items()
    ]
    if not any(line.lost["lost"].any() for line in lines):
        return
    alt = f"Updates thrown away over the steps, as recorded and of {', '.join(replays) or 'no other policy'}."
    frames = {line.label: line.lost for line in lines}
    show_figure(
        lost_steps_figure(lines, mode), "lost", alt, lambda: stacked_frame(frames, "policy"), second=True
    )


def show_table(read: RunSeries, replays: Replays) -> None:
    """Show what each policy came to, and how far that is exact."""
    rows = [
        {
            "policy": text,
            "steps skipped": len(one.skipped),
            "exact until step": one.exact_until,
            "from there a guess, because": one.reason or "–",
            "last S": format_scale(one.scales[-1]) if one.scales else "–",
            "flushed, mean": format_percent(mean) if (mean := frame["flushed"].mean()) == mean else "–",
        }
        for text, (one, frame) in replays.items()
    ]
    if not rows:
        return
    show_rows(pd.DataFrame(rows), alt="Steps skipped, last S and flushed share of each policy")
    notes = {text: flushing_note(frame, read.recorded) for text, (_, frame) in replays.items()}
    if any(notes.values()):
        told = [f"{text}: {note}." for text, note in notes.items() if note]
        st.caption("  \n".join(["Exact by its skips, but what it flushes differs:", *map(plain, told)]))
    for text, (one, _) in replays.items():
        if one.raised_at is not None:
            st.warning(
                plain(f"{text} gives up at step {one.raised_at:,}: {one.stop}"), icon=":material/warning:"
            )
    first = next(iter(replays))
    words = "Train without loss scaling" if first == "none" else f"Train with {first}"
    link_page("launch", words, {"policy": first})


def _steps(number: int) -> str:
    return "no step" if not number else "1 step" if number == 1 else f"{number:,} steps"
