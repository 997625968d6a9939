"""What the command line shows of an analysis in a terminal."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.table import Table

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.limits import Judged, advice
from lsviz.analysis.recommend import Recommendation
from lsviz.analysis.whatif import SHARES
from lsviz.console import Text, open_console
from lsviz.formats import FloatFormat
from lsviz.policies import format_number
from lsviz.runs.config import RunConfig
from lsviz.training.catalog import TASKS


def whatif_table(frame: pd.DataFrame, fmt: FloatFormat) -> None:
    """Print one step of `lsviz.analysis.whatif.whatif_frame`, a line a tensor and S."""
    console = open_console()
    if frame.empty:
        console.print(Text("No gradients were recorded."))
        return
    step = int(frame["step"].iloc[0])
    console.print(
        Text(f"A cast of step {step:,}'s FP32 gradients to {fmt.name.upper()}, at other loss scales")
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for name in ("S", *SHARES, "zero before"):
        table.add_column(name, justify="right", no_wrap=True)
    last: Any = None
    tensors = frame.groupby(["kind", "tensor"], sort=False).ngroup()
    for row in frame.iloc[tensors.argsort(kind="stable")].to_dict("records"):
        this = (row["tensor"], row["kind"])
        cells = ["", ""] if this == last else [str(row["tensor"]), str(row["kind"]).replace("_", " ")]
        cells += [format_scale(row["scale"]), *(_share(row, name) for name in SHARES)]
        table.add_row(*(Text(cell) for cell in [*cells, format_percent(row["structural_zero"])]))
        last = this
    console.print(table)
    if not frame["exact"].all():
        note = "~: S is no power of two (or values lie beyond the bins), so this is read between its bounds"
        console.print(Text(note))


def _use(config: RunConfig, found: Recommendation) -> str:
    if found.best is None:
        return "no constant"
    if config.task in TASKS:
        return f"--policy {found.policy}"
    scale = format_number(found.best)
    return f"torch.amp.GradScaler(init_scale={scale}), or a constant S = {scale}"


def recommendation_table(config: RunConfig, judged: Judged) -> None:
    """Print what S to use, which layers limit it, and why."""
    console = open_console()
    _, found, _ = judged.asked
    limits, window = judged.limits, found.safe
    lines = [
        ("advice", f"{advice(config, judged)}."),
        *([("use", _use(config, found))] if judged.keeps is None else []),
        ("limits", f"{limits.finding}. {limits.note}".strip()),
        ("why", judged.reason),
        (
            "safe window",
            "empty" if window is None else f"S = {format_scale(window[0])} to {format_scale(window[1])}",
        ),
        (
            "patent's bound",
            "–"
            if found.patent_bound is None
            else f"log2 S = {found.patent_bound:.2f}, by the largest gradient",
        ),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(Text(name), Text(value))
    console.print(table)


def _share(row: Any, name: str) -> str:
    mark = "" if row["exact"] else "~"
    return mark + format_percent(row[name])
