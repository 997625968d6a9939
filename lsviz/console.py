"""What the command line shows in a terminal: progress, tables, errors."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text as RichText

from lsviz.analysis.compare import run_label
from lsviz.analysis.findings import format_percent, format_scale, ordinal
from lsviz.analysis.reproduction import VARIANT_LABELS, format_metric, headline
from lsviz.analysis.shares import flushed_frame, layer_names, total_flushed_frame
from lsviz.policies import Policy, Trace, format_number
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run, RunError
from lsviz.runs.reproduction import Reproduction
from lsviz.runs.showing import showable

if TYPE_CHECKING:
    from lsviz.training.loop import StepResult


WIDE_COLUMNS = 110
"""From this width on, a run's progress line has room for a bar and the metric too."""


SHOWN_TENSORS = 8
"""How many tensors a run's summary names."""


class Text(RichText):
    """Text that a terminal shows as it stands: neither rich's markup nor a terminal's commands act in it."""

    def __init__(self, text: object = "", *styles: Any, **more: Any) -> None:
        super().__init__(showable(str(text)), *styles, **more)


def open_console() -> Console:
    """Return a console on stdout that does not squeeze tables where nobody looks at a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def print_error(message: str) -> None:
    """Print one line on stderr, whatever the message holds."""
    sys.stderr.write(f"lsviz: {showable(' '.join(message.split()))}\n")


def frame_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows as strict JSON has them."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def print_json(document: Any) -> None:
    """Print strict JSON as one line on stdout."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    sys.stdout.flush()


class RunProgress:
    """A live line on stderr: step, loss, S, skipped steps, flushed share, time left.

    Prints nothing where stderr is no terminal.
    """

    def __init__(self, config: RunConfig, metric_name: str) -> None:
        self._console = Console(stderr=True)
        self._wide = self._console.width >= WIDE_COLUMNS
        self._progress = Progress(
            *([TextColumn("[bold]{task.description}"), BarColumn(bar_width=24)] if self._wide else []),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left  {task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(config.task, total=config.steps, figures="starting")
        self._metric_name = metric_name
        self._skipped = 0
        self._flushed = ""
        self._metric = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def observe(self, result: StepResult) -> None:
        """Take one step's result."""
        if self._progress.disable:
            return
        step = result.step
        self._skipped += step.skipped
        if step.metric is not None and self._wide:
            self._metric = f"  {self._metric_name} {step.metric:.3f}"
        flushed = _flushed_share(result)
        if flushed is not None:
            self._flushed = f"  flushed {format_percent(flushed)}"
        figures = (
            f"loss {step.loss:.4g}  S {format_scale(step.loss_scale)}  skipped {self._skipped}"
            f"{self._flushed}{self._metric}"
        )
        self._progress.update(self._task, completed=step.step + 1, figures=figures)


class SweepProgress:
    """A live line on stderr: runs done, runs under way, time so far; a line a run without a terminal."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self._live = console.is_terminal
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
            disable=not self._live,
        )
        self._task = self._progress.add_task("runs", total=total, now="")
        self._total, self._ended = total, 0
        self._under_way: dict[RunConfig, float] = {}
        self._steps: dict[RunConfig, int] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def start(self, config: RunConfig) -> None:
        """Take note that a run has started."""
        self._under_way[config] = time.monotonic()
        self._show()

    def advance(self, config: RunConfig, steps: int) -> None:
        """Take note of how many steps a run has done."""
        self._steps[config] = steps
        self._show()

    def observe(self, config: RunConfig, run: Run | None, error: str) -> None:
        """Take note that a run has ended, or was there already."""
        self._ended += 1
        self._steps.pop(config, None)
        began = self._under_way.pop(config, None)
        name = f"{config.task}, {run_label(config)}, seed {config.seed}"
        if run is None:
            print_error(f"{name}: {error}")
        elif began is not None and not self._live:
            took = time.monotonic() - began
            try:
                result = f"{run.record.metric_name} {_cell(run.status.metric)}"
            except RunError as error_now:  # removed in this very moment
                result = str(error_now)
            print_error(f"{self._ended}/{self._total} {name}: {result} ({took:.0f} s)")
        self._show()

    def _show(self) -> None:
        now = " | ".join(
            f"{c.task}, {run_label(c)}, seed {c.seed}{self._share(c)}" for c in list(self._under_way)
        )
        self._progress.update(self._task, completed=self._ended, now=now)

    def _share(self, config: RunConfig) -> str:
        steps = self._steps.get(config)
        return "" if steps is None else f" {format_percent(steps / config.steps)}"


def _flushed_share(result: StepResult) -> float | None:
    """Return the flushed share of all layers at one step; None where it was not recorded."""
    if not result.exponents:
        return None
    columns = ["step", "tensor", "kind", "reference", "loss_scale", "numel", "zero", "inf", "nan"]
    rows = [
        {**row.histogram.to_dict(), **{c: getattr(row, c) for c in columns[:5]}} for row in result.exponents
    ]
    frame = pd.DataFrame(rows, columns=columns)
    total = total_flushed_frame(flushed_frame(frame), layer_names(frame))
    return float(total["flushed"].iloc[-1]) if len(total) else None


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print what a run came to, one line a fact."""
    cost = f"{_cell(summary['ms_per_step'])} (median), {_cell(summary['ms_recording_per_step'])} of recording"
    facts = {
        **{
            key: summary[key]
            for key in ("task", "policy", "update", "precision", "device", "steps", "final_loss")
        },
        str(summary["metric_name"]): summary["metric"],
        "skipped_steps": summary["skipped_steps"],
        "final_loss_scale": _scale(summary["final_loss_scale"]),
        "ms_per_step": cost,
        "flushed": _worst_shares(summary["flushed"]),
        "run": summary["path"],
    }
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):17s} {_cell(value)}")


def _scale(value: float | None) -> str | None:
    return None if value is None else format_scale(value)


def _worst_shares(flushed: Mapping[str, float]) -> str:
    """Return the highest flushed shares of the last recorded step in words."""
    if not flushed:
        return "not recorded"
    ranked = sorted(flushed.items(), key=lambda item: -item[1])
    words = ", ".join(f"{name} {format_percent(share)}" for name, share in ranked[:SHOWN_TENSORS])
    rest = ranked[SHOWN_TENSORS:]
    return f"{words}, {len(rest)} others at most {format_percent(rest[0][1])}" if rest else words


def runs_table(frame: pd.DataFrame, root: Path) -> None:
    """Print a table of runs (`lsviz.analysis.listing.runs_frame`)."""
    console = open_console()
    if frame.empty:
        console.print(
            Text(f"No runs in {root}. Make one: lsviz run --task sigmoid-mlp --policy constant:1024")
        )
        return
    named = bool(frame["name"].any())
    heads = ["run", *(["name"] if named else []), "policy", "precision", "state", "task"]
    numbers = ["step", "metric", "skipped", "S", "seed"]
    lines = []
    for row in frame.to_dict("records"):
        policy = ", ".join(filter(None, (row["policy"], row["update"])))
        name = [row["name"]] if named else []
        state = row["state"] if pd.isna(row["place"]) else f"{row['state']}, {ordinal(row['place'])}"
        cells = [row["run_id"], *name, policy, row["precision"], state, row["task"]]
        cells += [f"{row['step']}/{row['steps']}", row["metric"], row["skipped_steps"]]
        scale = row["loss_scale"]
        cells += ["–" if pd.isna(scale) else format_scale(scale), row["seed"]]
        lines.append([_cell(cell) for cell in cells])
    _print_lines(console, [*heads, *numbers], lines, len(heads))


def _print_lines(console: Console, heads: list[str], rows: list[list[str]], left: int) -> None:
    """Print a table whose first column stays whole: rich takes half a second for 1,000 rows.

    Args:
        console: Where to.
        heads: A word a column.
        rows: Cells, a row a line.
        left: How many columns are aligned to the left; those after them are to the right.
    """
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    over = sum(widths) + 2 * (len(widths) - 1) - console.width
    while over > 0 and max(widths[1:]) > 4:
        widths[widths.index(max(widths[1:]), 1)] -= 1
        over -= 1
    told = []
    for row in [heads, *rows]:
        cells = []
        for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
            long = cell_len(cell) - width
            kept = f"{set_cell_size(cell, width - 1)}…" if long > 0 else cell
            pad = " " * -min(0, long)
            cells.append(kept + pad if at < left else pad + kept)
        told.append("  ".join(cells).rstrip())
    console.print(Text(told[0], "bold"), soft_wrap=True)
    console.print(Text("\n".join(told[1:])), soft_wrap=True)


def differences_table(frame: pd.DataFrame) -> None:
    """Print what differs between runs (`lsviz.analysis.compare.difference_frame`), one column a run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for label in frame.columns:
        table.add_column(Text(str(label)), justify="right", overflow="fold")
    for key, row in zip(frame.index, frame.astype(object).to_numpy(), strict=True):
        told = format_scale if key == "final_loss_scale" else _cell
        table.add_row(Text(str(key).replace("_", " ")), *(Text(told(v) if pd.notna(v) else "–") for v in row))
    open_console().print(table)


def sweep_table(frame: pd.DataFrame) -> None:
    """Print one line a policy, its seeds together (`lsviz.analysis.results.spread_frame`), if any."""
    if frame.empty:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy", overflow="fold")
    names = [str(name) for name in frame["metric_name"].dropna().unique()] or ["metric"]
    for name in (names[0], "seeds", "skipped", "flushed", "most in"):
        table.add_column(name, justify="left" if name == "most in" else "right", no_wrap=True)
    for row in frame.to_dict("records"):
        seeds = ", ".join(
            [
                f"{row['seeds']}",
                *([f"{row['unfinished']} unfinished"] if row["unfinished"] else []),
                *([f"{row['not_finite']} not finite"] if row["not_finite"] else []),
            ]
        )
        cells = [
            row["variant"],
            format_metric(row["mean"], row["spread"]),
            seeds,
            _cell(row["skipped_steps"]),
        ]
        table.add_row(*map(Text, [*cells, _share(row["flushed"]), _worst(row)]))
    open_console().print(table)


def reproduction_table(document: Reproduction, frame: pd.DataFrame) -> None:
    """Print the table beside the paper (`lsviz.analysis.reproduction.paper_frame`)."""
    console = open_console()
    for row in frame.to_dict("records"):
        console.print(Text(f"{row['experiment']} ({row['metric_name']})", style="bold"))
        cells = []
        for variant, label in VARIANT_LABELS.items():
            name = label.replace("constant S", f"S = {row['S']}")
            cells += [f"{name}: {row[variant]}"] if row[variant] else []
        console.print(Text("  " + "   ".join(cells)))
        shares = [f"at S = 1 flushed {row['flushed']}, most in {row['worst']}"] if row["worst"] else []
        shares += [f"gradscaler skips {row['skipped']} of steps"] if row["skipped"] else []
        console.print(Text("  " + "; ".join(shares)))
        console.print(Text(f"  {row['finding']}"))
        console.print(Text(f"  paper: {row['paper']}", style="dim"))
    console.print(Text(headline(document), style="bold"))


def _share(value: float) -> str:
    return "–" if math.isnan(value) else format_percent(value)


def _worst(row: Mapping[Any, Any]) -> str:
    return f"{row['worst_layer']} {_share(row['worst_flushed'])}" if row["worst_layer"] else "–"


def trace_table(trace: Trace) -> None:
    """Print what a policy did, one line a step, with what it remembers."""
    skipped = set(trace.skipped)
    print(f"{'step':>6s}  {'outcome':18s} {'S after it':12s} remembers")
    for step, (scale, counters) in enumerate(zip(trace.scales, trace.counters, strict=True)):
        outcome = "overflow, skipped" if step in skipped else "clean"
        memory = ", ".join(f"{key.replace('_', ' ')} {_cell(value)}" for key, value in counters.items())
        print(f"{step:6d}  {outcome:18s} {format_number(scale):12s} {memory}".rstrip())


def policies_table(policies: Iterable[type[Policy]]) -> None:
    """Print every policy: name, rule, settings with their defaults, source."""
    console = open_console()
    for cls in policies:
        settings = ", ".join(f"{key}={_setting(cls.model_fields[key].default)}" for key in cls.settings())
        console.print(Text(cls.name, style="bold"))
        console.print(Text(f"  {cls.rule}"))
        console.print(Text(f"  settings: {settings or 'none'}"))
        console.print(Text(f"  source: {cls.source}"))


def _setting(value: Any) -> str:
    if value is None:
        return "(none)"
    return str(value).lower() if isinstance(value, (str, bool)) else format_number(value)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e5 else format_scale(value)
    return showable(str(value))
