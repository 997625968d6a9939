"""What the command line shows of replay, blame, layers and skips in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
from rich.table import Table

from lsviz.analysis.blame import cause_words
from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.replay import Replay
from lsviz.analysis.series import GradientSeries
from lsviz.analysis.skips import skips_finding
from lsviz.console import Text, open_console

MOST_STEPS: Final = 20
"""Rows that a table of steps shows."""

_COUNTED: Final = {
    "optimizer_steps": "optimizer steps",
    "scheduler_steps": "schedule steps",
    "skipped_at_the_start": "skipped before the first update",
    "longest_streak": "longest streak",
}


def replay_table(done: Replay, policy: str, read: GradientSeries, note: str) -> None:
    """Print where S changes under a replayed policy, beside the recorded S."""
    console = open_console()
    frame = done.frame()
    recorded = dict(zip(read.steps.tolist(), read.loss_scale.tolist(), strict=True))
    exact = "exact throughout" if not done.reason else f"exact until step {done.exact_until:,}"
    console.print(Text(f"{policy}: {len(done.skipped):,} of {len(frame):,} steps skipped, {exact}"))
    if done.reason:
        console.print(Text(f"from there on a guess: {done.reason}"))
    if note:
        console.print(Text(f"but for what is flushed: {note}"))
    changed = frame[frame["loss_scale"] != frame["loss_scale"].shift()]
    table = _table("from step", "S", "recorded S", "skips until S changes again")
    ends = [*changed["step"].iloc[1:].tolist(), None]
    for row, end in list(zip(changed.to_dict("records"), ends, strict=True))[:MOST_STEPS]:
        inside = [s for s in done.skipped if s >= row["step"] and (end is None or s < end)]
        cells = [f"{row['step']:,}", format_scale(row["loss_scale"])]
        cells += [format_scale(recorded[row["step"]]), f"{len(inside):,}"]
        table.add_row(*map(Text, cells))
    console.print(table)
    _tell_rest(len(changed))


def blame_table(skipped: pd.DataFrame, layers: pd.DataFrame, findings: Sequence[str]) -> None:
    """Print what was found, who overflowed first at each skipped step, and every layer's headroom."""
    console = open_console()
    for finding in findings:
        console.print(Text(finding if finding.endswith(".") else f"{finding}."))
    if len(skipped):
        table = _table("step", "S", "began in", "held", "because", "largest in FP32", "fits up to S")
        for row in skipped.head(MOST_STEPS).to_dict("records"):
            cells = [
                f"{row['step']:,}",
                format_scale(row["loss_scale"]),
                row["tensor"] or "–",
                row["found"] or "–",
            ]
            cells += [cause_words(row), _number(row["largest"]), _scale(row["fits"])]
            table.add_row(*(Text(str(cell)) for cell in cells))
        console.print(table)
        _tell_rest(len(skipped))
    if len(layers):
        table = _table("layer", "least headroom", "at step", "median headroom", "own S up to")
        for row in layers.to_dict("records"):
            cells = [row["layer"] or "(model)", f"{row['least']} binades", f"{row['step']:,}"]
            table.add_row(*map(Text, [*cells, f"{row['median']:g} binades", _scale(2.0 ** row["allows"])]))
        console.print(table)


def one_scale_table(costs: pd.DataFrame, finding: str) -> None:
    """Print each layer's flushed share at the S that all can have, and at its own."""
    console = open_console()
    console.print(Text(finding))
    table = _table("layer", "one S", "flushed", "own S", "flushed there", "saved")
    for row in costs.to_dict("records"):
        cells = [str(row["layer"]), format_scale(row["scale"]), format_percent(row["flushed"])]
        cells += [format_scale(row["own_scale"]), format_percent(row["own_flushed"])]
        table.add_row(*map(Text, [*cells, format_percent(row["saved"])]))
    console.print(table)


def skips_table(frame: pd.DataFrame) -> None:
    """Print what skipping cost each run."""
    console = open_console()
    for row in frame.to_dict("records"):
        console.print(Text(f"{row['run_id']} ({row['policy']})", style="bold"))
        console.print(Text(skips_finding(row)))
        table = _table(
            "optimizer steps", "schedule steps", "skipped before the first update", "longest streak"
        )
        cells = [
            row[name]
            for name in ("optimizer_steps", "scheduler_steps", "skipped_at_the_start", "longest_streak")
        ]
        table.add_row(*(Text(f"{cell:,}") for cell in cells))
        console.print(table)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    return table


def _tell_rest(rows: int) -> None:
    if rows > MOST_STEPS:
        open_console().print(Text(f"and {rows - MOST_STEPS:,} more; --json has all"))


def _number(value: Any) -> str:
    return "–" if pd.isna(value) else f"{value:.3g}"


def _scale(value: Any) -> str:
    return "–" if pd.isna(value) else format_scale(float(value))
