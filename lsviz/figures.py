"""Figures of recorded runs, each with a sentence on what one sees: for reports and for files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import plotly.graph_objects as go

from lsviz.analysis.blame import blame_headline, bottleneck_finding
from lsviz.analysis.compare import run_label, run_labels
from lsviz.analysis.curves import scale_curve_finding, scale_curve_frame, working_scales
from lsviz.analysis.findings import finding, format_scale
from lsviz.analysis.flushmap import flushed_map_finding
from lsviz.analysis.history import history_finding, history_frame
from lsviz.analysis.layers import all_names, layers_finding, layers_frame, telling_names, told_shares
from lsviz.analysis.limits import Judged, advice, judge_run
from lsviz.analysis.reaction import ReactingRun, reaction_finding, reaction_frame
from lsviz.analysis.results import run_result
from lsviz.analysis.shares import layer_names
from lsviz.analysis.view import RunView, common_steps, early_step
from lsviz.analysis.window import layer_outputs, nearest_scale, unscaled_frame, window_frame
from lsviz.charts.curves import scale_curve_figure
from lsviz.charts.headroom import headroom_figure
from lsviz.charts.history import history_figure
from lsviz.charts.layerparts import LayerFacet
from lsviz.charts.layers import MOST_ROWS, layers_figure
from lsviz.charts.reaction import reaction_figure
from lsviz.charts.scalemap import scale_map_figure
from lsviz.charts.theme import Mode, policy_colour
from lsviz.charts.views import (
    flushed_map_views,
    flushed_maps_figure,
    metrics_figure,
    spectra_figure,
    timelines_figure,
    view_labels,
    view_shares,
)
from lsviz.charts.window import window_figure
from lsviz.errors import UserError
from lsviz.formats import FP16
from lsviz.jobs.manager import live_status
from lsviz.runs.reader import Run
from lsviz.runs.reproduction import RunResult
from lsviz.training.catalog import TASKS

MAX_RUNS: Final = 100
MAX_FACETS: Final = 4
CURVE_POINTS: Final = 3
"""From so many constant scales on, a report draws the U-curve."""
RESCUE: Final = 8.0
"""The paper's S, whose band Figure 3 frames where no run of the report has a constant one."""
_SEVERAL_SEEDS: Final = "Lines are means over the seeds, pale bands from the lowest to the highest."


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a report.

    Attributes:
        title: What one sees, as a sentence.
        body: HTML, or a figure.
        caption: How to read it; may be empty.
    """

    title: str
    body: str | go.Figure
    caption: str = ""


@dataclass(frozen=True)
class Subject:
    """Runs that figures are drawn of, read once for all of them.

    Attributes:
        runs: In the order in which they are shown.
        mode: ``light`` or ``dark``.
        step: The recorded step of figures that show one; an early one where None.
    """

    runs: Sequence[Run]
    mode: Mode = "light"
    step: int | None = None

    @cached_property
    def views(self) -> list[RunView]:
        """What is shown of every run."""
        return [RunView.of(run, live_status(run)) for run in self.runs]

    @property
    def shown(self) -> list[RunView]:
        """Those that have a facet or line each."""
        return self.views[:MAX_FACETS]

    @cached_property
    def judged(self) -> list[Judged]:
        """What each of the same runs tells of S."""
        return [judge_run(run, FP16, must_ask=False) for run in self.runs[:MAX_FACETS]]

    @cached_property
    def recorded(self) -> list[RunView]:
        """Those shown that have gradients."""
        return [view for view in self.shown if view.recorded_steps]

    @cached_property
    def shown_step(self) -> int | None:
        """The step to show; None where the runs share none.

        Raises:
            UserError: A step was asked for that is not recorded in all of them.
        """
        steps = common_steps(self.recorded)
        if not steps:
            return None
        if self.step is None:
            return early_step(steps, max(view.record.config.steps for view in self.recorded))
        if self.step not in steps:
            nearest = min(steps, key=lambda other: abs(other - (self.step or 0)))
            raise UserError(f"no gradients were recorded at step {self.step}; the nearest step is {nearest}")
        return self.step


def spectra(subject: Subject) -> list[Section]:
    """The exponents of every layer at one step, a facet a run."""
    step, recorded = subject.shown_step, subject.recorded
    if step is None:
        return []
    shares = view_shares(recorded, step)
    caption = (
        f"Gradients at each layer's output at step {step}. Dotted: what FP32 has. Filled: what the run "
        "keeps. Pale: what FP16 flushes to zero."
    )
    return [Section(finding(shares), spectra_figure(recorded, shares, step, subject.mode), caption)]


def whatif(subject: Subject) -> list[Section]:
    """The slider over the gradients of the first run that has FP32 references, or else of the first."""
    asked = list(zip(subject.runs, subject.judged, strict=False))
    for run, judged in sorted(asked, key=lambda pair: pair[1].rows is None or pair[1].rows.censored):
        rows, found = judged.rows, judged.found
        layers = [] if rows is None else layer_names(rows.keys)
        if rows is None or found is None or not layers:
            continue
        outputs = layer_outputs(rows.pooled(), layers)
        figure = window_figure(
            unscaled_frame(outputs, layers),
            window_frame(outputs, layers, FP16),
            layers,
            FP16,
            nearest_scale(judged.scale or 1.0),
            subject.mode,
        )
        seen = "gradients as recorded" if rows.censored else "FP32 gradients"
        caption = (
            f"What if, for {run_label(run.config)}: drag the slider, and S moves FP16's range over the "
            f"gradients. Shares are of one cast of the {seen} of all recorded steps."
        )
        told = f"{caption} {judged.limits.finding}. {rows.caution}".rstrip()
        return [Section(advice(run.config, judged), figure, told)]
    return []


def timelines(subject: Subject) -> list[Section]:
    """Loss, S and flushed share over the steps, a line a run."""
    return [Section("Loss, loss scale and flushed share", timelines_figure(subject.shown, subject.mode))]


def headroom(subject: Subject) -> list[Section]:
    """Who overflowed first in each run that skipped steps, and how near to it every layer was.

    Of a run by itself, also where it skipped none.
    """
    sections = []
    views = subject.shown
    for label, view, judged in zip(view_labels(views), views, subject.judged, strict=True):
        if judged.headroom.empty or (judged.blame.empty and len(views) > 1):
            continue
        limits = judged.limits.finding if judged.limits.forbids else ""
        title, why = blame_headline(judged.blame, len(view.steps), limits)
        limiting = None if judged.bottleneck is None else judged.bottleneck.layer
        figure = headroom_figure(judged.headroom, judged.blame, subject.mode, limiting)
        sections.append(
            Section(f"{label}: {title}", figure, f"{why} {bottleneck_finding(judged.bottleneck)}")
        )
    return sections


def reaction(subject: Subject) -> list[Section]:
    """S of all runs around the first fault that any has."""
    faults = [fault for run in subject.runs for fault in run.config.injections]
    if not faults:
        return []
    first = min(faults, key=lambda fault: fault.step)
    given = [run for run in subject.runs if first in run.config.injections]
    labels = run_labels([run.record for run in given])
    reacting = [ReactingRun.of(run) for run in given]
    figure = reaction_figure(reacting, labels, first, subject.mode)
    caption = "Where every layer has its own S, that of the faulty one."
    return [Section(reaction_finding(reaction_frame(reacting, labels)), figure, caption)]


def curves(subject: Subject) -> list[Section]:
    """The metric over the steps for every task, and over S where there are enough constant scales."""
    return [s for task in _by_task(subject) for s in (*_metric(subject, task), *_curve(subject, task))]


def metric(subject: Subject) -> list[Section]:
    """The metric over the steps, for every task."""
    return [section for task in _by_task(subject) for section in _metric(subject, task)]


def curve(subject: Subject) -> list[Section]:
    """The metric over S, for every task that has enough constant scales."""
    return [section for task in _by_task(subject) for section in _curve(subject, task)]


_Results = tuple[str, list[RunResult]]


def _by_task(subject: Subject) -> list[_Results]:
    by_task: dict[str, list[RunResult]] = {}
    for run in subject.runs:
        by_task.setdefault(run.config.task, []).append(run_result(run))
    return list(by_task.items())


def _metric(subject: Subject, of: _Results) -> list[Section]:
    task, results = of
    if not any(result.history for result in results):
        return []
    name = next((r.metric_name for r in results if r.metric_name), None) or "metric"
    caption = _SEVERAL_SEEDS if len({run.config.seed for run in subject.runs}) > 1 else ""
    return [Section(f"{task}: {name} over the steps", metrics_figure(results, subject.mode), caption)]


def _curve(subject: Subject, of: _Results) -> list[Section]:
    task, results = of
    frame = scale_curve_frame(results)
    if len(frame) < CURVE_POINTS or task not in TASKS:
        return []
    fp32 = [r.metric for r in results if r.precision == "fp32"]
    window = working_scales(task, frame, fp32)
    title = scale_curve_finding(task, frame, fp32) if fp32 else f"{task}: from small S to large"
    figure = scale_curve_figure(frame, TASKS[task].metric_name, subject.mode, window)
    return [Section(title, figure, "A point for every constant S.")]


def history(subject: Subject) -> list[Section]:
    """The paper's Figure 3 of each run: exponents over the whole training."""
    sections, views = [], subject.shown
    constant = [v.record.config.initial_policy for v in views if v.record.config.precision == "fp16"]
    scales = [policy.loss_scale for policy in constant if policy.name == "constant"]
    rescue = max([*scales, RESCUE]) if scales else RESCUE
    for label, view in zip(view_labels(views), views, strict=True):
        frame = history_frame(view.exponents, view.layers)
        if len(frame):
            title = f"{label}: {history_finding(frame, rescue, FP16)}"
            framed = f"framed: what S = {format_scale(rescue)} brings into FP16's range"
            caption = f"Gradients in FP32 over the training, all layers; {framed}."
            sections.append(Section(title, history_figure(frame, rescue, subject.mode), caption))
    return sections


def layers(subject: Subject) -> list[Section]:
    """The map of layers at one step, a facet a run."""
    step = subject.shown_step
    if step is None:
        return []
    kind = "weight_grad" if all(view.shows_weights for view in subject.recorded) else "activation_grad"
    facets, shares = [], []
    for label, view in zip(view_labels(subject.recorded), subject.recorded, strict=True):
        config = view.record.config
        rows = view.exponents[view.exponents["step"] == step]
        frame = layers_frame(rows, kind, FP16, expected=True, half=config.precision == "fp16")
        told = told_shares(frame, config.precision, config.policy)
        words = told.scale_words if len(frame) else "not recorded"
        if not frame["compared"].any():
            words += ", as recorded: no reference"
        colour = policy_colour(config.policy, config.precision, subject.mode)
        facets.append(LayerFacet(label, words, colour, frame))
        shares.append(told)
    frames = [facet.layers for facet in facets]
    names = telling_names(frames, all_names(frames), MOST_ROWS, "")
    title = layers_finding(shares, "weight" if kind == "weight_grad" else "layer")
    caption = f"Step {step}: what FP32 has, times S. Orange: flushed to zero."
    return [Section(title, layers_figure(facets, names, subject.mode, FP16), caption)]


def scales(subject: Subject) -> list[Section]:
    """Every layer at every S, of each run that can be asked."""
    sections = []
    for run, judged in zip(subject.runs, subject.judged, strict=False):
        if judged.rows is None or judged.found is None or judged.scale_map is None:
            continue
        found = replace(judged.found, best=judged.scale)
        rows = layer_names(judged.rows.keys)
        ceilings = judged.layer_ceilings
        figure = scale_map_figure(judged.scale_map, rows, found, subject.mode, ceilings)
        caption = "The stronger the orange, the more of a layer's values a cast at that S would flush."
        sections.append(Section(advice(run.config, judged), figure, caption))
    return sections


def flushed(subject: Subject) -> list[Section]:
    """Each layer's flushed share over the steps, a panel a run."""
    cells = flushed_map_views(subject.shown)
    if not any(len(frame) for frame in cells):
        return []
    told = zip(view_labels(subject.shown), cells, strict=True)
    title = "; ".join(f"{label}: {flushed_map_finding(frame)}" for label, frame in told)
    return [Section(title, flushed_maps_figure(subject.shown, cells, subject.mode))]
