"""What the training loop asks of a task, and how it finds one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec, find_task

Batch = tuple[Tensor, ...]


class Task(Protocol):
    """Data, model, loss and metric. The loop brings precision, policy and recording."""

    spec: TaskSpec

    def build_model(self) -> nn.Module:
        """Return a fresh model on the CPU, its weights drawn from torch's global generator."""
        ...

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield training batches without end, the same for the same seed, on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the unscaled loss, a scalar."""
        ...

    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        """Return the metric on held-out data."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """What a task adds whose result can be seen: a picture that the model makes, and what it should be."""

    def picture(self, model: nn.Module, device: torch.device) -> Tensor:
        """Return uint8 of shape (height, width) or (height, width, 3), on the CPU."""
        ...

    def original(self) -> Tensor:
        """Return the picture that training aims at, of the same shape."""
        ...


def build_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        TaskError: There is none.
    """
    spec = find_task(name)
    return cast(Task, import_module(spec.module).build_task(spec))
