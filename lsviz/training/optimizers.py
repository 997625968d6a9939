"""The optimizers: a task's own, or the one that a run chooses in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import nn

from lsviz.training.catalog import TaskSpec

_BUILDERS: Final[dict[str, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_optimizers(
    model: nn.Module, spec: TaskSpec, name: str = "task", lr: float | None = None
) -> list[torch.optim.Optimizer]:
    """Return one optimizer for each of the task's parts; see `build_optimizer`."""
    return [build_optimizer(model.get_submodule(part).parameters(), spec, name, lr) for part in spec.parts]


def build_optimizer(
    parameters: Iterable[nn.Parameter], spec: TaskSpec, name: str = "task", lr: float | None = None
) -> torch.optim.Optimizer:
    """Return an optimizer with torch's defaults (momentum: 0.9, AdamW: decoupled decay 0.01).

    The task's own has the task's betas.

    Args:
        parameters: What it updates.
        spec: The task, with an optimizer and a learning rate of its own.
        name: ``task``, ``sgd``, ``momentum``, ``adam`` or ``adamw``.
        lr: Learning rate; None takes the task's, or the usual one of SGD where the task has another.
    """
    chosen = spec.optimizer if name == "task" else name
    if lr is None:
        lr = spec.usual_lr(chosen)
    own = {"betas": spec.betas} if chosen == spec.optimizer and chosen.startswith("adam") else {}
    return _BUILDERS[chosen](parameters, lr=lr, **own)
