"""The optimizers that a run can choose in place of its task's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import nn

LEARNING_RATES: Final[dict[str, float]] = {"sgd": 0.5, "momentum": 0.05}
"""Where none is given; Adam and AdamW then take the task's."""

_BUILDERS: Final[dict[str, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float | None, task_lr: float
) -> torch.optim.Optimizer:
    """Return an optimizer with torch's defaults (momentum: 0.9, AdamW: decoupled decay 0.01).

    Args:
        name: ``sgd``, ``momentum``, ``adam`` or ``adamw``.
        parameters: What it updates.
        lr: Learning rate; None takes the optimizer's usual one.
        task_lr: The task's own, which suits Adam.
    """
    rate = lr if lr is not None else LEARNING_RATES.get(name, task_lr)
    return _BUILDERS[name](parameters, lr=rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the same learning rate."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    for group in groups:
        group["lr"] = lr
