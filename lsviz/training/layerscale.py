"""Applying a loss scale per layer (`lsviz.policies.Layerwise`) to any model, exactly.

A layer is a module with parameters of its own. During forward, every tensor is tagged with the layer
whose scale its gradient will have: what a layer computes carries that layer's tag, and so does what is
computed from it up to the next layer (its sigmoid, say). Where an operation meets a tensor with another
tag (at a layer's entrance, or where branches meet), an identity is put in whose backward multiplies the
gradient by the ratio of the two scales. So the gradient at a layer's output, its weights' gradients and
everything between carry that layer's S, whatever flows on carries the next one's, and no gradient ever
passes through S = 1 on its way. Scales are powers of two, so nothing is rounded; a value is lost only where
it leaves its format's range at a layer's own S, as it would under a global one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from inspect import signature
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from lsviz.errors import UserError
from lsviz.policies import Layerwise, inverse_scale
from lsviz.runs.series import LayerOutcome
from lsviz.training.tensors import tensors_in

_TAG: Final = "_lsviz_layer"
_FREE: Final = "\0free"
"""Tag of what comes from no layer, such as an input that requires a gradient: any scale will do."""
_LEFT_ALONE: Final = frozenset({"__set__", "register_hook", "retain_grad", "backward"})


class UntrackedTensorError(UserError):
    """A tensor came from where tags can't follow, such as a custom autograd Function."""


class LayerScaling:
    """The layers of one model, and what their scales did in the last backward pass.

    Use: ``with scaling.forward(policy): loss = ...``, then backward from loss x `scale_at` the loss, then
    `outcomes`, then `unscale`.

    Attributes:
        loss_layer: The layer whose S the loss was last multiplied by; None where any scale would do.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers: dict[nn.Module, str] = {}
        self._owners: dict[Tensor, str] = {}
        for name, module in model.named_modules():
            own = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if own:
                self._layers[module] = name
            for parameter in own:
                self._owners.setdefault(parameter, name)  # a shared one belongs to the first
        self._names = {name: owner for name, p in model.named_parameters() if (owner := self._owners.get(p))}
        self._scales: dict[str, float] = {}
        self.loss_layer: str | None = None
        self._inside: list[str] = []
        self._crossings: list[tuple[str, str, Tensor]] = []

    @contextmanager
    def forward(self, policy: Layerwise) -> Iterator[None]:
        """Tag what is computed, with this policy's scales, while the context lasts."""
        self._scales = {name: policy.scale_of(name) for name in self._layers.values()}
        self._inside, self._crossings = [], []
        handles: list[RemovableHandle] = []
        for module, name in self._layers.items():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with _Tagging(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def scale_at(self, tensor: Tensor) -> float:
        """Return the S that the gradient of a tensor of the last forward pass has.

        Raises:
            UntrackedTensorError: It has no tag.
        """
        return self._scales.get(self._tag_of(tensor), 1.0)

    def scale_of_loss(self, loss: Tensor) -> float:
        """Return the S that the loss is to be multiplied by, and remember whose it is."""
        self.loss_layer = tag if (tag := self._tag_of(loss)) in self._scales else None
        return self.scale_at(loss)

    def told(self, outcomes: Mapping[str, bool]) -> tuple[LayerOutcome, ...]:
        """Return each layer's scale beside what `outcomes` has of it."""
        return tuple(LayerOutcome(name, scale, outcomes.get(name)) for name, scale in self._scales.items())

    @property
    def weight_scales(self) -> Mapping[str, float]:
        """S of every parameter's gradient, by the parameter's name."""
        return {name: self._scales[owner] for name, owner in self._names.items()}

    def unscale(self) -> None:
        """Multiply every ``.grad`` by 1/S of its own layer, in place."""
        with torch.no_grad():
            for parameter, owner in self._owners.items():
                if parameter.grad is not None:
                    parameter.grad.mul_(inverse_scale(self._scales[owner]))

    def outcomes(self) -> dict[str, bool]:
        """Return which layers stayed finite in the last backward pass.

        Returns:
            Layer -> False where an Inf or NaN began there: what reached it was finite and what it made
            of it is not. A layer that something not finite reached is left out, and so is one without
            a gradient. Where every layer with Inf or NaN also received one, as a layer can that is used
            twice, the first in backward order is blamed.
        """
        reached = dict.fromkeys(self._scales, True)
        made = dict.fromkeys(self._scales, True)
        present = set()
        first: str | None = None
        for source, target, flag in self._crossings:
            finite = bool(flag)
            present.add(source)
            if not finite:
                first = first or source
                made[source] = reached[target] = False
        for parameter, owner in self._owners.items():
            if parameter.grad is not None:
                present.add(owner)
                made[owner] = made[owner] and bool(torch.isfinite(parameter.grad).all())
        outcomes = {name: made[name] for name in self._scales if reached[name] and name in present}
        if first is not None and all(outcomes.values()):
            outcomes[first] = False
        return outcomes

    def _tag_of(self, tensor: Tensor) -> str:
        tag: str | None = getattr(tensor, _TAG, None)
        if tag is None:
            tag = self._owners.get(tensor, _FREE if tensor.is_leaf else None)
        if tag is None:
            raise UntrackedTensorError(
                "layerwise scaling can't tell which layer a tensor belongs to: it came from an operation "
                "that torch does not show, such as a custom autograd Function; choose another policy"
            )
        return tag

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def before_forward(module: nn.Module, inputs: Any) -> None:
            self._inside.append(name)

        return before_forward

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._inside.pop()

    def _target(self, tensors: list[Tensor]) -> str:
        """The tag that an operation on these tensors works under."""
        if self._inside:
            return self._inside[-1]
        tags = [(self._tag_of(t), t in self._owners) for t in tensors]
        made = [tag for tag, owned in tags if not owned and tag != _FREE]
        return next(iter(made), next((tag for tag, _ in tags if tag != _FREE), _FREE))

    def _cross(self, tensor: Tensor, target: str) -> Tensor:
        """Return the tensor as seen from a layer: its gradient changes scale on the way back."""
        source = self._tag_of(tensor)
        if source in (target, _FREE):
            return tensor
        ratio = self._scales[source] / self._scales[target]
        crossed: Tensor = _Rescale.apply(tensor, ratio, self._crossings, target, source)  # type: ignore[no-untyped-call]
        return crossed


class _Rescale(torch.autograd.Function):
    """Identity; its gradient is noted as finite or not, and multiplied."""

    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, ratio: float, crossings: list[Any], came_from: str, goes_to: str
    ) -> Tensor:
        ctx.ratio, ctx.crossings, ctx.ends = ratio, crossings, (came_from, goes_to)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        ctx.crossings.append((*ctx.ends, torch.isfinite(gradient).all()))
        return gradient * ctx.ratio, None, None, None, None


class _Tagging(TorchFunctionMode):
    """Sees every torch function called from Python, and keeps the tags."""

    def __init__(self, scaling: LayerScaling) -> None:
        super().__init__()
        self._scaling = scaling

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _LEFT_ALONE or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        scaling = self._scaling
        if name == "__get__":  # a property: x.T is x as far as scales go
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and result.grad_fn is not None and not hasattr(result, _TAG):
                setattr(result, _TAG, scaling._tag_of(args[0]))
            return result
        found = [t for t in tensors_in((args, kwargs)) if t.requires_grad]
        if not found:
            return func(*args, **kwargs)
        # What is changed in place keeps its tag, and with it the operation.
        changed = args[0] if args and _changes_in_place(func, args, kwargs) else None
        keeps = isinstance(changed, Tensor) and changed.requires_grad
        target = scaling._tag_of(args[0]) if keeps else scaling._target(found)
        args, kwargs = _replaced(
            (args, kwargs),
            lambda t: scaling._cross(t, target) if t.requires_grad and t is not changed else t,
        )
        result = func(*args, **kwargs)
        for tensor in tensors_in((result, changed)):
            if tensor.requires_grad and not tensor.is_leaf:
                setattr(tensor, _TAG, target)
        return result


@lru_cache(maxsize=1024)
def _inplace_position(func: Any) -> int | None:
    """Where a function of torch.nn.functional takes its argument ``inplace``; None if it has none."""
    try:
        names = list(signature(func).parameters)
    except (TypeError, ValueError):  # built into torch
        return None
    return names.index("inplace") if "inplace" in names else None


def _changes_in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a torch function changes its first argument, by its name or its argument ``inplace``."""
    name = getattr(func, "__name__", "")
    if name == "__setitem__" or name.startswith("__i") or (name.endswith("_") and not name.endswith("__")):
        return True
    place = _inplace_position(func)
    return place is not None and bool(kwargs.get("inplace", args[place] if place < len(args) else False))


def _replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a nest of tuples, lists and mappings with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_replaced(item, change) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        if hasattr(value, "_make"):  # a named tuple
            return value._make(items)
        return items if isinstance(value, list) else tuple(items)
    return value
