"""What a run's own process tells in log.txt: how it began, how it went, how it ended."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lsviz.runs.reader import open_run
from lsviz.runs.schema import State

if TYPE_CHECKING:
    from lsviz.training.loop import StepResult


class RunLog:
    """Prints a line where a run begins, measures its metric, first skips a step and ends.

    A full disk has no room for a log either: it then stays silent and the run goes on.

    Args:
        path: The run's folder.
    """

    def __init__(self, path: Path) -> None:
        config = open_run(path).config
        self._steps = config.steps
        self._skipped = 0
        _tell(
            f"{config.task}, {config.policy}, {config.precision}, seed {config.seed}: {config.steps:,} steps"
        )

    def observe(self, result: StepResult) -> None:
        """Take one step's result."""
        step = result.step
        self._skipped += step.skipped
        if step.skipped and self._skipped == 1:
            _tell(f"step {step.step:,} is the first to be skipped: Inf or NaN at S = {step.loss_scale:g}")
        if step.metric is not None:
            loss = "" if step.loss is None else f", loss {step.loss:.4g}"
            _tell(
                f"step {step.step + 1:,} of {self._steps:,}: metric {step.metric:.4g}{loss}, "
                f"S = {step.loss_scale:g}, {self._skipped:,} skipped"
            )

    def end(self, state: State) -> None:
        """Take the state that it ended in."""
        _tell(state)


def _tell(line: str) -> None:
    with suppress(OSError):
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}", flush=True)
