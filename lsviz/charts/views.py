"""Figures of whole runs: what pages and reports draw from `RunView`s."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pandas as pd
import plotly.graph_objects as go

from lsviz.analysis.compare import run_labels
from lsviz.analysis.curves import metric_frame
from lsviz.analysis.findings import RunShares, run_shares
from lsviz.analysis.flushmap import flushed_map_finding, flushed_map_frame
from lsviz.analysis.spectrum import spectrum_frame
from lsviz.analysis.view import RunView
from lsviz.charts.curves import MetricLine, metric_figure
from lsviz.charts.exponents import exponent_figure, run_facet
from lsviz.charts.flushmap import FlushedPanel, flushed_map_figure
from lsviz.charts.theme import Mode, policy_colour
from lsviz.charts.timelines import Timeline, timeline_figure
from lsviz.formats import FP16
from lsviz.runs.reproduction import RunResult
from lsviz.runs.tables import stacked_frame


def view_labels(views: Sequence[RunView]) -> list[str]:
    """Return the runs in a few words each, all different."""
    return run_labels([view.record for view in views])


def view_shares(views: Sequence[RunView], step: int) -> list[RunShares]:
    """Return what each run flushed at a step: what title, figure and its text are made from."""
    return [run_shares(v.record.config, v.exponents, step, v.layers, v.by_layer) for v in views]


def spectra_figure(views: Sequence[RunView], shares: Sequence[RunShares], step: int, mode: Mode) -> go.Figure:
    """Draw the exponent figure of one to four runs at one step.

    Args:
        views: One facet each.
        shares: `view_shares` at that step.
        step: A recorded step.
        mode: ``light`` or ``dark``.
    """
    # The longest list sets the order; what only another model has comes above it.
    by_length = sorted((view.layers for view in views), key=len, reverse=True)
    layers = list(dict.fromkeys(chain.from_iterable(by_length)))
    facets = [
        run_facet(label, view.record, view.exponents, step, layers, share, view.metric, mode)
        for label, view, share in zip(view_labels(views), views, shares, strict=True)
    ]
    return exponent_figure(facets, layers, mode)


def spectra_frame(views: Sequence[RunView], step: int) -> pd.DataFrame:
    """Return the numbers of `spectra_figure`: `spectrum_frame` of every run, its name in column run."""
    frames = [spectrum_frame(v.exponents, step, v.layers, FP16) for v in views]
    return stacked_frame(dict(zip(view_labels(views), frames, strict=True)), "run")


def timelines_frame(views: Sequence[RunView]) -> pd.DataFrame:
    """Return the numbers of `timelines_figure`: columns run, step, loss, loss_scale, skipped, flushed."""
    frames = [
        v.steps[["step", "loss", "loss_scale", "skipped"]].merge(v.flushed, on="step", how="left")
        for v in views
    ]
    return stacked_frame(dict(zip(view_labels(views), frames, strict=True)), "run")


def timelines_figure(views: Sequence[RunView], mode: Mode) -> go.Figure:
    """Draw loss, S and flushed share over the steps, a line a run."""
    colours = [policy_colour(v.record.config.policy, v.record.config.precision, mode) for v in views]
    lines = [
        Timeline(
            label,
            colour,
            view.steps,
            view.flushed,
            dash=colours[:i].count(colour),
            faults=view.record.config.injections,
            compared=view.record.config.reference_every > 0 or len(view.flushed) > 0,
        )
        for i, (label, colour, view) in enumerate(zip(view_labels(views), colours, views, strict=True))
    ]
    return timeline_figure(lines, max((v.record.config.steps for v in views), default=1), mode)


def flushed_map_views(views: Sequence[RunView]) -> list[pd.DataFrame]:
    """Return each run's cells of `flushed_maps_figure` (`flushed_map_frame`)."""
    return [flushed_map_frame(view.by_layer, view.layers) for view in views]


def flushed_maps_figure(views: Sequence[RunView], cells: Sequence[pd.DataFrame], mode: Mode) -> go.Figure:
    """Draw each layer's flushed share over the steps, a panel a run.

    Args:
        views: One to four runs.
        cells: `flushed_map_views` of them.
        mode: ``light`` or ``dark``.
    """
    labels = view_labels(views) if len(views) > 1 else [""]
    panels = [
        FlushedPanel(
            label,
            flushed_map_finding(frame),
            policy_colour(view.record.config.policy, view.record.config.precision, mode),
            frame,
            view.record.config.reference_every,
        )
        for label, view, frame in zip(labels, views, cells, strict=True)
    ]
    return flushed_map_figure(panels, max(view.record.config.steps for view in views), mode)


def metrics_figure(
    results: Sequence[RunResult], mode: Mode, labels: dict[str, str] | None = None, since: int | None = None
) -> go.Figure:
    """Draw the metric over the steps, a line a variant, its seeds together.

    Args:
        results: Runs of one experiment.
        mode: ``light`` or ``dark``.
        labels: Variant -> words; the variant itself where it is missing.
        since: The step from which one falls behind, marked; None for none.
    """
    frame = metric_frame(results)
    lines: list[MetricLine] = []
    colours: list[str] = []
    for variant in dict.fromkeys(frame["variant"]):
        rows = frame[frame["variant"] == variant]
        colour = policy_colour(rows["policy"].iloc[0], rows["precision"].iloc[0], mode)
        label = (labels or {}).get(variant, variant)
        lines.append(MetricLine(label, colour, rows, dash=colours.count(colour)))
        colours.append(colour)
    name = next((r.metric_name for r in results if r.metric_name), None)
    return metric_figure(lines, name or "metric", mode, since)
