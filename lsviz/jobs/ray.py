"""Many runs as tasks of a Ray cluster: a crew of `lsviz.jobs.sweep.run_sweep`.

Each task trains one run in scratch of its node (`lsviz.jobs.raynode`). What it sends back is taken in as a
run from a stranger is, and renamed into the one folder of runs, by this process alone: so a run that was
trained twice stands there once. Ray's own retries are off: what is lost is counted and told here.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lsviz import __version__
from lsviz.jobs.raycluster import Demand, RayError, alive, asks_for_token, connected, read_share, room
from lsviz.jobs.raynode import Answer, Board, Order, train_apart
from lsviz.jobs.sweep import (
    GRACE_SECONDS,
    POLL_SECONDS,
    Observer,
    Recruiter,
    Starter,
    calling_on_signals,
    is_whole,
)
from lsviz.runs.config import RunConfig
from lsviz.runs.exchange import ExchangeError, import_zip
from lsviz.runs.files import RunFolderError
from lsviz.runs.inspector import Inspector
from lsviz.runs.limits import RunLimits
from lsviz.runs.reader import Run, RunError
from lsviz.runs.store import RunStore

TRIES: Final = 2
"""A run whose worker or node is lost is trained once more."""
SUBMISSIONS: Final = 12
"""Until Ray sees that a node is gone, after 15 s, it gives it tasks: what never begins costs no try."""
AGAIN_SECONDS: Final = 2.0
"""Until then what is lost is not submitted again, and what was cancelled not cancelled again."""
LOOK_SECONDS: Final = 1.0
UNMET_SECONDS: Final = 30.0
"""So long a sweep waits for a node to come back after the last one that could train is lost."""

Stepped = Callable[[RunConfig, int], None]
"""Called with a config and how many steps of its run are done, now and then."""


def ray_crew(
    address: str | None = None,
    gpus: float = 1.0,
    *,
    stepped: Stepped = lambda config, steps: None,
    warn: Callable[[str], None] = lambda line: None,
) -> Recruiter:
    """Return what `run_sweep` takes as ``recruit`` to train on a Ray cluster.

    Args:
        address: The cluster, as `lsviz.jobs.raycluster.connected` takes it.
        gpus: Share of a GPU that a run at device cuda takes.
        stepped: Told how far each run is, from the sweep's thread.
        warn: Told in a line what a person should know and nothing else tells.

    Raises:
        RayError: ``gpus`` is no share.
    """
    share = read_share(gpus)

    def recruit(root: Path, configs: Sequence[RunConfig], jobs: int | None, started: Starter) -> _RayCrew:
        return _RayCrew(root, configs, jobs, started, address, share, stepped, warn)

    return recruit


@dataclass(slots=True)
class _Task:
    """A run on its way.

    Attributes:
        config: What is trained.
        demand: What it takes of a node.
        key: What the board calls it, this time.
        not_before: Monotonic time of its next submission, at the earliest.
        submissions: How often it was submitted.
        lost: How often it was lost after it had begun.
        begun: Whether it has begun, this time.
        told: Whether its start was told.
    """

    config: RunConfig
    demand: Demand
    key: int = 0
    not_before: float = 0.0
    submissions: int = 0
    lost: int = 0
    begun: bool = False
    told: bool = False

    def __str__(self) -> str:
        return f"{self.config.task}, {self.config.policy}, seed {self.config.seed}"


class _RayCrew:
    """Keeps as many tasks submitted as may train at once, and takes in what they send."""

    def __init__(
        self,
        root: Path,
        configs: Sequence[RunConfig],
        jobs: int | None,
        started: Starter,
        address: str | None,
        share: float,
        stepped: Stepped,
        warn: Callable[[str], None],
    ) -> None:
        self._root, self._jobs, self._started = root, jobs, started
        self._address, self._stepped, self._warn = address, stepped, warn
        self._waiting = deque(_Task(c, Demand.of(c, share)) for c in configs)
        self._demands = list(dict.fromkeys(task.demand for task in self._waiting))
        self._under_way: dict[Any, _Task] = {}  # by what Ray returns for each
        self._keys = itertools.count()
        self._limits = RunLimits.build().model_dump_json()
        self._most = 1
        self._looked_at = 0.0
        self._unmet_since: float | None = None
        self._open = contextlib.ExitStack()
        self._inspector = self._open.enter_context(Inspector())
        # Plain values, set by signals.
        self._asked: float | None = None
        self._kill = False
        self._told_to_stop = 0.0

    def work(self, done: dict[RunConfig, Run], observe: Observer) -> tuple[dict[RunConfig, str], bool]:
        """Train all; add what finished to ``done`` and return what failed and whether it was stopped.

        Raises:
            RayError: There is no Ray or no cluster, or no node of it can train.
            RunFolderError: The folder can't be written.
        """
        failed: dict[RunConfig, str] = {}
        if not self._waiting:
            return failed, False
        wanted = len(self._waiting) + len(done)
        with self._open, connected(self._address, self._demands) as ray, calling_on_signals(self._on_signal):
            self._ray = ray
            if not asks_for_token():
                self._warn("this Ray cluster asks for no token: whoever reaches it can run any code on it")
            self._open_board()
            try:
                while self._under_way or (self._waiting and self._asked is None):
                    self._look_at_nodes()
                    self._submit()
                    for config, run, error in self._ended():
                        if run is None:
                            failed[config] = error
                        else:
                            done[config] = run
                        observe(config, run, error)
                    self._tell_steps()
                    self._halt_if_asked()
            finally:
                for reference in self._under_way:  # of an error; else there are none
                    ray.cancel(reference, force=True)
        return failed, self._asked is not None and len(done) + len(failed) < wanted

    def _open_board(self) -> None:
        """Start the board on this node, whose end is this process's end too."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        place = NodeAffinitySchedulingStrategy(here, soft=True)
        self._board = self._ray.remote(Board).options(num_cpus=0, scheduling_strategy=place).remote()
        self._reading = self._board.read.remote([])
        self._train = self._ray.remote(train_apart)

    def _look_at_nodes(self) -> None:
        """See how many runs find room now, and whether any still does."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        nodes = alive(self._ray)
        self._most = max(1, self._jobs or room(nodes, self._demands))
        if all(any(demand.fitting(node) for node in nodes) for demand in self._demands):
            self._unmet_since = None
        elif self._unmet_since is None:
            self._unmet_since = now
        elif now - self._unmet_since > UNMET_SECONDS:
            wanted = " or the ".join(map(str, self._demands))
            raise RayError(
                f"the last node of the Ray cluster that has the {wanted} that a run takes is gone; "
                "the same command goes on with what is missing"
            )

    def _submit(self) -> None:
        now = time.monotonic()
        while self._asked is None and len(self._under_way) < self._most:
            task = next((task for task in self._waiting if task.not_before <= now), None)
            if task is None:
                return
            self._waiting.remove(task)
            task.key, task.begun = next(self._keys), False
            task.submissions += 1
            order: Order = {
                "config": task.config.model_dump_json(),
                "limits": self._limits,
                "version": __version__,
                "key": task.key,
                "gpu": bool(task.demand.gpus),
            }
            demand = {"num_cpus": task.demand.cpus, "num_gpus": task.demand.gpus}
            # Spread, since the driver's node would else be filled first.
            more = {"name": f"lsviz {task}", "max_retries": 0, "scheduling_strategy": "SPREAD"}
            self._under_way[self._train.options(**demand, **more).remote(order, self._board)] = task

    def _ended(self) -> list[tuple[RunConfig, Run | None, str]]:
        """Wait a moment and return what came of each run that has ended by then."""
        if not self._under_way:
            time.sleep(POLL_SECONDS)  # what was lost waits a moment
            return []
        ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=POLL_SECONDS)
        ended = []
        for reference in ready:
            task = self._under_way.pop(reference)
            answer = self._answer(reference, task)
            self._submit()  # so that its place is not empty while this run is looked through
            if answer is not None:
                self._begin(task)  # one that was too short for the board
                ended.append((task.config, *self._take_in(task, answer)))
        return ended

    def _answer(self, reference: Any, task: _Task) -> Answer | None:
        """Return what a task came to; None where it was cancelled, or is to be trained once more.

        Raises:
            RayError: Its node can't train at all.
        """
        errors = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(reference)
        except errors.TaskCancelledError:
            lost = "somebody cancelled its task"
        except errors.RayTaskError as error:
            if self._asked is not None:
                return None
            cause = error.cause if error.cause is not None else error
            told = str(cause).strip().splitlines() or [type(cause).__name__]
            raise RayError(
                f"a node can't train: {told[-1]} (every node needs lsviz {__version__} in Ray's Python)"
            ) from None
        except errors.RayError as error:
            lost = _reason(error)
        else:
            if answer["state"] != "cancelled":
                return answer
            lost = "somebody cancelled its task"
        if self._asked is not None:
            return None
        task.lost += task.begun
        if task.lost >= TRIES or task.submissions >= SUBMISSIONS:
            times = "once" if task.lost == 1 else f"{task.lost} times"
            return {"state": "failed", "error": f"it was lost {times}: {lost}", "node": "", "run": None}
        if task.begun:
            self._warn(f"{task}: {lost}; it is trained once more")
        task.not_before = time.monotonic() + AGAIN_SECONDS
        self._waiting.appendleft(task)
        return None

    def _take_in(self, task: _Task, answer: Answer) -> tuple[Run | None, str]:
        """Put a run that was sent into its place, and return it where it finished, or why there is none.

        Raises:
            RunFolderError: The folder can't be written.
        """
        error = answer["error"] or answer["state"]
        if answer["run"] is None:
            return None, answer["error"] or f"{answer['node']} sent no run"
        try:
            run = self._import(answer["run"], f"what {answer['node']} sent")
        except ExchangeError as wrong:
            return None, str(wrong)
        with contextlib.suppress(RunError):
            if run.config == task.config:
                if answer["state"] != "finished":
                    return None, error
                if run.status.state == "finished" and is_whole(run):
                    return run, ""
        shutil.rmtree(run.path, ignore_errors=True)
        return None, f"what {answer['node']} sent is not the whole run that it was asked for"

    def _import(self, packed: bytes, name: str) -> Run:
        store = RunStore.at(self._root)
        try:
            return import_zip(io.BytesIO(packed), store, name, self._inspector)
        except RunFolderError:
            # Ctrl+C reaches the inspector's process too: a new one, once; of a full disk it says the same.
            self._inspector = self._open.enter_context(Inspector())
            return import_zip(io.BytesIO(packed), store, name, self._inspector)

    def _begin(self, task: _Task) -> None:
        task.begun = True
        if not task.told:
            task.told = True
            self._started(task.config)

    def _tell_steps(self) -> None:
        """Pass on what the board has, where it answers; without one all goes on untold."""
        if not self._ray.wait([self._reading], timeout=0)[0]:
            return
        told: dict[int, int] = {}
        with contextlib.suppress(self._ray.exceptions.RayError):
            told = self._ray.get(self._reading)
        under_way = {task.key: task for task in self._under_way.values()}
        self._reading = self._board.read.remote(list(under_way))
        for key, steps in told.items():
            if task := under_way.get(key):
                self._begin(task)
                self._stepped(task.config, steps)

    def _on_signal(self) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
        # One Ctrl+C can come as two signals in a moment; a second one means it.
        self._kill = self._kill or now - self._asked > 0.5

    def _halt_if_asked(self) -> None:
        """Cancel the tasks once it is time, and end the workers of those that go on for GRACE_SECONDS."""
        if self._asked is None:
            return
        now = time.monotonic()
        kill = self._kill or now - self._asked > GRACE_SECONDS
        if kill or now - self._told_to_stop > AGAIN_SECONDS:  # one that a task does not get is lost
            self._told_to_stop = now
            for reference in self._under_way:
                self._ray.cancel(reference, force=kill)


def _reason(error: Exception) -> str:
    """Return in a line what was lost; Ray tells it in many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"its worker or node was lost ({type(error).__name__}: {lines[0] if lines else ''})"
