"""dcgan: a generator and a discriminator against each other, each with an optimizer of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from lsviz.training.catalog import TaskSpec
from lsviz.training.datasets import load_digits
from lsviz.training.tasks.base import Batch

NOISE = 64
SIDE = 8
GENERATED = 1024
"""How many images the metric looks at."""
SHOWN = 8
"""Rows and columns of the picture."""


class Generator(nn.Module):
    """Three transposed convolutions from noise to an image of 8 x 8, batch norm and ReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(NOISE, 64, 2, bias=False)
        self.norm1 = nn.BatchNorm2d(64)
        self.conv2 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.conv3 = nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1)

    def forward(self, noise: Tensor) -> Tensor:
        """Map (batch, 64) noise to (batch, 1, 8, 8) images in [-1, 1]."""
        x = torch.relu(self.norm1(self.conv1(noise[:, :, None, None])))
        x = torch.relu(self.norm2(self.conv2(x)))
        return torch.tanh(self.conv3(x))


class Discriminator(nn.Module):
    """Three convolutions from an image to one logit, leaky ReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, 1, 8, 8) images to (batch,) logits: above 0 means real."""
        x = nn.functional.leaky_relu(self.conv1(images), 0.2)
        x = nn.functional.leaky_relu(self.norm2(self.conv2(x)), 0.2)
        logits: Tensor = self.conv3(x).flatten()
        return logits


class DCGAN(nn.Module):
    """Both networks, with the first weights of Radford et al. (arXiv 1511.06434, section 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()
        self.discriminator = Discriminator()
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.02)


class DCGANTask:
    """Handwritten digits of 8 x 8 out of noise, against a discriminator that learns to tell them."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    @cached_property
    def _images(self) -> Tensor:
        pixels, _ = load_digits()
        return torch.as_tensor(pixels / 8.0 - 1.0).float().reshape(-1, 1, SIDE, SIDE)

    @cached_property
    def _noise(self) -> Tensor:
        return torch.randn(GENERATED, NOISE, generator=torch.Generator().manual_seed(0))

    def build_model(self) -> nn.Module:
        """Return a fresh `DCGAN`."""
        return DCGAN()

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield (real images, noise), both drawn anew at every step."""
        generator = torch.Generator().manual_seed(seed)
        size = self.spec.batch_size
        while True:
            chosen = torch.randint(len(self._images), (size,), generator=generator)
            yield self._images[chosen], torch.randn(size, NOISE, generator=generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the discriminator's loss plus the generator's.

        One backward pass gives each network the gradient of its own loss: the discriminator sees
        generated images cut off from their generator, and judges for the generator with weights that
        take no gradient.
        """
        real, noise = batch
        generator, discriminator = model.get_submodule("generator"), model.get_submodule("discriminator")
        generated = generator(noise)
        told = _judged(discriminator(real), real=True) + _judged(
            discriminator(generated.detach()), real=False
        )
        with _held(discriminator):
            fooled = _judged(discriminator(generated), real=True)
        return told + fooled

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        """Return the Fréchet distance of generated and real images, as Gaussians of 64 pixels."""
        images = self._generate(model, device)
        return frechet_distance(images.flatten(1), self._images.flatten(1))

    @torch.no_grad()
    def picture(self, model: nn.Module, device: torch.device) -> Tensor:
        """Return 64 generated digits on (160, 160) pixels, uint8, the same noise every time."""
        return _sheet(self._generate(model, device))

    def original(self) -> Tensor:
        """Return the first 64 real digits, laid out like the generated ones."""
        return _sheet(self._images)

    def _generate(self, model: nn.Module, device: torch.device) -> Tensor:
        generated: Tensor = model.get_submodule("generator")(self._noise.to(device))
        return generated.float().cpu()


@contextmanager
def _held(module: nn.Module) -> Iterator[None]:
    """Let the module's weights take no gradient from what is computed inside."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _judged(logits: Tensor, *, real: bool) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def _sheet(images: Tensor) -> Tensor:
    """Lay the first 64 images out in 8 rows, dark on white, a pixel of paper around each; pixels doubled."""
    framed = nn.functional.pad(images[: SHOWN * SHOWN], (1, 1, 1, 1), value=-1.0)
    side = SIDE + 2
    rows = framed.reshape(SHOWN, SHOWN, side, side).transpose(1, 2)
    sheet = rows.reshape(1, 1, SHOWN * side, SHOWN * side)
    doubled = interpolate((1 - sheet.nan_to_num()) * 127.5, scale_factor=2, mode="nearest")[0, 0]
    return doubled.round().clamp(0, 255).to(torch.uint8)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return the Fréchet distance between two samples, each taken as a Gaussian.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64 (Dowson and Landau, 1982; the FID of Heusel
    et al., arXiv 1706.08500, on the pixels themselves instead of a network's features). NaN where a value
    is not finite.

    Args:
        first: (samples, features).
        second: (samples, features), same features.
    """
    a, b = first.double(), second.double()
    if not (a.isfinite().all() and b.isfinite().all()):
        return math.nan
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + cov_a.trace() + cov_b.trace() - 2 * cross)


def build_task(spec: TaskSpec) -> DCGANTask:
    """Return the task."""
    return DCGANTask(spec)
