"""What the command line shows of checked updates in a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from lsviz.analysis.findings import format_percent
from lsviz.analysis.lab import lab_finding, lab_frame
from lsviz.analysis.updates import format_error, format_ratio
from lsviz.console import Text, open_console
from lsviz.runs.lab import Lab

SHOWN_STEPS = 10


def lab_table(document: Lab) -> None:
    """Print one line a way to update the weights, and what they show together."""
    console = open_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("update", no_wrap=True)
    metric = next((r.metric_name for r in document.variants if r.metric_name), "metric")
    for name in ("weights off", "norm seen", "step", "do nothing", metric):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in lab_frame(document).to_dict("records"):
        cells = [
            row["name"],
            format_error(row["weight_error"]),
            format_ratio(row["norm_ratio"]),
            format_ratio(row["step_ratio"]),
            _share(row["stalled"]),
            "–" if math.isnan(row["metric"]) else f"{row['metric']:.3f}",
            row["error"] or row["verdict"],
        ]
        table.add_row(*(Text(str(cell)) for cell in cells))
    console.print(table)
    console.print(
        Text(
            "weights off: distance from float64's, as a share of their way; norm seen: by clipping, over the "
            "true one; step: over float64's; do nothing: updates that leave their weight as it is",
            style="dim",
        )
    )
    console.print(Text(lab_finding(document), style="bold"))


def updates_table(summary: Mapping[str, float | None], sentence: str, updates: pd.DataFrame) -> None:
    """Print what a run's checked updates come to, and some of its steps."""
    console = open_console()
    console.print(Text(sentence, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "weights off", "norm", "norm seen", "threshold", "factor", "step size", "float64's"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("do nothing", justify="right", no_wrap=True)
    places = np.unique(np.linspace(0, len(updates) - 1, SHOWN_STEPS).round().astype(int))
    for row in updates.iloc[places].to_dict("records"):
        numbers = ("norm", "norm_seen", "clip_threshold", "clip_factor", "step_size", "ideal_step_size")
        cells = [f"{row['step']:,}", format_error(row["weight_error"])]
        cells += [_number(row[name]) for name in numbers]
        table.add_row(*(Text(cell) for cell in [*cells, _share(row["stalled"])]))
    console.print(table)
    below = summary["below"]
    if below is not None:
        console.print(Text(f"{format_percent(below)} of all updates are smaller than 2^-11 of their weight"))


def _share(value: float) -> str:
    return "–" if math.isnan(value) else format_percent(value)


def _number(value: Any) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"
