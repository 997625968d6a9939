"""Which modules and parameters of anyone's model are watched, and under which names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from lsviz.errors import UserError
from lsviz.runs.config import Precision

_PRECISIONS: Final[dict[torch.dtype, Precision]] = {torch.float16: "fp16", torch.bfloat16: "bf16"}
_COMPILED = "_orig_mod."


class NothingWatchedError(UserError):
    """A pattern names no module; the message says what there is."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DataParallel and DistributedDataParallel."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    return model


def task_name(model: nn.Module) -> str:
    """Return what a run of anyone's model calls its task: the model's class, in letters a config takes."""
    inner = unwrapped(model)
    name = type(getattr(inner, "_orig_mod", inner)).__name__.lower()
    return re.sub(r"[^a-z0-9_.-]+", "-", name).lstrip("_.-")[:64] or "model"


def computing_precision(model: nn.Module, autocast: torch.dtype | None) -> Precision:
    """Return the half format that a model computes in: autocast's, else its parameters'; without one FP32."""
    half = autocast or next((p.dtype for p in model.parameters() if p.dtype in _PRECISIONS), None)
    return "fp32" if half is None else _PRECISIONS.get(half, "fp32")


def watched_modules(model: nn.Module, patterns: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Return the modules whose outputs can be seen, by their name in ``named_modules()``.

    Wrappers (DataParallel, DistributedDataParallel, torch.compile) add nothing to a name. What lies
    inside a compiled module is one graph and has no outputs of its own: what ``torch.compile`` returned
    is watched alone, and a module compiled in place (``module.compile()``), whose hooks would be compiled
    with it, not at all.

    Args:
        model: Any model.
        patterns: Only names that match one of them, as in a shell: ``block1.*``; None: all.

    Raises:
        NothingWatchedError: A pattern matches no module.
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        module = unwrapped(module)
        if id(module) in seen:
            return
        seen.add(id(module))
        if getattr(module, "_compiled_call_impl", None) is not None:
            return
        yield name, module
        if not isinstance(module, OptimizedModule):
            for child_name, child in module.named_children():
                yield from walk(child, f"{name}.{child_name}" if name else child_name)

    found = dict(walk(model, ""))
    if patterns is None:
        return found
    _refuse_idle(patterns, found)
    return {name: module for name, module in found.items() if _matches(name, patterns)}


def watched_parameters(model: nn.Module, patterns: Sequence[str] | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters by their name in ``named_parameters()``, a shared one under its first.

    Args:
        model: Any model.
        patterns: Only those of modules whose name matches one of them; None: all.
    """
    named = {name.replace(_COMPILED, ""): p for name, p in unwrapped(model).named_parameters()}
    if patterns is None:
        return named
    return {name: p for name, p in named.items() if _matches(name.rpartition(".")[0], patterns)}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_idle(patterns: Sequence[str], found: dict[str, nn.Module]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in found):
            names = [name for name in found if name]
            some = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise NothingWatchedError(f"modules: {pattern!r} matches none; there are {some or 'none'}")


def at_the_end_of_backward(act: Callable[[], None]) -> None:
    """Call once the backward pass in hand is over, and what others do at its end.

    DistributedDataParallel puts its averaged gradients into place in such a callback of its own, which it
    registers later than this: so this one only registers the next.
    """
    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(lambda: engine.queue_callback(act))
