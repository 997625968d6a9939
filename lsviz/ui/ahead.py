"""Reading ahead: the runs and steps beside those that a visitor looks at.

Whoever goes through them one by one then waits for none. One thread does it for all visitors, a moment
after a page was drawn, and leaves out what nobody asks for any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from lsviz.runs.reader import Run

T = TypeVar("T")
AFTER_SECONDS: Final = 0.25
"""In which a page is sent and drawn."""


class Reader:
    """One thread that reads what was asked last."""

    def __init__(self, after: float = AFTER_SECONDS) -> None:
        self._after = after
        self._changed = threading.Condition()
        self._asked: list[Callable[[], object]] = []
        self._thread: threading.Thread | None = None

    def ask(self, reads: Sequence[Callable[[], object]]) -> None:
        """Have these done soon, one after the other, in place of what was asked before and is not begun.

        Args:
            reads: Each keeps what it has read; what goes wrong is told when somebody asks for it.
        """
        with self._changed:
            self._asked = list(reads)
            if self._thread is None and self._asked:
                # A daemon: a server that ends does not wait for it.
                self._thread = threading.Thread(target=self._work, name="lsviz-ahead", daemon=True)
                self._thread.start()

    def rest(self, timeout: float = 30.0) -> bool:
        """Wait until there is nothing to do; return whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def _work(self) -> None:
        threading.Event().wait(self._after)
        while True:
            with self._changed:
                if not self._asked:
                    self._thread = None
                    self._changed.notify_all()
                    return
                read = self._asked.pop(0)
            try:
                read()
            except Exception:
                continue


READER: Final = Reader()


def beside(shown: Sequence[T], place: int) -> list[T]:
    """Return what stands after and before a place, as far as there is any."""
    return [shown[i] for i in (place + 1, place - 1) if 0 <= i < len(shown)]


def read_neighbours(runs: Sequence[Run], chosen: Run, read: Callable[[Run], object]) -> None:
    """Read the runs after and before the chosen one soon, where they are small and have ended.

    Args:
        runs: In the order in which they are shown.
        chosen: One of them.
        read: Reads one and keeps what it found. It may not draw.
    """
    place = next(i for i, run in enumerate(runs) if run.run_id == chosen.run_id)
    READER.ask([partial(read, run) for run in beside(runs, place) if run.small])
