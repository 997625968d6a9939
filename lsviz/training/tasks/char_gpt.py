"""char-gpt: a small transformer on characters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.tasks.text import CONTEXT, TextTask

LAYERS, WIDTH, HEADS = 4, 64, 4


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, WIDTH) to the same shape."""
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return out


class Block(nn.Module):
    """Attention and a two-layer network, each behind a layer norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, WIDTH) to the same shape."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.narrow(nn.functional.gelu(self.widen(self.norm2(x))))
        return out


class CharGPT(nn.Module):
    """Four blocks of width 64 over 64 characters."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        for i in range(LAYERS):
            self.add_module(f"block{i + 1}", Block())
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, vocabulary, bias=False)

    def forward(self, characters: Tensor) -> Tensor:
        """Map (batch, length) character numbers to (batch, length, vocabulary) logits."""
        places = torch.arange(characters.shape[1], device=characters.device)
        x = self.characters(characters) + self.places(places)
        for i in range(LAYERS):
            x = self.get_submodule(f"block{i + 1}")(x)
        logits: Tensor = self.output(self.norm(x))
        return logits


class CharGPTTask(TextTask):
    """Characters with `CharGPT`."""

    def build_model(self) -> nn.Module:
        """Return a fresh `CharGPT`."""
        return CharGPT(len(self.characters))


def build_task(spec: TaskSpec) -> CharGPTTask:
    """Return the task."""
    return CharGPTTask(spec)
