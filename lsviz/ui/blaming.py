"""Blame's parts: headroom over the steps, who overflowed first, and what one S for all costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from lsviz.analysis.blame import (
    Bottleneck,
    all_zero_finding,
    blame_headline,
    bottleneck_finding,
    cause_words,
)
from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.limits import Limits, judge_run
from lsviz.analysis.onescale import WORTH, one_scale_finding, one_scale_frame
from lsviz.analysis.shares import layer_names
from lsviz.analysis.skips import load_skipping_run, skips_finding, skips_frame
from lsviz.charts.headroom import headroom_figure
from lsviz.charts.pairs import LayerPair, pairs_figure
from lsviz.jobs.manager import live_status
from lsviz.runs.reader import Run, RunError
from lsviz.runs.store import is_sample
from lsviz.ui.ahead import read_neighbours
from lsviz.ui.links import link_page
from lsviz.ui.state import colour_mode
from lsviz.ui.text import plain, plain_frame
from lsviz.ui.widgets import FEW_ROWS, show_cautions, show_figure, show_rows

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_KINDS = {"activation_grad": "output", "weight_grad": "weight"}
_COLUMNS = {
    "step": "The training step whose update was left out.",
    "S": "The loss scale in force; under a policy with a scale for each layer, that layer's.",
    "began in": "The gradient that held Inf or NaN first, in the order in which backward computes them.",
    "gradient of": "Of a module's output, or of a weight.",
    "held": "Inf: a value too large for FP16. NaN: what comes of computing with Inf.",
    "why": "Found by repeating the batch in FP32 with S = 1, and by the run's injected faults.",
    "largest, FP32": "The largest magnitude of that gradient in FP32 with S = 1.",
    "fits up to S": "The largest power of two that this magnitude can be multiplied by without overflow.",
}
SHOWN_ROWS: Final = 8
SKIPS_LESSON: Final = "overflow"
CAST_WORDS: Final = (
    "A cast rounds each FP32 gradient to the half format once. From the lower limit on no tensor loses more "
    "than that share so; up to the upper one nothing becomes Inf."
)
TABLE_HEIGHT: Final = 320


@dataclass(frozen=True)
class Examined:
    """What a run's largest gradients tell. Shared between sessions: never change it.

    Attributes:
        headline: What to say first.
        below: What to say next.
        limits: Which layers limit S.
        cautions: What to mind before one follows them, a sentence each.
        blame: `blame_frame`.
        headroom: `headroom_frame`.
        bottleneck: The layer that fixes the global S.
        skips: What skipping cost, in one or two sentences.
        costs: `one_scale_frame`; empty where there are no references.
        costs_finding: Whether a scale per layer would help.
        task: What was trained.
        measured: Whether largest gradients were kept at all.
        problems: One line for each file that could not be read.
    """

    headline: str
    below: str
    limits: Limits
    cautions: list[str]
    blame: pd.DataFrame
    headroom: pd.DataFrame
    bottleneck: Bottleneck | None
    skips: str
    costs: pd.DataFrame
    costs_finding: str
    task: str
    measured: bool
    problems: list[str]


def skipping_first(runs: Sequence[Run]) -> list[Run]:
    """Return one's own runs, then samples with skipped steps, then the others, each in their order."""

    def place(run: Run) -> int:
        if not is_sample(run):
            return 0
        try:
            return 1 if run.status.skipped_steps > 0 else 2
        except RunError:  # what is wrong with it is told once it is chosen
            return 2

    return sorted(runs, key=place)


def examine_run(run: Run) -> Examined:
    """Return what a run tells, from memory where it has not changed since."""
    with st.spinner("Reading the run"):
        return _examined(run)


def examine_ahead(runs: Sequence[Run], chosen: Run) -> None:
    """Examine the runs beside the chosen one soon."""
    read_neighbours(runs, chosen, _examined)


def _examined(run: Run) -> Examined:
    return _examine(str(run.path.resolve()), live_status(run).updated, run)


@st.cache_resource(max_entries=12, show_spinner=False)
def _examine(path: str, updated: float, _run: Run) -> Examined:
    judged = judge_run(_run, must_ask=False)
    costs, words = pd.DataFrame(columns=["saved"]), ""
    if judged.rows is not None and not judged.rows.censored:
        rows, found, scale_map = judged.asked
        costs = one_scale_frame(scale_map, layer_names(rows.keys), found.most or 0.0, judged.layer_ceilings)
        words = one_scale_finding(costs, judged.limits.forbids)
    limits = judged.limits.headline if judged.limits.forbids else ""
    headline, below = blame_headline(judged.blame, len(judged.steps), limits)
    return Examined(
        headline=headline,
        below=below,
        limits=judged.limits,
        cautions=judged.cautions if judged.limits.forbids else [],
        blame=judged.blame,
        headroom=judged.headroom,
        bottleneck=judged.bottleneck,
        skips=skips_finding(skips_frame([load_skipping_run(_run)]).to_dict("records")[0]),
        costs=costs,
        costs_finding=words,
        task=_run.config.task,
        measured=judged.measured,
        problems=list(_run.problems),
    )


def show_finding(heading: DeltaGenerator, found: Examined) -> None:
    """Say which layers limit S, and who caused the skipped steps, if any: these first."""
    limits = plain(found.limits.finding)
    with heading:
        st.header(plain(found.headline))
        if found.limits.forbids and found.headline != found.limits.finding:
            st.markdown(f"{plain(found.below)} **{limits}.**", help=CAST_WORDS)
        elif found.below:
            st.markdown(plain(found.below))
        st.caption(plain(f"{bottleneck_finding(found.bottleneck)} {found.limits.note}"))
        show_cautions(found.cautions)


def show_headroom(found: Examined) -> None:
    """Draw every layer's headroom over the steps."""
    if found.headroom.empty:
        kept = "Every step of this run held Inf or NaN, and it has no FP32 reference to measure by."
        if not found.measured:
            kept = (
                "This run kept no largest gradients: those made with --record-every 0 do not, nor those "
                "of an earlier lsviz."
            )
        st.info(kept, icon=":material/info:")
        return
    alt = f"Headroom of each layer over the steps. {bottleneck_finding(found.bottleneck)}"
    limiting = None if found.bottleneck is None else found.bottleneck.layer
    figure = headroom_figure(found.headroom, found.blame, colour_mode(), limiting)
    show_figure(figure, "headroom", alt, found.headroom)
    st.caption(
        "Headroom: how many binades (doublings) the largest value of a layer's output or weight gradient, "
        "scaled, is below overflow. Where a step was skipped, as FP32 has it."
    )


def show_skipped(found: Examined) -> None:
    """List the skipped steps, and say what they cost."""
    if found.blame.empty:
        st.markdown(plain(f"{found.skips} {all_zero_finding(found.headroom)}"))
        return
    # Beside the sentence: a table of few rows has no room for words at its columns.
    st.markdown(
        plain(found.skips), help="\n\n".join(f"**{name}** {words}" for name, words in _COLUMNS.items())
    )
    rows = pd.DataFrame(
        {
            "step": found.blame["step"],
            "S": [format_scale(scale) for scale in found.blame["loss_scale"]],
            "began in": found.blame["tensor"].fillna("–"),
            "gradient of": found.blame["kind"].map(_KINDS).fillna("–"),
            "held": found.blame["found"].fillna("–"),
            "why": [cause_words(row) for row in found.blame.to_dict("records")],
            "largest, FP32": found.blame["largest"],
            "fits up to S": [_scale(scale) for scale in found.blame["fits"]],
        }
    )
    alt = "Each skipped step with the gradient in which Inf or NaN began"
    if len(rows) <= FEW_ROWS:
        rows["largest, FP32"] = [f"{v:.3g}" if v == v else "–" for v in found.blame["largest"]]
        show_rows(rows, alt, height=None if len(rows) <= SHOWN_ROWS else TABLE_HEIGHT)
        return
    config = {name: st.column_config.Column(help=words) for name, words in _COLUMNS.items()}
    config["largest, FP32"] = st.column_config.NumberColumn(format="%.3g", help=_COLUMNS["largest, FP32"])
    st.dataframe(
        plain_frame(rows),
        hide_index=True,
        height=TABLE_HEIGHT,
        column_config=config,
        placeholder="–",
        alt=alt,
    )


def show_next(run: Run, found: Examined) -> None:
    """Lead on to what one asks next."""
    with st.container(horizontal=True):
        link_page("whatif", "Which S should I use?", {"seen": run.run_id})
        if len(found.blame):
            link_page("learn", "Is a skipped step a fault?", {"lesson": SKIPS_LESSON})


def show_one_scale(found: Examined) -> None:
    """Draw what one S costs each layer, where it costs any."""
    if found.costs.empty:
        return
    st.subheader("One S for all, or one a layer?", anchor=False)
    st.markdown(plain(found.costs_finding))
    if found.costs["saved"].max() <= WORTH:
        return
    scale = format_scale(float(found.costs["scale"].iloc[0]))
    pairs = [
        LayerPair(
            row["layer"],
            row["own_flushed"],
            row["flushed"],
            f"{row['layer']}: {format_percent(row['flushed'])} at S = {scale}, "
            f"{format_percent(row['own_flushed'])} at its own {format_scale(row['own_scale'])}",
        )
        for row in found.costs.to_dict("records")
    ]
    figure = pairs_figure(
        pairs, ring="at a scale of its own", dot=f"at S = {scale} for all", mode=colour_mode()
    )
    show_figure(
        figure, "one_scale", f"Flushed share of each layer. {found.costs_finding}", found.costs, second=True
    )
    link_page("launch", f"Launch {found.task} with layerwise", {"task": found.task, "policy": "layerwise"})


def _scale(value: float) -> str:
    return "–" if pd.isna(value) else format_scale(value)
