"""Classification of scikit-learn's handwritten digits: what the digits tasks have in common."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.datasets import load_digits, split_places
from lsviz.training.tasks.base import Batch

PIXELS = 64
CLASSES = 10


class DigitsTask:
    """1,797 images of 8 x 8, pixels scaled to [0, 1]; a fixed fifth (360) is held out.

    Subclasses bring the model.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pixels, labels = load_digits()
        images, classes = torch.as_tensor(pixels / 16.0).float(), torch.as_tensor(labels)
        # The split does not follow the run's seed: metrics of different seeds then compare.
        train, test = (torch.as_tensor(places) for places in split_places(len(classes)))
        return images[train], classes[train], images[test], classes[test]

    def build_model(self) -> nn.Module:
        """Return the model; see `Task.build_model`."""
        raise NotImplementedError

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield (images of shape (batch, 64), labels of shape (batch,)), drawn with replacement."""
        x, y, _, _ = self._split
        generator = torch.Generator().manual_seed(seed)
        while True:
            chosen = torch.randint(len(x), (self.spec.batch_size,), generator=generator)
            yield x[chosen], y[chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(model(images), labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        """Return the accuracy on the held-out images."""
        _, _, images, labels = self._split
        predicted = model(images.to(device)).argmax(dim=1)
        return float((predicted == labels.to(device)).float().mean())
