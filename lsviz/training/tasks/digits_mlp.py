"""digits-mlp: a network that needs no loss scaling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.tasks.digits import CLASSES, PIXELS, DigitsTask

WIDTH = 128


class DigitsMLP(nn.Module):
    """Two hidden layers of 128 with ReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(PIXELS, WIDTH)
        self.layer2 = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 64) pixels to (batch, 10) logits."""
        hidden = torch.relu(self.layer2(torch.relu(self.layer1(images))))
        logits: Tensor = self.output(hidden)
        return logits


class DigitsMLPTask(DigitsTask):
    """Digits with `DigitsMLP`."""

    def build_model(self) -> nn.Module:
        """Return a fresh `DigitsMLP`."""
        return DigitsMLP()


def build_task(spec: TaskSpec) -> DigitsMLPTask:
    """Return the task."""
    return DigitsMLPTask(spec)
