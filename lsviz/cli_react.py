"""``lsviz react``: how runs reacted to the faults that they were given. It reads files alone; no torch."""

from __future__ import annotations

import math
from typing import Annotated

import pandas as pd
import typer
from rich.table import Table

from lsviz import options
from lsviz.analysis.compare import run_labels
from lsviz.analysis.findings import format_scale
from lsviz.analysis.reaction import ReactingRun, reaction_finding, reaction_frame
from lsviz.cli_analysis import Runs, find_run
from lsviz.console import Text, open_console, print_error, print_json
from lsviz.errors import UserError


def react(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, or ids of runs.")],
    runs: Runs = None,
    as_json: options.Json = False,
) -> None:
    """Tell how runs reacted to the faults injected into them."""
    found = [find_run(name, runs) for name in run_ids]
    faulty = [run for run in found if run.config.inject]
    if not faulty:
        raise UserError("no fault was injected into these runs; train some with --inject 20:layer3:inf")
    for run in found:
        if not run.config.inject:
            print_error(f"note: no fault was injected into {run.run_id}; it is left out")
    labels = run_labels([run.record for run in faulty])
    frame = reaction_frame([ReactingRun.of(run) for run in faulty], labels)
    if as_json:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        print_json({"finding": reaction_finding(frame), "reactions": rows})
    else:
        _show(frame)
    for run in faulty:
        for problem in run.problems:
            print_error(f"warning: {problem}")


def _show(frame: pd.DataFrame) -> None:
    """Print the finding and a line a run and fault."""
    console = open_console()
    console.print(Text(reaction_finding(frame)))
    if frame.empty:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("fault", overflow="fold")
    for name in ("S before", "after", "lowest", "skipped", "tries", "back after", "metric"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in frame.to_dict("records"):
        scales = [_scale(row[name]) for name in ("before", "after", "lowest")]
        recovered = row["recovered"]
        back = "not in this run" if pd.isna(recovered) else "–" if not recovered else _steps(int(recovered))
        metric = "–" if pd.isna(row["metric"]) else f"{row['metric']:.3f}"
        cells = [row["label"], f"{row['step']}:{row['layer']}:{row['kind']}", *scales]
        cells += [f"{row['skipped']:,}", f"{row['tries']:,}", back, metric]
        table.add_row(*map(Text, cells))
    console.print(table)


def _scale(value: float) -> str:
    """Return S as people read it; the statistics of logmax come to any number."""
    if pd.isna(value):
        return "–"
    return format_scale(value) if math.frexp(value)[0] == 0.5 else f"{value:,.4g}"


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number:,} steps"
