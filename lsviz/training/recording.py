"""Recording anyone's training loop: ``with lsviz.record(model, "runs/mine") as rec: ... rec.step(loss)``."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from lsviz.errors import UserError
from lsviz.runs.config import MAX_SEED, MAX_STEPS, RunConfig
from lsviz.runs.schema import OWN_LOOP, State
from lsviz.runs.writer import MAX_FLUSH_SECONDS, RunExistsError, RunWriter, create_run, free_path
from lsviz.training.counted import CountedStep, CountedTensor, amax_rows, exponent_rows
from lsviz.training.counting import stored
from lsviz.training.engine import Engine, library_versions
from lsviz.training.pending import PendingStep
from lsviz.training.ranks import Contribution, Gathering, StepQueue, meet
from lsviz.training.recorder import GradientRecorder
from lsviz.training.scalers import ScaleReader
from lsviz.training.watching import (
    at_the_end_of_backward,
    computing_precision,
    task_name,
    watched_modules,
    watched_parameters,
)

MAX_TALLIES: Final = 2000
"""So many counted tensors wait on their device at most: each takes 2 kB there, or 16 with rounding."""
FLUSH_SECONDS: Final = 1.0
"""Between two parts at first; a run's parts get rarer as it gets longer."""
POLL_SECONDS: Final = 0.05
"""Between two looks for what another process has counted, at the end."""


class RecordError(UserError):
    """A recording can't be made as asked for; the message says why."""


def record(
    model: nn.Module,
    path: str | Path,
    *,
    scaler: Any = None,
    every: int = 1,
    modules: Sequence[str] | None = None,
    activations: bool = True,
    weights: bool = True,
) -> Recording:
    """Return a recording of a training loop, to be used as a context manager.

    Every ``rec.step()`` ends a training step. Nothing that it does changes a value of the training, and
    whatever goes wrong with it (a full disk, say) ends the recording with one warning and leaves the
    training going. Of distributed processes the first one writes; gradients at modules' outputs are counted
    in all that record under the same path, and added up. Its loss is that of the first one's batch.

    Args:
        model: Any model; DataParallel, DistributedDataParallel and torch.compile are seen through, though
            what lies inside a compiled module has no outputs to be seen.
        path: Folder of the run, as ``runs/mine``. Where there is one already, ``runs/mine-2``, and so on.
        scaler: What the loss is scaled with: a ``torch.amp.GradScaler``, a number, a function that
            returns S, None for S = 1.
        every: Record gradients at every so many steps; 0: never. Losses are recorded at all of them.
        modules: Only modules whose name matches one of these patterns (``block1.*``), and their weights.
        activations: Record the gradients at the modules' outputs.
        weights: Record the gradients of the weights.

    Raises:
        UserError: An argument can't be used.
    """
    if not isinstance(model, nn.Module):
        raise RecordError(f"model: a torch.nn.Module is needed, got {type(model).__name__}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise RecordError(f"every: a whole number from 0 on is needed, got {every!r}")
    if isinstance(modules, str):
        raise RecordError(f"modules: a list of patterns is needed, as [{modules!r}]")
    if not Path(path).name:
        raise RecordError(f"path: {str(path)!r} names no folder; give one as runs/mine")
    return Recording(
        model,
        Path(path),
        ScaleReader(scaler),
        every,
        watched_modules(model, modules) if activations else {},
        watched_parameters(model, modules) if weights else {},
        whole=modules is None and activations and weights,
    )


class Recording:
    """A run folder in the making. Made by `record`.

    Attributes:
        path: The run's folder.
    """

    def __init__(
        self,
        model: nn.Module,
        path: Path,
        scale: ScaleReader,
        every: int,
        modules: dict[str, nn.Module],
        parameters: dict[str, nn.Parameter],
        *,
        whole: bool = True,
    ) -> None:
        self.path = path
        self._model, self._scaling, self._every = model, scale, every
        self._parameters, self._whole = parameters, whole
        self._recorder = GradientRecorder(model, modules, parameters)
        self._all_parameters = {id(p) for p in model.parameters()}
        self._writer: RunWriter | None = None
        self._part: Contribution | Gathering | None = None
        self._queue = StepQueue()
        self._handles: list[RemovableHandle] = []
        self._hooked: list[int] = []
        self._always: list[RemovableHandle] = []
        self._pending: list[PendingStep] = []
        self._number = 0
        self._flushed_at = 0.0
        self._interval = FLUSH_SECONDS
        self._lr: Any = None
        self._began = self._guarding = self._carried = 0.0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("cancelled")
        else:
            self.close("failed", f"{type(error).__name__}: {error}")

    @property
    def active(self) -> bool:
        """Whether it writes: not before `start`, after `close`, where it failed, or in a later process."""
        return self._writer is not None

    @property
    def _counting(self) -> bool:
        return self._writer is not None or isinstance(self._part, Contribution)

    def start(self) -> Self:
        """Make the folder and begin with the first step; ``with`` calls it."""
        if not self._counting:
            self._guard(self._open)
            self._began, self._guarding = time.perf_counter(), 0.0
        return self

    def step(self, loss: Any = None, *, metric: float | None = None, lr: float | None = None) -> None:
        """End a training step: call it once for every step of the optimizer, whatever S did to it.

        Args:
            loss: The step's unscaled loss, a tensor or a number.
            metric: A measure on held-out data, where there is a new one.
            lr: Learning rate; by default that of the optimizer that stepped.
        """
        if self._counting:
            started = time.perf_counter()
            self._guard(lambda: self._end_step(loss, metric, lr))
            self._began = time.perf_counter()
            self._carried, self._guarding = self._began - started, 0.0

    def close(self, state: State = "finished", error: str | None = None) -> None:
        """Write what is left and end the run; ``with`` calls it."""
        if not self._counting:
            return
        writer = self._writer

        def end() -> None:
            if state != "finished":
                self._queue.hurry()
            self._flush()
            if writer is not None:
                while self._queue:
                    time.sleep(POLL_SECONDS)
                    self._write(writer)
                writer.end(state, error)

        self._guard(end)
        if writer is not None and self._writer is writer:  # else it failed, and that was told
            with suppress(OSError, ValueError):  # a closed stream
                print(f"lsviz: recorded {self._number:,} steps in {self.path}", file=sys.stderr)
        self._release()

    # What follows runs under _guard: an exception in it ends the recording and nothing else.

    def _guard(self, act: Callable[[], None]) -> None:
        started = time.perf_counter()
        try:
            act()
        except Exception as error:
            self._fail(error)
        self._guarding += time.perf_counter() - started

    def _fail(self, error: Exception) -> None:
        writer = self._writer
        self._release()
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if writer is not None:
            try:
                writer.end("failed", f"recording ended: {reason}")
            except Exception:  # the same disk is full, say; the folder is then found interrupted
                reason = f"{reason} (nor can its end be noted)"
        message = f"lsviz stopped recording at step {self._number}: {reason}. Training goes on."
        try:
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        except RuntimeWarning:  # where warnings are errors, this one still is none
            sys.stderr.write(message + "\n")

    def _release(self) -> None:
        if isinstance(self._part, Contribution):
            with suppress(RuntimeError):  # the first process, which has the store, is gone
                self._part.end()
        self._writer = self._part = None
        self._recorder.stop()
        self._unhook_parameters()
        for handle in self._always:
            handle.remove()
        self._always, self._pending = [], []

    def _open(self) -> None:
        self._part = meet(str(self.path))
        self._queue = StepQueue(self._part)
        if isinstance(self._part, Contribution):
            self._parameters = {}  # their gradients are the same everywhere
            self._flushed_at = time.monotonic()
            self._begin_step()
            return
        while True:
            self.path = free_path(self.path)
            with suppress(RunExistsError):  # another process's, made in between: the next name
                # Told from the first moment: nobody may take a user's process for one of ours.
                create_run(self.path.parent, self._config(), self.path.name, engine=OWN_LOOP)
                break
        writer = RunWriter(self.path, open_ended=True)
        writer.__enter__()
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        writer.describe(
            versions=library_versions(),
            device=device.type,
            device_name=Engine("fp32", device).device_name,
            engine=OWN_LOOP,
            metric_name=None,
            whole=self._whole,
        )
        self._writer = writer
        self._always = [register_optimizer_step_post_hook(self._after_optimizer)]
        self._flushed_at = time.monotonic()
        self._begin_step()

    def _config(self) -> RunConfig:
        seed = torch.initial_seed()
        return RunConfig.build(
            task=task_name(self._model),
            policy=self._scaling.policy(),
            precision=computing_precision(self._model, self._recorder.autocast),
            steps=1,
            seed=seed if 0 <= seed <= MAX_SEED else 0,
            record_every=min(self._every, MAX_STEPS),
            reference_every=0,
        )

    def _begin_step(self) -> None:
        self._scale = self._scaling.now()
        self._stepped = False
        self._overflowed: Tensor | None = None
        self._weights: list[CountedTensor] = []
        self._norm: Tensor | None = None
        self._waits = False
        self._counts = self._every > 0 and self._number % self._every == 0
        if self._counts:
            self._recorder.start(rounding=self._is_uncensored, guard=self._guard)
            trained = [p for p in self._model.parameters() if p.requires_grad and p.is_leaf]
            if [id(p) for p in trained] != self._hooked:
                self._unhook_parameters()
                self._hooked = [id(p) for p in trained]
                self._handles = [
                    p.register_post_accumulate_grad_hook(self._after_gradient)  # type: ignore[no-untyped-call]
                    for p in trained
                ]
        else:
            self._recorder.stop()
            self._unhook_parameters()

    def _unhook_parameters(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._hooked = [], []

    def _is_uncensored(self, gradient: Tensor) -> bool:
        """Whether values are FP32 all the way: then the reference's finer counts are worth their cost."""
        whole = self._recorder.autocast is None and not self._scaling.skips
        return whole and gradient.dtype == torch.float32

    def _after_gradient(self, parameter: Tensor) -> None:
        if not self._waits:
            self._waits = True
            self._guard(lambda: at_the_end_of_backward(self._after_backward))

    def _after_backward(self) -> None:
        self._guard(self._count_weights)

    def _count_weights(self) -> None:
        """Count each ``.grad`` as this backward left it: accumulated, reduced over processes, scaled."""
        self._waits = False
        if not self._counting or not self._counts:
            return
        self._recorder.settle()
        self._scale = self._scaling.now()
        if self._parameters:
            self._weights = self._recorder.weights()
            gradients = [stored(p.grad)[0] for p in self._parameters.values() if p.grad is not None]
            self._norm = nn.utils.get_total_norm(gradients) if gradients else None

    def _after_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        def note() -> None:
            mine = [
                g for g in optimizer.param_groups if any(id(p) in self._all_parameters for p in g["params"])
            ]
            if not mine:
                return
            found = getattr(optimizer, "found_inf", None)  # a fused optimizer skips by itself
            if isinstance(found, Tensor):
                self._overflowed = found.detach().clone()
            if not self._stepped:  # of several optimizers, the first
                self._lr = mine[0]["lr"]
            self._stepped = True

        self._guard(note)

    def _end_step(self, loss: Any, metric: float | None, lr: float | None) -> None:
        ended = time.perf_counter()
        tensors = [*self._recorder.activations(), *self._weights] if self._counts else []
        self._pending.append(
            PendingStep(
                number=self._number,
                loss=loss.detach().clone() if isinstance(loss, Tensor) else loss,
                metric=metric,
                lr=self._lr if lr is None else lr,
                scale=self._scale,
                stepped=self._stepped,
                overflowed=self._overflowed,
                norm=self._norm,
                ms=max(0.0, ended - self._began - self._guarding) * 1e3,
                ms_recording=(self._guarding + self._carried) * 1e3,
                tensors=tensors,
                knows_weights=bool(self._weights),
            )
        )
        self._number += 1
        waiting = sum(len(step.tensors) for step in self._pending)
        if waiting >= MAX_TALLIES or time.monotonic() - self._flushed_at >= self._interval:
            self._flush()
        self._begin_step()

    def _flush(self) -> None:
        """Fetch what waits and hand it to the writer."""
        if not self._counting or not self._pending:
            return
        pending, self._pending = self._pending, []
        scales = [float(step.scale) for step in pending]
        counted = [
            CountedStep(step.number, scale, False, tuple(step.tensors))
            for step, scale in zip(pending, scales, strict=True)
        ]
        made = exponent_rows(counted)
        if isinstance(self._part, Contribution):
            for step, rows in zip(pending, made, strict=True):
                if rows:
                    self._part.send(step.number, rows)
        elif self._writer is not None:
            self._queue.add(zip(pending, counted, made, strict=True))
            self._write(self._writer)
        self._flushed_at = time.monotonic()
        self._interval = min(MAX_FLUSH_SECONDS, self._interval * 1.05)

    def _write(self, writer: RunWriter) -> None:
        config = writer.record.config
        precision = computing_precision(self._model, self._recorder.autocast)
        if precision != config.precision:
            writer.reconfigure(config.model_copy(update={"precision": precision}))
        for step, here, rows in self._queue.ready():
            row = step.row(here.loss_scale, rows, skips=self._scaling.skips)
            amax = [amax_rows(here, rows)] if rows else []
            writer.append(row, rows, amax=amax, outcomes=[step.outcome(row, rows)])
        writer.flush()
