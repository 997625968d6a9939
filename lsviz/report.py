"""One self-contained HTML file about some runs: it opens offline, and holds every figure."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import plotly.graph_objects as go
import plotly.io

from lsviz import __version__
from lsviz.analysis.blame import blame_headline, bottleneck_finding
from lsviz.analysis.compare import difference_frame, run_label, run_labels, settings_and_results
from lsviz.analysis.curves import scale_curve_finding, scale_curve_frame, working_scales
from lsviz.analysis.findings import finding, format_scale
from lsviz.analysis.history import history_finding, history_frame
from lsviz.analysis.limits import Judged, advice, judge_run
from lsviz.analysis.reaction import ReactingRun, reaction_finding, reaction_frame
from lsviz.analysis.results import run_result
from lsviz.analysis.shares import layer_names
from lsviz.analysis.view import RunView, common_steps, early_step
from lsviz.analysis.window import layer_outputs, nearest_scale, unscaled_frame, window_frame
from lsviz.charts.curves import scale_curve_figure
from lsviz.charts.headroom import headroom_figure
from lsviz.charts.history import history_figure
from lsviz.charts.reaction import reaction_figure
from lsviz.charts.theme import FONT, PALETTES
from lsviz.charts.views import metrics_figure, spectra_figure, timelines_figure, view_labels, view_shares
from lsviz.charts.window import window_figure
from lsviz.errors import UserError
from lsviz.formats import FP16
from lsviz.jobs.manager import live_status
from lsviz.runs.files import writing_whole
from lsviz.runs.reader import Run
from lsviz.runs.reproduction import RunResult
from lsviz.training.catalog import TASKS

MAX_RUNS: Final = 100
_SEVERAL_SEEDS: Final = "Lines are means over the seeds, pale bands from the lowest to the highest."
MAX_FACETS: Final = 4
CURVE_POINTS: Final = 3
"""From so many constant scales on, a report draws the U-curve."""
RESCUE: Final = 8.0
"""The paper's S, whose band Figure 3 frames where no run of the report has a constant one."""

_CONFIG: Final = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
_STYLE: Final = """
body {{ font-family: {font}; color: {text}; background: {paper}; max-width: 1240px; margin: 2rem auto;
  padding: 0 1rem; line-height: 1.45 }}
h1 {{ font-size: 1.8rem }} h2 {{ font-size: 1.25rem; margin: 2.2rem 0 .3rem }}
p, figcaption, footer {{ color: {muted}; margin: .2rem 0 }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .92rem }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid {grid}; white-space: nowrap }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1rem }} figure {{ margin: 0; max-width: 256px }}
figure img {{ width: 100%; image-rendering: pixelated; border-radius: 4px }}
"""


class ReportError(UserError):
    """No report can be made of these runs; the message says why."""


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


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write a report about runs to an HTML file, as a whole or not at all.

    Raises:
        ReportError: There are no runs, or too many.
        RunError: A run can't be read.
        RunFolderError: The file can't be written.
    """
    document = report_html(runs)
    with writing_whole(path) as temporary:
        temporary.write_text(document, encoding="utf-8")


def report_html(runs: Sequence[Run]) -> str:
    """Return the report as HTML: figures of the first four runs, curves and tables of all.

    Raises:
        ReportError: There are no runs, or too many.
        RunError: A run can't be read.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ReportError(f"a report takes 1 to {MAX_RUNS} runs, got {len(runs)}")
    views = [RunView.of(run, live_status(run)) for run in runs]
    shown = views[:MAX_FACETS]
    judged = [judge_run(run, FP16, must_ask=False) for run in runs[:MAX_FACETS]]
    sections = [*_spectra(shown), *_whatif(runs, judged), _timelines(shown), *_skips(shown, judged)]
    sections += [*_reactions(runs), *_curves(runs), *_histories(shown)]
    sections += [*_pictures(shown), _differences(views)]
    return _page(sections, views)


def _spectra(views: Sequence[RunView]) -> list[Section]:
    recorded = [view for view in views if view.recorded_steps]
    steps = common_steps(recorded)
    if not steps:
        return []
    step = early_step(steps, max(view.record.config.steps for view in recorded))
    shares = view_shares(recorded, step)
    caption = (
        f"Gradients at each layer's output at step {step}. Dotted: what FP32 has. Filled: what the run "
        "keeps. Pale: what FP16 flushes to zero."
    )
    return [Section(finding(shares), spectra_figure(recorded, shares, step, "light"), caption)]


def _whatif(runs: Sequence[Run], asked: Sequence[Judged]) -> list[Section]:
    """The slider over the gradients of the first run that has FP32 references."""
    for run, judged in zip(runs, asked, strict=False):
        rows, found = judged.rows, judged.found
        layers = [] if rows is None or rows.censored else layer_names(rows.keys)
        if rows is None or found is None or not layers:
            continue
        outputs = layer_outputs(rows.pooled(), layers)
        figure = window_figure(
            unscaled_frame(outputs, layers),
            window_frame(outputs, layers, FP16),
            layers,
            FP16,
            nearest_scale(judged.scale or 1.0),
            "light",
        )
        caption = (
            f"What if, for {run_label(run.config)}: drag the slider, and S moves FP16's range over the "
            "gradients. Shares are of one cast of the FP32 gradients of all recorded steps."
        )
        return [Section(advice(run.config, judged), figure, f"{caption} {judged.limits.finding}.")]
    return []


def _timelines(views: Sequence[RunView]) -> Section:
    return Section("Loss, loss scale and flushed share", timelines_figure(views, "light"))


def _skips(views: Sequence[RunView], asked: Sequence[Judged]) -> list[Section]:
    """Who overflowed first in each run that skipped steps, and how near to it every layer was."""
    sections = []
    for label, view, judged in zip(view_labels(views), views, asked, strict=True):
        if judged.blame.empty or judged.headroom.empty:
            continue
        limits = judged.limits.finding if judged.limits.forbids else ""
        title, why = blame_headline(judged.blame, len(view.steps), limits)
        limiting = None if judged.bottleneck is None else judged.bottleneck.layer
        figure = headroom_figure(judged.headroom, judged.blame, "light", limiting)
        sections.append(
            Section(f"{label}: {title}", figure, f"{why} {bottleneck_finding(judged.bottleneck)}")
        )
    return sections


def _reactions(runs: Sequence[Run]) -> list[Section]:
    """S of all runs around the first fault that any has."""
    faults = [fault for run in runs for fault in run.config.injections]
    if not faults:
        return []
    first = min(faults, key=lambda fault: fault.step)
    given = [run for run in runs if first in run.config.injections]
    labels = run_labels([run.record for run in given])
    reacting = [ReactingRun.of(run) for run in given]
    figure = reaction_figure(reacting, labels, first, "light")
    caption = "Where every layer has its own S, that of the faulty one."
    return [Section(reaction_finding(reaction_frame(reacting, labels)), figure, caption)]


def _curves(runs: Sequence[Run]) -> list[Section]:
    """The metric over the steps for every task, and over S where there are enough constant scales."""
    by_task: dict[str, list[RunResult]] = {}
    for run in runs:
        by_task.setdefault(run.config.task, []).append(run_result(run))
    sections = []
    for task, results in by_task.items():
        if any(result.history for result in results):
            name = next((r.metric_name for r in results if r.metric_name), None) or "metric"
            caption = _SEVERAL_SEEDS if len({run.config.seed for run in runs}) > 1 else ""
            sections.append(
                Section(f"{task}: {name} over the steps", metrics_figure(results, "light"), caption)
            )
        curve = scale_curve_frame(results)
        if len(curve) >= CURVE_POINTS and task in TASKS:
            fp32 = [r.metric for r in results if r.precision == "fp32"]
            window = working_scales(task, curve, fp32)
            title = scale_curve_finding(task, curve, fp32) if fp32 else f"{task}: from small S to large"
            figure = scale_curve_figure(curve, TASKS[task].metric_name, "light", window)
            sections.append(Section(title, figure, "A point for every constant S."))
    return sections


def _histories(views: Sequence[RunView]) -> list[Section]:
    sections = []
    constant = [v.record.config.initial_policy for v in views if v.record.config.precision == "fp16"]
    scales = [policy.loss_scale for policy in constant if policy.name == "constant"]
    rescue = max([*scales, RESCUE]) if scales else RESCUE
    for label, view in zip(view_labels(views), views, strict=True):
        history = history_frame(view.exponents, view.layers)
        if len(history):
            title = f"{label}: {history_finding(history, rescue, FP16)}"
            framed = f"framed: what S = {format_scale(rescue)} brings into FP16's range"
            caption = f"Gradients in FP32 over the training, all layers; {framed}."
            sections.append(Section(title, history_figure(history, rescue, "light"), caption))
    return sections


def _pictures(views: Sequence[RunView]) -> list[Section]:
    drawn = [(label, v) for label, v in zip(view_labels(views), views, strict=True) if v.picture]
    if not drawn:
        return []
    originals = {view.original: "original" for _, view in drawn if view.original}
    items = [*originals.items(), *((view.picture, label) for label, view in drawn)]
    figures = [
        f'<figure><img alt="{html.escape(label)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture).decode()}"><figcaption>{html.escape(label)}</figcaption></figure>'
        for picture, label in items
        if picture
    ]
    return [Section("What each run learned", f'<div class="pictures">{"".join(figures)}</div>')]


def _differences(views: Sequence[RunView]) -> Section:
    rows = [settings_and_results(v.record, v.steps, v.status) for v in views]
    frame = difference_frame(view_labels(views), rows)
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in ["", *frame.columns])
    body = "".join(
        f"<tr><th>{html.escape(str(key).replace('_', ' '))}</th>"
        + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row)
        + "</tr>"
        for key, row in zip(frame.index, frame.astype(object).to_numpy(), strict=True)
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return Section("What differs" if len(views) > 1 else "Settings and results", table)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:,.5g}" if isinstance(value, float) else str(value)


def _page(sections: Sequence[Section], views: Sequence[RunView]) -> str:
    palette = PALETTES["light"]
    style = _STYLE.format(
        font=FONT, text=palette.text, muted=palette.muted, grid=palette.grid, paper=palette.paper
    )
    title = html.escape(
        ", ".join(dict.fromkeys(run_label(view.record.config) for view in views[:MAX_FACETS]))
    )
    tasks = html.escape(", ".join(dict.fromkeys(view.record.config.task for view in views)))
    parts, library = [], True
    for section in sections:
        body = section.body
        if isinstance(body, go.Figure):
            body = plotly.io.to_html(body, include_plotlyjs=library, full_html=False, config=_CONFIG)
            library = False
        caption = f"<p>{html.escape(section.caption)}</p>" if section.caption else ""
        parts.append(f"<section><h2>{html.escape(section.title)}</h2>{caption}{body}</section>")
    problems = [f"{view.record.run_id}: {problem}" for view in views for problem in view.problems]
    told = "".join(f"<p>{html.escape(problem)}</p>" for problem in problems)
    left = (
        f"<p>Figures show the first {MAX_FACETS} of {len(views)} runs.</p>" if len(views) > MAX_FACETS else ""
    )
    made = f"Made by lsviz {__version__}: {', '.join(view.record.run_id for view in views)}."
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lsviz: {tasks}</title><style>{style}</style></head><body>"
        f"<h1>{tasks}: {title}</h1>{left}{told}{''.join(parts)}"
        f"<footer><p>{html.escape(made)}</p></footer></body></html>\n"
    )
