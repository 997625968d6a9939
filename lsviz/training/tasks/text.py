"""Characters of a real text: what the char tasks have in common.

The text is Python's own help topics (``pydoc_data.topics``), which ship with CPython: about 465 k
characters, a little different from one Python version to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.tasks.base import Batch

CONTEXT = 64
HELD_OUT = 0.1
"""Share of the text, its end, on which the metric is measured."""
EVALUATED = 128
"""Windows of the held-out text that the metric is measured on, evenly spread over it."""


class TextTask:
    """Predict the next character. Subclasses bring the model.

    A model maps (batch, CONTEXT) character numbers to (batch, CONTEXT, vocabulary) logits.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    @cached_property
    def characters(self) -> str:
        """Every character of the text, in order of its number."""
        return "".join(sorted(set(self._text)))

    @cached_property
    def _text(self) -> str:
        return "\n\n".join(topics[name] for name in sorted(topics))

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        number = {character: i for i, character in enumerate(self.characters)}
        numbers = torch.tensor([number[character] for character in self._text])
        held_out = int(len(numbers) * (1 - HELD_OUT))
        return numbers[:held_out], numbers[held_out:]

    def build_model(self) -> nn.Module:
        """Return the model; see `Task.build_model`."""
        raise NotImplementedError

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield (characters, next characters), both of shape (batch, CONTEXT), from random places."""
        text, _ = self._split
        generator = torch.Generator().manual_seed(seed)
        while True:
            starts = torch.randint(len(text) - CONTEXT, (self.spec.batch_size,), generator=generator)
            windows = text[starts[:, None] + torch.arange(CONTEXT + 1)]
            yield windows[:, :-1], windows[:, 1:]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy a character, in nats."""
        characters, following = batch
        logits = model(characters)
        return nn.functional.cross_entropy(logits.flatten(0, 1), following.flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        """Return bits per character on the held-out text."""
        _, text = self._split
        starts = torch.linspace(0, len(text) - CONTEXT - 1, EVALUATED).long()
        windows = text[starts[:, None] + torch.arange(CONTEXT + 1)].to(device)
        nats = self.loss(model, (windows[:, :-1], windows[:, 1:]))
        return float(nats) / math.log(2)
