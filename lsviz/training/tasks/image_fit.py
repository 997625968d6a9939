"""image-fit: a network that learns one photograph, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.datasets import load_photo
from lsviz.training.tasks.base import Batch

SIDE = 64
FREQUENCIES, SPREAD = 64, 6.0
WIDTH, LAYERS = 128, 4


class CoordinateNet(nn.Module):
    """Fourier features of a place, four ReLU layers of 128, three colours.

    The frequencies are drawn once, the same for every run (Tancik et al., Fourier Features Let Networks
    Learn High Frequency Functions in Low Dimensional Domains, 2020).
    """

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(2, FREQUENCIES, generator=generator) * SPREAD
        self.register_buffer("frequencies", drawn)
        sizes = [2 * FREQUENCIES] + [WIDTH] * LAYERS
        for i in range(LAYERS):
            self.add_module(f"layer{i + 1}", nn.Linear(sizes[i], sizes[i + 1]))
        self.output = nn.Linear(WIDTH, 3)

    def forward(self, places: Tensor) -> Tensor:
        """Map (pixels, 2) places in [0, 1] to (pixels, 3) colours, about in [0, 1]."""
        waves = 2 * math.pi * (places.float() @ self.frequencies)
        x = torch.cat([waves.sin(), waves.cos()], dim=1)
        for i in range(LAYERS):
            x = torch.relu(self.get_submodule(f"layer{i + 1}")(x))
        colours: Tensor = self.output(x)
        return colours


class ImageFitTask:
    """scikit-learn's photograph of a flower, 64 x 64 pixels, all of them in every step."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    @cached_property
    def _pixels(self) -> tuple[Tensor, Tensor]:
        photo = torch.tensor(load_photo("flower.jpg")).float().permute(2, 0, 1)[None] / 255
        side = min(photo.shape[2:])
        top, left = (photo.shape[2] - side) // 2, (photo.shape[3] - side) // 2
        square = photo[:, :, top : top + side, left : left + side]
        small = nn.functional.interpolate(square, size=(SIDE, SIDE), mode="area")[0]
        axis = (torch.arange(SIDE) + 0.5) / SIDE
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], dim=1), small.flatten(1).T.contiguous()

    def build_model(self) -> nn.Module:
        """Return a fresh `CoordinateNet`."""
        return CoordinateNet()

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield (places, colours) of all pixels, the same at every step and for every seed."""
        while True:
            yield self._pixels

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the squared error, its mean over all pixels and colours."""
        places, colours = batch
        return nn.functional.mse_loss(model(places).float(), colours)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        """Return the peak signal-to-noise ratio in dB."""
        places, colours = self._pixels
        error = nn.functional.mse_loss(model(places.to(device)).float(), colours.to(device))
        return -10 * math.log10(max(float(error), 1e-12))

    @torch.no_grad()
    def picture(self, model: nn.Module, device: torch.device) -> Tensor:
        """Return the photograph as learned so far, (64, 64, 3), uint8."""
        return _photograph(model(self._pixels[0].to(device)))

    def original(self) -> Tensor:
        """Return the photograph itself."""
        return _photograph(self._pixels[1])


def _photograph(colours: Tensor) -> Tensor:
    """Turn (pixels, 3) colours in [0, 1] into bytes; what is beyond is clipped, NaN is black."""
    bytes_ = (colours.float().nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)
    return bytes_.reshape(SIDE, SIDE, 3).cpu()


def build_task(spec: TaskSpec) -> ImageFitTask:
    """Return the task."""
    return ImageFitTask(spec)
