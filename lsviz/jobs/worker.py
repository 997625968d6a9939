"""Executing runs: ``execute_run`` in this process, ``python -m lsviz.jobs.worker RUN`` in its own.

``python -m lsviz.jobs.worker - PID`` reads run folders from stdin, a JSON string a line, and answers
each with a line of JSON on stdout as it ends; it stops once its parent is not PID any more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsviz.jobs.limiting import LimitError, LimitWatch
from lsviz.jobs.pausing import PauseGate
from lsviz.jobs.queue import claim, start_due
from lsviz.jobs.runlog import RunLog
from lsviz.runs.limits import RunLimits
from lsviz.runs.locking import RunBusyError
from lsviz.runs.reader import Run, open_run
from lsviz.runs.schema import ORIGINAL, PICTURE, State
from lsviz.runs.writer import RunWriter
from lsviz.training.catalog import find_task

if TYPE_CHECKING:
    from lsviz.training.loop import StepResult

Observer = Callable[["StepResult"], None]


class StopFlag:
    """Set by a signal, read between steps, so that a run stops with whole rows on the disk.

    Args:
        parent: The process that the run is for, if any: the flag is also set once that one is gone.
    """

    def __init__(self, parent: int | None = None) -> None:
        self._set = False  # no Event: a signal that comes while one is being set would wait for ever
        self._parent = parent

    def __bool__(self) -> bool:
        return self._set or (self._parent is not None and os.getppid() != self._parent)

    def set(self) -> None:
        """Ask the run to stop after the step in hand."""
        self._set = True


@contextmanager
def stop_on_signals(parent: int | None = None) -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag while the context lasts; a second SIGINT interrupts at once.

    Outside the main thread, where Python takes no handlers, the flag just stays unset.
    """
    flag = StopFlag(parent)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def on_signal(number: int, frame: Any) -> None:
        if flag and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def execute_run(path: Path, stop: StopFlag, observe: Observer | None = None) -> State:
    """Train the run that the folder's run.json asks for and write it there.

    Args:
        path: A folder made by `lsviz.runs.writer.create_run`.
        stop: Ends the run as cancelled once set.
        observe: Called with each step's result.

    Returns:
        ``finished`` or ``cancelled``.

    Raises:
        LimitError: It has taken all that it may; it is marked failed with that sentence.
        Exception: Whatever training raises; the run is then marked failed with its text.
    """
    with RunWriter(path) as writer:
        # Inside the writer, so that a machine without torch leaves a run marked failed, with the reason.
        import torch

        from lsviz.training.engine import Engine, library_versions
        from lsviz.training.loop import train
        from lsviz.training.memory import hand_back_freed_memory, keep_freed_memory
        from lsviz.training.tasks.base import Drawing, build_task

        config = writer.record.config
        spec = find_task(config.task)
        keep_freed_memory()
        if spec.threads:
            torch.set_num_threads(spec.threads)
        engine = Engine.resolve(config.precision, config.device)
        writer.describe(
            versions=library_versions(),
            device=engine.device.type,
            device_name=engine.device_name,
            engine=engine.description,
            metric_name=spec.metric_name,
        )
        task = build_task(config.task)
        if isinstance(task, Drawing):
            writer.draw(ORIGINAL, task.original().numpy())
        watch = LimitWatch(writer.record.limits or RunLimits.build(), path / "log.txt")
        gate = PauseGate(writer, stopped=lambda: bool(stop))
        for result in train(task, config, engine):
            writer.append(
                result.step,
                result.exponents,
                amax=result.amax,
                outcomes=result.outcomes,
                updates=result.updates,
            )
            if result.picture is not None:
                writer.draw(PICTURE, result.picture)
            if observe is not None:
                observe(result)
            if result.step.step + 1 == config.steps:
                continue
            gate.wait()
            try:
                watch.check()
            except LimitError as reached:
                writer.end("failed", str(reached))
                raise
            if stop:
                hand_back_freed_memory()
                writer.end("cancelled")
                return "cancelled"
        hand_back_freed_memory()  # putting the run's parts together needs some
    return "finished"


def execute_logged(
    path: Path, stop: StopFlag, observe: Observer = lambda result: None
) -> tuple[State, str | None]:
    """Do `execute_run`, print how it goes, and return how it ended and, where it failed, why.

    Args:
        path: A folder made by `lsviz.runs.writer.create_run`.
        stop: Ends the run as cancelled once set.
        observe: Called with each step's result.
    """
    try:
        log = RunLog(path)

        def tell(result: StepResult) -> None:
            log.observe(result)
            observe(result)

        state = execute_run(path, stop, tell)
        log.end(state)
    except Exception as error:
        named = "" if isinstance(error, LimitError) else f"{type(error).__name__}: "
        # On a full disk there is no room for the log either; the answer must come all the same.
        with suppress(OSError):
            traceback.print_exc()
        return "failed", f"{named}{error}"
    return state, None


def execute_many(
    folders: Iterable[str],
    answer: Callable[[str], None],
    log_to: Callable[[Path], None] = lambda path: None,
    parent: int | None = None,
) -> None:
    """Execute one run folder after another until there are no more, or it is stopped.

    Args:
        folders: Each a JSON string.
        answer: Called with a line of JSON as each ends.
        log_to: Called with each run's folder before it.
        parent: The process that asks; with it gone the run in hand is cancelled.
    """
    for line in folders:
        path = Path(json.loads(line))  # whatever characters a folder has
        with stop_on_signals(parent) as stop:
            if stop:
                return
            log_to(path)
            state, reason = execute_logged(path, stop)
        answer(json.dumps({"state": state, "error": reason}))
        if stop:
            return


def _log_to(path: Path) -> None:
    """Send what this process prints to a run's log, where there is one to be had."""
    with suppress(OSError), (path / "log.txt").open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())


def main(argv: list[str]) -> int:
    """Execute the run in the given folder, or all that stdin names; status and log tell the rest."""
    if argv[0] == "-":
        # Given, not asked for: the parent may be gone before this line is reached.
        parent = int(argv[1]) if len(argv) > 1 else None
        # Answers have a stream of their own, so that nothing that a library prints is taken for one.
        with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

            def answer(line: str) -> None:
                print(line, file=answers, flush=True)

            execute_many(iter(sys.stdin.readline, ""), answer, _log_to, parent)
        return 0
    path = Path(argv[0])
    run = open_run(path)
    try:
        return _execute_queued(run)
    finally:
        start_due(path.parent)  # so that the queue goes on with no server to look after it


def _execute_queued(run: Run) -> int:
    with stop_on_signals() as stop:
        try:
            if not claim(run):
                status = run.status  # cancelled, or another process's
                whose = f"is being written by process {status.pid}: a run has one writer"
                words = whose if status.live else f"is {status.state}: launch another"
                print(f"error: {run.run_id} {words}", file=sys.stderr)
                return 2
            log = RunLog(run.path)
            log.end(execute_run(run.path, stop, log.observe))
        except RunBusyError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except LimitError as error:
            print(error, file=sys.stderr)
            return 1
        except Exception:
            traceback.print_exc()  # for log.txt; the status already holds the one line for people
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
