"""What a Ray task does on its node: one run, trained as a local worker does, and sent back as a zip.

Only plain values come and go, so that a node with another lsviz says so itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from lsviz import __version__
from lsviz.errors import UserError
from lsviz.jobs.rayscratch import scratch
from lsviz.jobs.worker import StopFlag, execute_logged
from lsviz.runs.config import RunConfig
from lsviz.runs.exchange import export_zip
from lsviz.runs.limits import RunLimits
from lsviz.runs.reader import open_run
from lsviz.runs.schema import State
from lsviz.runs.writer import create_run

if TYPE_CHECKING:
    from lsviz.training.loop import StepResult

TELL_SECONDS: Final = 0.2
STOP_SECONDS: Final = 3.0
"""So long a task that is cancelled may take over the step in hand; then its worker ends."""


class NodeError(UserError):
    """This node can't train what it is asked to; the message says why."""


class Order(TypedDict):
    """What a task is given.

    Attributes:
        config: The run's config, as JSON.
        limits: What it may take, as JSON.
        version: The lsviz that asks.
        key: What the board calls the run.
        gpu: Whether it has a GPU, or a share of one.
    """

    config: str
    limits: str
    version: str
    key: int
    gpu: bool


class Answer(TypedDict):
    """What a task gives back.

    Attributes:
        state: How the run ended.
        error: Why it failed.
        node: Name of the machine.
        run: The run as `lsviz.runs.exchange.export_zip` writes it; None where it can't be read, or was
            cancelled.
    """

    state: State
    error: str | None
    node: str
    run: bytes | None


class Board:
    """How far each run is, told by the tasks, read by the driver: an actor of the driver's own node."""

    def __init__(self) -> None:
        self._steps: dict[int, int] = {}

    def note(self, key: int, steps: int) -> None:
        """Take note that a run has done so many steps."""
        self._steps[key] = steps

    def read(self, keys: Sequence[int]) -> dict[int, int]:
        """Return how many steps each of these runs has done, where it has begun."""
        return {key: self._steps[key] for key in keys if key in self._steps}


def train_apart(order: Order, board: Any) -> Answer:
    """Train a run in scratch of this node and return it whole.

    Args:
        order: What to train.
        board: Handle of the `Board` actor.

    Raises:
        NodeError: This node has another lsviz.
    """
    node = socket.gethostname()
    if order["version"] != __version__:
        raise NodeError(
            f"{node} has lsviz {__version__}, and {order['version']} asks: install the same there"
        )
    if not order["gpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray shows all GPUs to a task that asked for none
    try:
        with _stopping() as stop, scratch() as root:
            path = create_run(
                root,
                RunConfig.model_validate_json(order["config"]),
                limits=RunLimits.model_validate_json(order["limits"]),
            )
            with _printing_to(path / "log.txt"):
                state, error = execute_logged(path, stop, _Teller(board, order["key"]))
            packed = None if state == "cancelled" else _packed(path)
            return {"state": state, "error": error, "node": node, "run": packed}
    except (UserError, OSError) as broken:  # no room in scratch, mostly
        return {"state": "failed", "error": f"{node}: {broken}", "node": node, "run": None}


def _packed(path: Path) -> bytes:
    packed = path.parent / "run.zip"
    with packed.open("wb") as file:
        export_zip(open_run(path), file)
    return packed.read_bytes()


class _Teller:
    """Tells the board of a run's steps, seldom, and without waiting; a board that is gone costs nothing."""

    def __init__(self, board: Any, key: int) -> None:
        self._board, self._key = board, key
        self._tell(0)

    def __call__(self, result: StepResult) -> None:
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._tell(result.step.step + 1)

    def _tell(self, steps: int) -> None:
        self._told = time.monotonic()
        with contextlib.suppress(Exception):
            self._board.note.remote(self._key, steps)


@contextlib.contextmanager
def _stopping() -> Iterator[StopFlag]:
    """Turn Ray's cancel into a flag that is read between steps; where none ends in time, the worker ends.

    Ray's own KeyboardInterrupt is lost where it comes while torch is imported, which takes a busy node half a
    minute. A worker has nothing else to do: only a sweep that ends as a whole cancels its tasks.
    """
    flag = StopFlag()
    late = threading.Timer(STOP_SECONDS, os._exit, [1])
    late.daemon = True

    def on_cancel(number: int, frame: Any) -> None:
        if not flag:
            flag.set()
            late.start()

    before = signal.signal(signal.SIGINT, on_cancel)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
        late.cancel()


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Send what this process prints to a run's log, as a local worker does, and back to Ray's afterwards."""
    streams = (sys.stdout, sys.stderr)
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with log.open("ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        yield
    finally:
        for stream in streams:
            stream.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)
