"""Many runs on this machine: what is missing in a folder, a few worker processes at a time.

A worker lives for many runs, since importing torch costs more than the smallest of them. It reads run
folders from stdin and answers a line a run on stdout, so that it ends by itself when this process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from filelock import FileLock, Timeout

from lsviz.errors import UserError
from lsviz.jobs.manager import live_status
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run, RunError, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunFolderError, create_run

LOCK: Final = ".sweep.lock"
MAX_RUNS: Final = 10_000


class SweepError(UserError):
    """A sweep can't be started; the message says why."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        runs: Config -> its finished run, in the order asked for.
        failed: Config -> why its run did not finish.
        reused: How many runs had been there already.
        stopped: Whether it was interrupted before its end.
    """

    runs: dict[RunConfig, Run]
    failed: dict[RunConfig, str]
    reused: int
    stopped: bool


Starter = Callable[[RunConfig], None]
"""Called as a run starts, from a thread."""
Observer = Callable[[RunConfig, Run | None, str], None]
"""Called as a run ends with its config, the run where it finished, and its error where not."""


def default_jobs() -> int:
    """Return how many runs go at once by default: one a CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def finished_runs(root: Path) -> dict[RunConfig, Run]:
    """Return the newest finished run of every config in a folder."""
    found: dict[RunConfig, Run] = {}
    for run in RunStore.at(root).list_runs():
        with contextlib.suppress(RunError):
            if run.status.state == "finished":
                found.setdefault(run.config, run)
    return found


def run_sweep(
    root: Path,
    configs: Sequence[RunConfig],
    *,
    jobs: int | None = None,
    started: Starter = lambda config: None,
    observe: Observer = lambda config, run, error: None,
) -> SweepResult:
    """Train every config that has no finished run in the folder yet.

    SIGINT or SIGTERM stops it: runs under way are cancelled and what has finished stays, so that the
    same call goes on with what is missing. A run that fails does not stop the others.

    Args:
        root: Folder that holds the runs; made if missing. One sweep at a time works in it.
        configs: What to train, in order; a repeated one is trained once.
        jobs: How many runs go at once; None: `default_jobs`.
        started: Called as each run starts, from a thread.
        observe: Called as each run ends, from this thread; at once for those that are there already.

    Raises:
        SweepError: Too many configs, no jobs, or another sweep is at work in the folder.
        RunFolderError: The folder can't be written.
    """
    wanted = list(dict.fromkeys(configs))
    if len(wanted) > MAX_RUNS:
        raise SweepError(f"{len(wanted):,} runs are too many for one sweep: at most {MAX_RUNS:,}")
    if jobs is not None and jobs < 1:
        raise SweepError(f"jobs: {jobs} runs at once is too few; give 1 or more")
    with _only_one(root):
        there = finished_runs(root)
        done = {config: there[config] for config in wanted if config in there}
        for config, run in done.items():
            observe(config, run, "")
        missing = [config for config in wanted if config not in done]
        crew = _Crew(root, missing, min(jobs or default_jobs(), len(missing)), started)
        failed, stopped = crew.work(done, observe)
    ordered = {config: done[config] for config in wanted if config in done}
    return SweepResult(ordered, failed, len(wanted) - len(missing), stopped)


@contextmanager
def _only_one(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise SweepError(
            f"another sweep is at work in {str(root)!r}: wait for it, or give another --out"
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RunFolderError(
            f"can't write runs to {str(root)!r} ({reason}); choose a folder that you can write to"
        ) from None
    try:
        yield
    finally:
        lock.release()


class _Crew:
    """Threads that hand configs to worker processes, one process each."""

    def __init__(self, root: Path, configs: Sequence[RunConfig], size: int, started: Starter) -> None:
        self._root, self._size, self._started = root, size, started
        self._waiting: SimpleQueue[RunConfig] = SimpleQueue()
        for config in configs:
            self._waiting.put(config)
        self._ended: SimpleQueue[tuple[RunConfig, Path, str]] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._stop = threading.Event()

    def work(self, done: dict[RunConfig, Run], observe: Observer) -> tuple[dict[RunConfig, str], bool]:
        """Train all; add what finished to ``done`` and return what failed and whether it was stopped."""
        failed: dict[RunConfig, str] = {}
        if not self._size:
            return failed, False
        with _calling_on_signals(self._halt), ThreadPoolExecutor(self._size) as threads:
            under_way = {threads.submit(self._serve) for _ in range(self._size)}
            try:
                while under_way or not self._ended.empty():
                    under_way = self._settle(under_way, done, failed, observe)
            except BaseException:
                self._halt()  # else the pool would wait until all the rest is trained
                raise
        return failed, self._stop.is_set()

    def _settle(
        self,
        under_way: set[Future[None]],
        done: dict[RunConfig, Run],
        failed: dict[RunConfig, str],
        observe: Observer,
    ) -> set[Future[None]]:
        finished, still = wait(under_way, timeout=0.2, return_when=FIRST_COMPLETED)
        while True:
            try:
                config, path, error = self._ended.get_nowait()
            except Empty:
                break
            if error:
                failed[config] = error
            else:
                done[config] = open_run(path)
            observe(config, done.get(config), error)
        for future in finished:
            future.result()
        return still

    def _serve(self) -> None:
        """One thread: take configs until none waits; a worker that dies costs its run alone."""
        worker: _Worker | None = None
        try:
            while not self._stop.is_set():
                try:
                    config = self._waiting.get_nowait()
                except Empty:
                    return
                self._started(config)
                path = create_run(self._root, config)
                if worker is not None and not worker.alive:
                    worker.close()
                    worker = None
                if worker is None:
                    worker = _Worker()
                    self._workers.append(worker)
                    if self._stop.is_set():
                        worker.stop()
                state, error = worker.execute(path)
                if state != "finished" and not self._stop.is_set():
                    self._ended.put((config, path, error or state))
                elif state == "finished":
                    self._ended.put((config, path, ""))
        finally:
            if worker is not None:
                worker.close()

    def _halt(self) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.stop()


class _Worker:
    """A process that executes one run folder after another."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lsviz.jobs.worker", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            text=True,
            start_new_session=True,  # Ctrl+C reaches this process alone, which then stops its workers
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def execute(self, path: Path) -> tuple[str, str | None]:
        """Have a run executed and return its state and error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(str(path.resolve())) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if not answer:
            self._process.kill()  # no more can come of it, whatever it waits for
            self._process.wait()
            status = live_status(open_run(path))
            ended = "its process ended before the run began" if status.state == "queued" else status.error
            return status.state, ended
        document = json.loads(answer)
        return document["state"], document["error"]

    def stop(self) -> None:
        """Ask it to cancel the run in hand, if any, and to end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Let it end, which it does when nothing more can come."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()


@contextmanager
def _calling_on_signals(halt: Callable[[], None]) -> Iterator[None]:
    """Call on SIGINT and SIGTERM while the context lasts; outside the main thread nothing is caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: halt()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
