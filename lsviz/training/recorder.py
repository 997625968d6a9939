"""Recording gradients: hooks that count every module's output gradient, and every weight's gradient.

Hooks see gradients as backward has them, that is scaled; each row carries the loss scale in force.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from lsviz.runs.schema import ExponentRow
from lsviz.training.counted import CountedStep, CountedTensor, Part, exponent_rows
from lsviz.training.counting import settled, tally_later
from lsviz.training.halves import HalfSeen, dtype_name, is_half
from lsviz.training.tensors import tensors_in

_NOTE: Final = "_lsviz_note"

_ScaleAt = Callable[[Tensor], float]
_Guard = Callable[[Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class _Note:
    """On a tensor: who counts its gradient, under which names."""

    session: object
    edge: GradientEdge
    names: list[str]


class GradientRecorder:
    """Counts the gradients of one model's backward passes. It never changes a value.

    Use: ``with recorder.recording(): forward and backward``, then `counted` or `rows`. Or `start`, any
    number of passes, `stop`, `activations` and `weights`.

    Args:
        model: Whose modules and parameters are watched.
        watched: Name -> module whose output gradients are counted; None: every module of the model.
        parameters: Name -> parameter whose ``.grad`` is counted; None: every parameter of the model.

    Attributes:
        seconds: Time spent on counting since `start`.
        autocast: The half format that a module was last seen to compute in under autocast; None: none.
    """

    def __init__(
        self,
        model: nn.Module,
        watched: Mapping[str, nn.Module] | None = None,
        parameters: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        self._modules = dict(model.named_modules()) if watched is None else dict(watched)
        self._parameters = dict(model.named_parameters()) if parameters is None else dict(parameters)
        self._activations: dict[str, list[Part]] = {}
        self._types: dict[str, tuple[str, bool]] = {}
        self._halves = HalfSeen()
        self._order = 0
        self._owners = _owners(self._modules, self._parameters)
        self._numbers = {name: number for number, name in enumerate(self._parameters)}
        self._scales: dict[str, float] = {}
        self._rounding: bool | Callable[[Tensor], bool] = False
        self._handles: list[RemovableHandle] = []
        self._session = object()
        self._hooked_with: tuple[_ScaleAt | None, _Guard | None] = (None, None)
        self._settles = False
        self.seconds = 0.0
        self.autocast: torch.dtype | None = None

    def start(
        self,
        *,
        rounding: bool | Callable[[Tensor], bool] = False,
        scale_at: _ScaleAt | None = None,
        guard: _Guard | None = None,
    ) -> None:
        """Forget what was counted and put hooks on every module, or leave those that are there.

        A module that returns its child's output unchanged shares the child's tensor, and so its
        counts; the model itself is left out where it does, since it has no name of its own. A
        loss that the model itself returns is no activation.

        Args:
            rounding: Count what a reference histogram holds, of all gradients or of those that it names.
            scale_at: Tells the loss scale of an output's gradient, where that is not the same for all.
            guard: Calls what the hooks do; for those who must not fail.
        """
        self._activations = {}
        self._types = {}
        self._order = 0
        self._halves.begin()
        self._scales = {}
        self._rounding = rounding
        self.seconds = 0.0
        self._session = object()
        if self._handles and (scale_at, guard) == self._hooked_with:
            return
        self.stop()
        self._hooked_with = (scale_at, guard)
        self._handles = [
            module.register_forward_hook(_AfterForward(name, self._watch, guard))
            for name, module in self._modules.items()
        ]

    def stop(self) -> None:
        """Take the hooks off the modules: what they compute from now on is not counted."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def recording(self, *, rounding: bool = False, scale_at: _ScaleAt | None = None) -> Iterator[None]:
        """Count the output gradients of every module while the context lasts; passes add up.

        Args:
            rounding: As for `start`.
            scale_at: As for `start`.
        """
        self.start(rounding=rounding, scale_at=scale_at)
        try:
            yield
        finally:
            self.stop()

    def counted(
        self,
        step: int,
        loss_scale: float,
        *,
        reference: bool = False,
        weight_scales: Mapping[str, float] | None = None,
    ) -> CountedStep:
        """Return what was counted, activations in the order of modules, then each weight's ``.grad``.

        Args:
            step: Number of the step.
            loss_scale: S, of every gradient that has none of its own.
            reference: Whether this was the FP32 pass.
            weight_scales: Parameter -> S of its gradient.
        """
        tensors = (*self.activations(), *self.weights())
        if weight_scales is not None:
            scales = {**self._scales, **weight_scales}
            tensors = tuple(replace(t, loss_scale=scales.get(t.tensor)) for t in tensors)
        return CountedStep(step, loss_scale, reference, tensors)

    def rows(
        self,
        step: int,
        loss_scale: float,
        *,
        reference: bool = False,
        weight_scales: Mapping[str, float] | None = None,
    ) -> list[ExponentRow]:
        """Return the exponent rows of `counted`."""
        counted = self.counted(step, loss_scale, reference=reference, weight_scales=weight_scales)
        return exponent_rows([counted])[0]

    def settle(self) -> None:
        """Wait until all gradients seen so far are counted, so that whoever has them may change them."""
        started = time.perf_counter()
        for counts in self._activations.values():
            counts[:] = [part._replace(tally=settled(part.tally)) for part in counts]
        self.seconds += time.perf_counter() - started

    def activations(self) -> list[CountedTensor]:
        """Return what was counted at the modules' outputs since `start`, in the order of modules."""
        self.settle()
        return [
            CountedTensor(name, "activation_grad", None, tuple(self._activations[name]), *self._types[name])
            for name in self._modules
            if name in self._activations
        ]

    def weights(self) -> list[CountedTensor]:
        """Count every parameter's ``.grad`` as it is now."""
        started = {
            name: self._count(parameter.grad)
            for name, parameter in self._parameters.items()
            if parameter.grad is not None
        }
        begun = time.perf_counter()
        counted = [self._counted_weight(name, settled(tally)) for name, tally in started.items()]
        self.seconds += time.perf_counter() - begun
        return counted

    def _counted_weight(self, name: str, tally: Any) -> CountedTensor:
        """Return a weight, which comes just after the last of the outputs that it helped to make."""
        gradient = self._parameters[name].grad
        assert gradient is not None
        outputs = [owner for owner in self._owners[name] if owner in self._activations]
        orders = [part.order for owner in outputs for part in self._activations[owner]]
        # One whose module's output was not seen comes after all those, the last defined first.
        unseen = self._order + len(self._numbers) - self._numbers[name]
        # Of a shared weight, or of several passes together, the sum has more digits than each part.
        half = self._halves.seen(name, gradient) or any(is_half(self._types[o][0]) for o in outputs)
        part = Part(tally, 0, max(orders) + 0.5 if orders else unseen)
        return CountedTensor(name, "weight_grad", None, (part,), dtype_name(gradient), half)

    def _watch(self, name: str, output: Any) -> None:
        """Put a hook on every tensor of an output that will have a gradient."""
        scale_at, guard = self._hooked_with
        self._settles = False
        for tensor in tensors_in(output):
            if not (tensor.requires_grad and tensor.is_floating_point()):
                continue
            if not name and not tensor.ndim:
                continue
            if torch.is_autocast_enabled(tensor.device.type):
                self.autocast = torch.get_autocast_dtype(tensor.device.type)
                self._halves.format = self.autocast
            scale = 1.0 if scale_at is None else scale_at(tensor)
            # Noted on the tensor, which then lives no longer for it. With its gradient edge, since an
            # in-place operation keeps the tensor and makes a new edge.
            edge = get_gradient_edge(tensor)
            note: _Note | None = getattr(tensor, _NOTE, None)
            if note is not None and note.session is self._session and note.edge == edge:
                if name and name not in note.names:
                    note.names.append(name)
                continue
            names = [name]
            setattr(tensor, _NOTE, _Note(self._session, edge, names))
            tensor.register_hook(self._counter(names, scale, guard))  # type: ignore[no-untyped-call]

    def _count(self, gradient: Tensor) -> Any:
        started = time.perf_counter()
        rounding = self._rounding if isinstance(self._rounding, bool) else self._rounding(gradient)
        counted = tally_later(gradient, rounding=rounding)
        self.seconds += time.perf_counter() - started
        return counted

    def _counter(
        self, names: list[str], scale: float, guard: _Guard | None
    ) -> Callable[[Tensor | None], None]:
        """Count under each name; what comes later is brought to the scale of what came first."""
        session = self._session

        def end() -> None:
            self._settles = False
            self.settle()

        def count(gradient: Tensor | None) -> None:
            if session is not self._session:
                return  # of a pass before, whose graph was kept
            if gradient is None:
                return  # an output that nothing used, of a node that has others: cuDNN's LSTM has two states
            if not self._settles:  # before whoever asked for gradients has them, and may change them
                self._settles = True
                engine: Any = torch.autograd.Variable._execution_engine
                engine.queue_callback(end if guard is None else lambda: guard(end))
            counted = self._count(gradient)
            self._order += 1
            for name in names:
                first = self._scales.setdefault(name, scale)
                binades = 0 if first == scale else round(math.log2(first / scale))
                if name not in self._types:
                    self._types[name] = dtype_name(gradient), self._halves.seen(name, gradient)
                part = Part(counted, binades, float(self._order))
                self._activations.setdefault(name, []).append(part)

        if guard is None:
            return count
        return lambda gradient: guard(lambda: count(gradient))


def _owners(modules: Mapping[str, nn.Module], parameters: Mapping[str, nn.Parameter]) -> dict[str, list[str]]:
    """Return the modules that hold each parameter, or else the nearest one around it."""
    holders: dict[int, list[str]] = {}
    for name, module in modules.items():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(name)
    found = {}
    for name, parameter in parameters.items():
        around = name.rpartition(".")[0]
        while around not in modules and around:
            around = around.rpartition(".")[0]
        found[name] = holders.get(id(parameter)) or [around]
    return found


class _AfterForward:
    """A forward hook that is none in a copy or in a saved file of its module."""

    def __init__(
        self,
        name: str,
        watch: Callable[[str, Any], None],
        guard: _Guard | None,
    ) -> None:
        self._name, self._watch, self._guard = name, watch, guard

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._guard is None:
            self._watch(self._name, output)
        else:
            self._guard(lambda: self._watch(self._name, output))

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _NoHook, ()


class _NoHook:
    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        pass


class Snapshot:
    """What a forward pass changes besides what it returns: random number generators and buffers."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._cpu = torch.get_rng_state()
        on_gpu = any(tensor.is_cuda for tensor in (*model.parameters(), *model.buffers()))
        self._cuda = torch.cuda.get_rng_state_all() if on_gpu else []

    def restore(self) -> None:
        """Put generators and buffers back as they were."""
        with torch.no_grad():
            for name, buffer in self._model.named_buffers():
                buffer.copy_(self._buffers[name])
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back, at the end, all that a forward and backward pass changes besides what it returns.

    That is: random number generators, buffers (running means and the like) and every ``.grad``.
    Inside, ``.grad`` starts as None.
    """
    before = Snapshot(model)
    gradients = [(p, p.grad) for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        before.restore()
