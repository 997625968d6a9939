"""Putting faults into a backward pass: Inf, NaN or huge values at a module's output, at chosen steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from lsviz.errors import UserError
from lsviz.runs.config import RunConfig
from lsviz.runs.injection import HUGE, FaultKind, Injection
from lsviz.training.tasks.base import build_task
from lsviz.training.tensors import tensors_in

_SHOWN: Final = 8
_VALUES: Final = {"inf": math.inf, "nan": math.nan}


class FaultError(UserError):
    """A fault can't be put where it was asked for; the message says why, and where it could be."""


@dataclass(slots=True)
class _Output:
    """One tensor that modules gave out.

    Attributes:
        faults: Those that its gradient is to have, by the name of the module.
        place: Index of its largest value, shape (dimensions,); None where it has no fault.
    """

    faults: dict[str, FaultKind] = field(default_factory=dict)
    place: tuple[Tensor, ...] | None = None


class FaultInjector:
    """Changes gradients at the outputs of some of a model's modules, at some steps.

    Use: ``with injector.at(step): forward and backward``. At any other step it leaves everything as it
    is. Every try of a step and its FP32 reference have the fault, as if it lay in the batch.

    Args:
        model: Any model.
        injections: Which step, module and kind.

    Raises:
        FaultError: The model has no such module.
    """

    def __init__(self, model: nn.Module, injections: Sequence[Injection]) -> None:
        self._modules = dict(model.named_modules())
        self._by_step: dict[int, dict[str, FaultKind]] = {}
        for injection in injections:
            if not injection.layer or injection.layer not in self._modules:
                raise FaultError(
                    f"inject: no layer {injection.layer!r} in this model; there are {self._some_names()}"
                )
            self._by_step.setdefault(injection.step, {})[injection.layer] = injection.kind
        self._outputs: dict[tuple[Node, int], _Output] = {}
        self._handles: list[RemovableHandle] = []
        self._changed: set[str] = set()

    @contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Change the gradients of the backward pass that runs inside, where the step has a fault.

        Raises:
            FaultError: At the end, if a module had no gradient that could be changed.
        """
        faults = self._by_step.get(step)
        if faults is None:
            yield
            return
        self._changed = set()
        # On every module, not on the chosen ones alone: a module can return its child's tensor, or its
        # input, and what counts that tensor's gradient put its hook there when it came from the child.
        self._handles = [
            module.register_forward_hook(self._after_forward(name, faults.get(name)))
            for name, module in self._modules.items()
        ]
        try:
            yield
        finally:
            for handle in self._handles:
                handle.remove()
            self._handles, self._outputs = [], {}
        for name in faults:
            if name not in self._changed:
                raise FaultError(
                    f"inject: layer {name!r} had no gradient at step {step} that could be changed; "
                    "choose a layer that is trained, or one between such a layer and the loss"
                )

    def _after_forward(self, name: str, kind: FaultKind | None) -> Callable[[nn.Module, Any, Any], None]:
        @torch.no_grad()
        def watch(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in tensors_in(output):
                if not (tensor.requires_grad and tensor.is_floating_point() and tensor.numel()):
                    continue
                edge = get_gradient_edge(tensor)  # not the tensor: in place, it comes to have another
                seen = self._outputs.get((edge.node, edge.output_nr))
                if seen is None:
                    seen = self._outputs[edge.node, edge.output_nr] = _Output()
                    self._handles.append(tensor.register_hook(self._before_backward(seen)))  # type: ignore[no-untyped-call]
                if kind is not None:
                    seen.faults[name] = kind
                    # The largest value passes a ReLU, which would take an Inf in a negative one's place away.
                    seen.place = torch.unravel_index(tensor.argmax(), tensor.shape)

        return watch

    def _before_backward(self, output: _Output) -> Callable[[Tensor | None], Tensor | None]:
        def change(gradient: Tensor | None) -> Tensor | None:
            if output.place is None or gradient is None:  # None: nothing used this output
                return None
            for name, kind in output.faults.items():
                gradient = _with_fault(gradient, kind, output.place)
                self._changed.add(name)
            return gradient

        return change

    def _some_names(self) -> str:
        names = [name for name in self._modules if name]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return (", ".join(names[:_SHOWN]) or "none") + more


def check_layers(config: RunConfig) -> None:
    """Refuse a run whose faults name a layer that its model does not have.

    Raises:
        FaultError: The message lists the layers there are.
    """
    if config.injections:
        FaultInjector(build_task(config.task).build_model(), config.injections)


def _with_fault(gradient: Tensor, kind: FaultKind, place: tuple[Tensor, ...]) -> Tensor:
    """Return the gradient as the fault leaves it, of the same type: a product past FP16 is Inf."""
    if kind == "huge":
        return (gradient.double() * HUGE).to(gradient.dtype)  # 2^16 itself is no FP16 number
    changed = gradient.clone()
    changed[place] = _VALUES[kind]
    return changed
