"""Executing one run: ``execute_run`` in this process, ``python -m lsviz.jobs.worker RUN`` in its own."""

from __future__ import annotations

import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsviz import __version__
from lsviz.runs.reader import open_run
from lsviz.runs.schema import State
from lsviz.runs.writer import RunWriter
from lsviz.training.catalog import find_task

if TYPE_CHECKING:
    from lsviz.training.loop import StepResult

Observer = Callable[["StepResult"], None]


class StopFlag:
    """Set by a signal, read between steps, so that a run stops with whole rows on the disk."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask the run to stop after the step in hand."""
        self._event.set()


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag while the context lasts; a second SIGINT interrupts at once.

    Outside the main thread, where Python takes no handlers, the flag just stays unset.
    """
    flag = StopFlag()
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
        Exception: Whatever training raises; the run is then marked failed with its text.
    """
    with RunWriter(path) as writer:
        # Inside the writer, so that a machine without torch leaves a run marked failed, with the reason.
        import torch

        from lsviz.training.engine import Engine
        from lsviz.training.loop import train
        from lsviz.training.tasks.base import build_task

        config = writer.record.config
        spec = find_task(config.task)
        if spec.threads:
            torch.set_num_threads(spec.threads)
        engine = Engine.resolve(config.precision, config.device)
        writer.describe(
            versions={
                "lsviz": __version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "numpy": version("numpy"),
            },
            device=engine.device.type,
            device_name=engine.device_name,
            engine=engine.description,
            metric_name=spec.metric_name,
        )
        for result in train(build_task(config.task), config, engine):
            writer.append(result.step, result.exponents)
            if observe is not None:
                observe(result)
            if stop and result.step.step + 1 < config.steps:
                writer.end("cancelled")
                return "cancelled"
    return "finished"


def main(argv: list[str]) -> int:
    """Execute the run in the given folder; its status and log tell the rest."""
    path = Path(argv[0])
    open_run(path)
    with stop_on_signals() as stop:
        try:
            execute_run(path, stop)
        except Exception:
            traceback.print_exc()  # for log.txt; the status already holds the one line for people
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
