"""sigmoid-mlp: so deep a sigmoid network that FP16 starves its lower layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.tasks.digits import CLASSES, PIXELS, DigitsTask

HIDDEN_LAYERS = 6
WIDTH = 128


class SigmoidMLP(nn.Module):
    """Six hidden layers of 128 with sigmoids between, torch's default initialisation."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [PIXELS] + [WIDTH] * HIDDEN_LAYERS
        for i in range(HIDDEN_LAYERS):
            self.add_module(f"layer{i + 1}", nn.Linear(sizes[i], sizes[i + 1]))
        self.output = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 64) pixels to (batch, 10) logits."""
        x = images
        for i in range(HIDDEN_LAYERS):
            x = torch.sigmoid(self.get_submodule(f"layer{i + 1}")(x))
        logits: Tensor = self.output(x)
        return logits


class SigmoidMLPTask(DigitsTask):
    """Digits with `SigmoidMLP`."""

    def build_model(self) -> nn.Module:
        """Return a fresh `SigmoidMLP`."""
        return SigmoidMLP()


def build_task(spec: TaskSpec) -> SigmoidMLPTask:
    """Return the task."""
    return SigmoidMLPTask(spec)
