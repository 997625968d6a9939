"""Recording gradients: hooks that count every module's output gradient, and every weight's gradient.

Hooks see gradients as backward has them, that is scaled; each row carries the loss scale in force.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lsviz.exponents import ExponentHistogram
from lsviz.runs.schema import ExponentRow, Kind
from lsviz.training.counting import count_exponents
from lsviz.training.tensors import tensors_in


class GradientRecorder:
    """Counts the gradients of one model's backward passes. It never changes a value.

    Use: ``with recorder.recording(): forward and backward``, then `rows`.

    Attributes:
        seconds: Time spent on counting since `recording` was entered, hooks and `rows` together.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._activations: dict[str, ExponentHistogram] = {}
        self._scales: dict[str, float] = {}
        self._rounding = False
        self.seconds = 0.0

    @contextmanager
    def recording(
        self, *, rounding: bool = False, scale_at: Callable[[Tensor], float] | None = None
    ) -> Iterator[None]:
        """Count the output gradients of every module while the context lasts.

        A module that returns its child's output unchanged shares the child's tensor, and so its
        counts; the model itself is left out where it does, since it has no name of its own. Passes
        inside one context add up.

        Args:
            rounding: Count what a reference histogram holds.
            scale_at: Tells the loss scale of an output's gradient, where that is not the same for all.
        """
        self._activations = {}
        self._scales = {}
        self._rounding = rounding
        self.seconds = 0.0
        # By gradient edge, not by tensor: an in-place operation keeps the tensor and makes a new edge.
        watched: dict[GradientEdge, list[str]] = {}

        def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def after_forward(module: nn.Module, inputs: Any, output: Any) -> None:
                for tensor in tensors_in(output):
                    if not (tensor.requires_grad and tensor.is_floating_point()):
                        continue
                    scale = 1.0 if scale_at is None else scale_at(tensor)
                    edge = get_gradient_edge(tensor)
                    names = watched.get(edge)
                    if names is not None:
                        if name and name not in names:
                            names.append(name)
                        continue
                    names = watched[edge] = [name]
                    tensor.register_hook(self._counter(names, scale))  # type: ignore[no-untyped-call]

            return after_forward

        handles = [m.register_forward_hook(watch(name)) for name, m in self._model.named_modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def rows(
        self,
        step: int,
        loss_scale: float,
        *,
        reference: bool = False,
        weight_scales: Mapping[str, float] | None = None,
    ) -> list[ExponentRow]:
        """Return what was counted, activations in the order of modules, then each weight's ``.grad``.

        Args:
            step: Number of the step.
            loss_scale: S, of every gradient that has none of its own.
            reference: Whether this was the FP32 pass.
            weight_scales: Parameter -> S of its gradient.
        """
        scales = {**self._scales, **weight_scales} if weight_scales is not None else {}

        def row(tensor: str, kind: Kind, histogram: ExponentHistogram) -> ExponentRow:
            return ExponentRow(step, tensor, kind, reference, scales.get(tensor, loss_scale), histogram)

        order = [name for name, _ in self._model.named_modules() if name in self._activations]
        rows = [row(name, "activation_grad", self._activations[name]) for name in order]
        for name, parameter in self._model.named_parameters():
            if parameter.grad is not None:
                rows.append(row(name, "weight_grad", self._count(parameter.grad)))
        return rows

    def _count(self, gradient: Tensor) -> ExponentHistogram:
        started = time.perf_counter()
        counted = count_exponents(gradient, rounding=self._rounding)
        self.seconds += time.perf_counter() - started
        return counted

    def _counter(self, names: list[str], scale: float) -> Callable[[Tensor], None]:
        """Count under each name; what comes later is brought to the scale of what came first."""

        def count(gradient: Tensor) -> None:
            counted = self._count(gradient)
            for name in names:
                before = self._activations.get(name)
                if before is None:
                    self._activations[name] = counted
                    self._scales[name] = scale
                else:
                    binades = round(math.log2(self._scales[name] / scale))
                    self._activations[name] = before.merge(counted.shift(binades) if binades else counted)

        return count


class Snapshot:
    """What a forward pass changes besides what it returns: random number generators and buffers."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

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
