"""One run with all that pages and reports show of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from lsviz.analysis.shares import flushed_frame, shown_names, total_flushed_frame
from lsviz.runs.reader import Run
from lsviz.runs.schema import ORIGINAL, RunRecord, RunStatus

COLUMNS: Final = (
    *("step", "tensor", "kind", "reference", "loss_scale"),
    *("numel", "zero", "inf", "nan", "amax", "counts"),
)
"""What is read of the exponents table."""
EARLY: Final = 0.04
"""Layers are decided early in a run: the recorded step nearest to this share of it is shown first."""


@dataclass(frozen=True)
class RunView:
    """One run's documents and tables. Frames may be shared: never change them.

    Attributes:
        record: Its run.json.
        status: Its status.json.
        steps: The steps table.
        exponents: The exponents table, without what only exact ends need.
        layers: The rows of a picture, lowest layer first; weights where no outputs were recorded.
        flushed: Frame of step and flushed, all layers together.
        by_layer: `flushed_frame`: what every tensor lost at every step that has a reference.
        problems: One line for each file that could not be read.
        picture: PNG file of what the model drew, of a task whose result can be seen.
        original: PNG file of what it should draw.
    """

    record: RunRecord
    status: RunStatus
    steps: pd.DataFrame
    exponents: pd.DataFrame
    layers: list[str]
    flushed: pd.DataFrame
    by_layer: pd.DataFrame
    problems: list[str]
    picture: bytes | None = None
    original: bytes | None = None

    @classmethod
    def of(cls, run: Run, status: RunStatus) -> RunView:
        """Read a run's tables.

        Raises:
            RunError: Its JSON files can't be read.
        """
        exponents = run.exponents(columns=COLUMNS)
        layers, by_layer = shown_names(exponents), flushed_frame(exponents)
        return cls(
            record=run.record,
            status=status,
            steps=run.steps(),
            exponents=exponents,
            layers=layers,
            flushed=total_flushed_frame(by_layer, layers),
            by_layer=by_layer,
            problems=list(run.problems),
            picture=run.picture(),
            original=run.picture(ORIGINAL),
        )

    @property
    def shows_weights(self) -> bool:
        """Whether weights stand in for layers, as no outputs' gradients were recorded."""
        return not (self.exponents["kind"] == "activation_grad").any()

    @property
    def recorded_steps(self) -> list[int]:
        """Steps to choose from: recorded ones that have a reference, or all where none has one."""
        reference = self.exponents["reference"].astype(bool)
        recorded = {int(s) for s in self.exponents.loc[~reference, "step"].unique()}
        compared = recorded & {int(s) for s in self.exponents.loc[reference, "step"].unique()}
        return sorted(compared or recorded)

    @property
    def metric(self) -> float | None:
        """The metric as last measured, once the run has ended."""
        return None if self.status.live else self.last_metric

    @property
    def last_metric(self) -> float | None:
        """The metric as last measured."""
        measured = self.steps["metric"].dropna()
        return None if measured.empty else float(measured.iloc[-1])


def common_steps(views: Sequence[RunView]) -> list[int]:
    """Return the recorded steps that all runs share, in order."""
    return sorted(set.intersection(*(set(view.recorded_steps) for view in views))) if views else []


def early_step(steps: Sequence[int], run_length: int) -> int:
    """Return which of some recorded steps to show first; 0 where there is none."""
    return min(steps, key=lambda step: abs(step - EARLY * run_length)) if steps else 0
