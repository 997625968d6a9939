"""A sweep's driver: ``python -m lsviz.jobs.raydriver FOLDER`` trains what the folder's sweep.json asks for.

It is `lsviz sweep --engine ray` without a terminal: what that shows there, this writes into the file.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from lsviz.errors import UserError
from lsviz.jobs.ray import ray_crew
from lsviz.jobs.sweep import SweepBusyError, SweepResult, run_sweep
from lsviz.runs.config import RunConfig
from lsviz.runs.files import RunFolderError
from lsviz.runs.process import NOBODY, own_mark
from lsviz.runs.reader import Run, RunError
from lsviz.runs.schema import CANCEL
from lsviz.runs.sweeps import MAX_NOTES, SweepRecord, SweepState, read_sweep, write_sweep

WRITE_SECONDS: Final = 0.5
"""Steps are written no more often."""
LOOK_SECONDS: Final = 1.0
"""How often a sweep that waits for another one looks."""


class Driver:
    """Trains a sweep and keeps its file up to date.

    Args:
        path: The sweep's folder.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._root = path, path.parents[1]
        self._record: SweepRecord = read_sweep(path)
        self._place = {part.config: at for at, part in enumerate(self._record.parts)}
        self._written = 0.0

    def drive(self) -> None:
        """Train all that is missing, and note how that ended.

        SIGTERM or SIGINT ends it as Ctrl+C ends `lsviz sweep`.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)
        try:
            self._note(**own_mark())
            if (self._path / CANCEL).exists():  # asked for before there was a process to tell
                raise KeyboardInterrupt
            done = self._train()
        except KeyboardInterrupt:
            self._end("cancelled")
        except UserError as error:
            self._end("failed", str(error))
        except BaseException as error:
            traceback.print_exc()
            self._end("failed", f"{type(error).__name__}: {error}")
        else:
            self._end("cancelled" if done.stopped else "finished")

    def _train(self) -> SweepResult:
        while True:
            try:
                return run_sweep(
                    self._root,
                    list(self._place),
                    started=self._started,
                    observe=self._ended,
                    recruit=ray_crew(stepped=self._stepped, warn=self._warn),
                )
            except SweepBusyError:
                if self._record.state != "waiting":
                    self._note(state="waiting")
                time.sleep(LOOK_SECONDS)

    def _started(self, config: RunConfig) -> None:
        self._note_part(config, state="running")

    def _stepped(self, config: RunConfig, steps: int) -> None:
        self._note_part(config, step=steps, at_once=False)

    def _ended(self, config: RunConfig, run: Run | None, error: str) -> None:
        if run is None:
            print(f"{config.task}, {config.policy}, seed {config.seed}: {error}", flush=True)
            self._note_part(config, state="failed", error=error)
        else:
            more: dict[str, Any] = {}
            with contextlib.suppress(RunError):  # removed in this very moment
                metric = run.status.metric
                finite = metric if metric is not None and math.isfinite(metric) else None
                more = {"metric_name": run.record.metric_name, "metric": finite}
            self._note_part(config, state="finished", step=config.steps, run_id=run.run_id, **more)

    def _warn(self, line: str) -> None:
        print(line, flush=True)
        self._note(notes=[*self._record.notes, line][-MAX_NOTES:])

    def _note_part(self, config: RunConfig, *, at_once: bool = True, **changes: Any) -> None:
        at, parts = self._place[config], list(self._record.parts)
        parts[at] = parts[at].model_copy(update=changes)
        self._note(at_once=at_once, state="running", parts=parts)

    def _end(self, state: SweepState, error: str | None = None) -> None:
        # Nothing may come between the end and its note.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        whole = state == "cancelled" and self._record.whole  # asked for after the last run had landed
        self._note(state="finished" if whole else state, error=error, **NOBODY)

    def _note(self, *, at_once: bool = True, **changes: Any) -> None:
        """Take note of changes and write them; a disk that is full for a while ends no sweep."""
        self._record = self._record.model_copy(update={**changes, "updated": time.time()})
        if at_once or time.monotonic() - self._written >= WRITE_SECONDS:
            with contextlib.suppress(RunFolderError):
                write_sweep(self._path, self._record)
            self._written = time.monotonic()


def main(argv: list[str]) -> int:
    """Drive the sweep of the given folder."""
    Driver(Path(argv[0])).drive()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
