"""digits-cnn: a small convolutional network that needs no loss scaling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.tasks.digits import CLASSES, DigitsTask

SIDE = 8


class DigitsCNN(nn.Module):
    """Two 3 x 3 convolutions with ReLU, one pooling by 2, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.output = nn.Linear(32 * (SIDE // 2) ** 2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 64) pixels to (batch, 10) logits."""
        x = torch.relu(self.conv1(images.reshape(-1, 1, SIDE, SIDE)))
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        logits: Tensor = self.output(x.flatten(1))
        return logits


class DigitsCNNTask(DigitsTask):
    """Digits with `DigitsCNN`."""

    def build_model(self) -> nn.Module:
        """Return a fresh `DigitsCNN`."""
        return DigitsCNN()


def build_task(spec: TaskSpec) -> DigitsCNNTask:
    """Return the task."""
    return DigitsCNNTask(spec)
