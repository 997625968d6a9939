"""Many runs: what is missing in a folder, a few worker processes of this machine at a time.

Who trains is a `Crew`: these processes, or the tasks of a Ray cluster (`lsviz.jobs.ray`). A worker lives for
many runs, since importing torch costs more than the smallest of them. It reads run folders from stdin and
answers a line a run on stdout, so that it ends by itself when this process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Final, Protocol

from lsviz.errors import UserError
from lsviz.jobs.holding import held
from lsviz.jobs.launching import worker_command, worker_environment
from lsviz.jobs.queue import start_due
from lsviz.jobs.settling import live_status, settle_run
from lsviz.jobs.slots import cores
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run, RunError, open_run
from lsviz.runs.schema import State
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run

LOCK: Final = ".sweep.lock"
MAX_RUNS: Final = 10_000
POLL_SECONDS: Final = 0.2
GRACE_SECONDS: Final = 30.0
"""A worker that is asked to stop and is still there after so long is ended."""


class SweepError(UserError):
    """A sweep can't be started; the message says why."""


class SweepBusyError(SweepError):
    """Another sweep is at work in the folder."""


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


class Crew(Protocol):
    """Trains what is missing in a folder, wherever that is."""

    def work(self, done: dict[RunConfig, Run], observe: Observer) -> tuple[dict[RunConfig, str], bool]:
        """Train all; add what finished to ``done`` and return what failed and whether it was stopped."""


Recruiter = Callable[[Path, Sequence[RunConfig], int | None, Starter], Crew]
"""Makes the crew for a folder: what is missing there, how many at once (None: as it likes), the starter."""


def default_jobs() -> int:
    """Return how many runs go at once by default: one a CPU that this process may use."""
    return cores()


def finished_runs(root: Path) -> dict[RunConfig, Run]:
    """Return the newest finished run of every config in a folder, without those that can't be read whole."""
    found: dict[RunConfig, Run] = {}
    for run in RunStore.at(root).list_runs():
        with contextlib.suppress(RunError):
            if run.status.state == "finished" and run.config not in found and is_whole(run):
                found[run.config] = run
    return found


def is_whole(run: Run) -> bool:
    """Return whether a run has every step that it was asked for, in tables that read without a fault.

    Raises:
        RunError: They can't be read.
    """
    steps = len(run.steps())
    run.recorded_steps()
    return steps == run.config.steps and not run.problems


def run_sweep(
    root: Path,
    configs: Sequence[RunConfig],
    *,
    jobs: int | None = None,
    started: Starter = lambda config: None,
    observe: Observer = lambda config, run, error: None,
    recruit: Recruiter | None = None,
) -> SweepResult:
    """Train every config that has no finished run in the folder yet.

    SIGINT, SIGTERM or SIGHUP stops it: runs under way are cancelled and what has finished stays, so that
    the same call goes on with what is missing; so it is where this process dies, a moment later. A run
    that fails, is cancelled or loses its folder does not stop the others.

    Its runs wait in no queue: it takes as many slots as ``jobs`` says. Beside it queued runs go on, one at a
    time where it takes all.

    Args:
        root: Folder that holds the runs; made if missing. One sweep at a time works in it.
        configs: What to train, in order; a repeated one is trained once.
        jobs: How many runs go at once; None: `default_jobs`.
        started: Called as each run starts, from a thread.
        observe: Called as each run ends, from this thread; at once for those that are there already.
        recruit: Makes the crew that trains; None: processes of this machine.

    Raises:
        SweepError: Too many configs or no jobs.
        SweepBusyError: Another sweep is at work in the folder.
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
        crew = (recruit or _Crew)(root, missing, jobs, started)
        try:
            failed, stopped = crew.work(done, observe)
        finally:
            start_due(root)  # what waited for its slots
    ordered = {config: done[config] for config in wanted if config in done}
    return SweepResult(ordered, failed, len(wanted) - len(missing), stopped)


def _only_one(root: Path) -> AbstractContextManager[None]:
    words = f"another sweep is at work in {str(root)!r}: wait for it, or give another --out"
    return held(root, LOCK, 0, SweepBusyError(words))


class _Crew:
    """Threads that hand configs to worker processes, one process each."""

    def __init__(self, root: Path, configs: Sequence[RunConfig], jobs: int | None, started: Starter) -> None:
        self._root, self._started = root, started
        self._size = min(jobs or default_jobs(), len(configs))
        self._waiting: SimpleQueue[RunConfig] = SimpleQueue()
        for config in configs:
            self._waiting.put(config)
        self._ended: SimpleQueue[tuple[RunConfig, Run | None, str]] = SimpleQueue()
        self._workers: dict[int, _Worker] = {}  # by thread
        # Plain values, set by signals: what has a lock might be held by what the signal interrupts.
        self._stop = False
        self._kill = False
        self._asked: float | None = None

    def work(self, done: dict[RunConfig, Run], observe: Observer) -> tuple[dict[RunConfig, str], bool]:
        """Train all; add what finished to ``done`` and return what failed and whether it was stopped."""
        failed: dict[RunConfig, str] = {}
        if not self._size:
            return failed, False
        wanted = self._waiting.qsize() + len(done)
        with calling_on_signals(self._on_signal), ThreadPoolExecutor(self._size) as threads:
            under_way = {threads.submit(self._serve) for _ in range(self._size)}
            try:
                while under_way or not self._ended.empty():
                    under_way = self._settle(under_way, done, failed, observe)
                    self._halt_if_asked()
            except BaseException:
                self._stop = True  # else the pool would wait until all the rest is trained
                while under_way:
                    self._halt_if_asked()
                    under_way = wait(under_way, timeout=POLL_SECONDS).not_done
                raise
        return failed, self._stop and len(done) + len(failed) < wanted

    def _settle(
        self,
        under_way: set[Future[None]],
        done: dict[RunConfig, Run],
        failed: dict[RunConfig, str],
        observe: Observer,
    ) -> set[Future[None]]:
        finished, still = wait(under_way, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        while True:
            try:
                config, run, error = self._ended.get_nowait()
            except Empty:
                break
            if run is None:
                failed[config] = error
            else:
                done[config] = run
            observe(config, run, error)
        for future in finished:
            future.result()
        return still

    def _serve(self) -> None:
        """One thread: take configs until none waits; a worker that dies costs its run alone."""
        try:
            while not self._stop:
                try:
                    config = self._waiting.get_nowait()
                except Empty:
                    return
                self._started(config)
                path = create_run(self._root, config)
                try:
                    state, error = self._execute(path)
                    run = open_run(path) if state == "finished" else None
                    if state == "failed" and (unsettled := open_run(path)).status.live:
                        settle_run(unsettled, state, error)  # it could not note its own end
                except RunError as gone:  # its folder, or what tells of it, is not there any more
                    run, state, error = None, "failed", str(gone)
                if run is not None or not self._stop:
                    self._ended.put((config, run, error or state))
        finally:
            self._dismiss()

    def _execute(self, path: Path) -> tuple[State, str | None]:
        """Have a run executed and return its state and error.

        A worker that was asked to stop while it had nothing to do, or just after it answered, takes the
        next run with it unbegun: that run gets a worker of its own.
        """
        for _ in range(2):
            try:
                answer = self._worker(path).execute(path)
            except OSError as error:
                settle_run(open_run(path), "failed", str(error))
                raise SweepError(f"can't start a process to train in: {error.strerror}") from None
            if answer is not None:
                return answer
            self._dismiss()
            status = live_status(open_run(path))
            if status.state != "queued" or self._stop:
                break
        if status.state == "queued":
            run = open_run(path)
            state: State = "cancelled" if self._stop else "interrupted"
            unbegun = "its process ended before the run began"
            unbegun += "; log.txt tells why" if run.log_tail() else ""
            status = settle_run(run, state, None if self._stop else unbegun)
        return status.state, status.error

    def _worker(self, path: Path) -> _Worker:
        """Return this thread's worker, a new one where there is none that lives."""
        mine = threading.get_ident()
        worker = self._workers.get(mine)
        if worker is not None and not worker.alive:
            self._dismiss()
            worker = None
        if worker is None:
            worker = self._workers[mine] = _Worker(path)
        return worker

    def _dismiss(self) -> None:
        worker = self._workers.pop(threading.get_ident(), None)
        if worker is not None:
            worker.close()

    def _on_signal(self) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
        # One Ctrl+C can come as two signals in a moment; a second one means it.
        self._kill = self._kill or now - self._asked > 0.5
        self._stop = True

    def _halt_if_asked(self) -> None:
        """Ask the workers to stop once it is time, and end those that do not in GRACE_SECONDS."""
        if not self._stop:
            return
        if self._asked is None:
            self._asked = time.monotonic()
        kill = self._kill or time.monotonic() - self._asked > GRACE_SECONDS
        for worker in list(self._workers.values()):
            worker.stop(kill=kill)


class _Worker:
    """A process that executes one run folder after another.

    What it says before it has a run goes to the log of the first; from then on to the run's own.
    """

    def __init__(self, first: Path) -> None:
        self._told = False
        with contextlib.ExitStack() as stack:
            log: IO[bytes] | int = subprocess.DEVNULL
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone already
                log = stack.enter_context((first / "log.txt").open("ab"))
            self._process = subprocess.Popen(
                worker_command("-", str(os.getpid())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=worker_environment(),
                text=True,
                start_new_session=True,  # Ctrl+C reaches this process alone, which then stops its workers
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def execute(self, path: Path) -> tuple[State, str | None] | None:
        """Have a run executed and return its state and error; None where no answer came."""
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
            return None
        document = json.loads(answer)
        return document["state"], document["error"]

    def stop(self, *, kill: bool = False) -> None:
        """Ask it, once, to cancel the run in hand, if any, and to end; or end it."""
        if self._told and not kill:
            return
        self._told = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)

    def close(self) -> None:
        """Let it end, which it does when nothing more can come."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()


@contextmanager
def calling_on_signals(halt: Callable[[], None]) -> Iterator[None]:
    """Call on SIGINT, SIGTERM and SIGHUP while the context lasts; nothing outside the main thread.

    SIGHUP stays ignored where it is, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: halt()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
