"""Rows of all five tables that follow from the step's number: who reads them knows what was written."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from lsviz.exponents import ExponentHistogram
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.schema import ExponentRow, StepRow
from lsviz.runs.series import AmaxRows, LayerOutcome, OutcomeRow, TensorName
from lsviz.runs.updatecheck import RATIO_BINS, UpdateRow
from lsviz.runs.writer import RunWriter, create_run

CONFIG: Final = RunConfig.build(task="made-up", policy="constant:8", steps=100_000)
TABLES: Final = ("steps", "exponents", "amax", "outcomes", "updates")
NAMES: Final = (
    TensorName("block1", "activation_grad", "float16", True),
    TensorName("block1.weight", "weight_grad", "float32", False),
    TensorName("head", "activation_grad", "float16", True),
)


def append_step(writer: RunWriter, step: int) -> None:
    """Hand a writer one step: a row of steps, outcomes and updates, three of amax, six of exponents."""
    random = np.random.default_rng(step)
    exponents = [
        ExponentRow(step, name.tensor, name.kind, reference, 1.0 if reference else 8.0, _histogram(random))
        for name in NAMES
        for reference in (False, True)
    ]
    amax = AmaxRows(
        step, False, NAMES, np.full(3, 8.0), random.random(3), random.integers(0, 9, 3), np.zeros(3, np.int64)
    )
    layers = (LayerOutcome("block1", 8.0, True), LayerOutcome("head", float(step), None))
    update = UpdateRow(
        step, 8.0, *random.random(4), None, *random.random(4), 100, 2, step,
        random.integers(0, 99, RATIO_BINS).astype(np.uint32),
        random.integers(0, 99, RATIO_BINS).astype(np.uint32),
    )  # fmt: skip
    writer.append(
        StepRow(
            step, random.random(), None, 8.0, step % 3 > 0, step % 3 == 0, 0.1, random.random(), 3.0, 0.5
        ),
        exponents,
        amax=[amax],
        outcomes=[OutcomeRow(step, 8.0, True, random.random(), layers=layers, loss_layer="head")],
        updates=[update],
    )


def _histogram(random: np.random.Generator) -> ExponentHistogram:
    return ExponentHistogram.of(random.normal(size=40) * 2.0 ** random.integers(-20, 4))


def write_run(root: Path, steps: int, *, each: int = 1, end: bool = True) -> Run:
    """Write so many steps, a part for every few of them, and return the run, ended or with its parts."""
    writer = RunWriter(create_run(root, CONFIG))
    writer.__enter__()
    for step in range(steps):
        append_step(writer, step)
        if step % each == each - 1:
            writer.flush()
    if end:
        writer.end("finished")
    return Run(writer.path)


def read_tables(run: Run) -> dict[str, pd.DataFrame]:
    """Return every table as the run's readers give it."""
    return {name: getattr(run, name)() for name in TABLES}


def cells(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return a frame's rows as plain values that can be compared and put into sets."""
    return [tuple(_plain(value) for value in row) for row in frame.itertuples(index=False)]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ("list", *(_plain(v) for v in value.tolist()))
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    return None if value is None or value != value else value


def surplus(found: Sequence[tuple[Any, ...]], written: Container[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return what was found that nobody wrote, or that is there twice."""
    twice = [row for row in found if row in written] if len(set(found)) != len(found) else []
    return [row for row in found if row not in written] + twice
