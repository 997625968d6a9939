"""Pictures of circles, squares and triangles, drawn from a seed, with their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

SIDE: Final = 48
MAX_SHAPES: Final = 3
SMALLEST, LARGEST = 10, 26
CLASSES: Final = ("circle", "square", "triangle")
NOISE: Final = 0.08
_TRIES: Final = 50


@dataclass(frozen=True, slots=True)
class Pictures:
    """Drawn pictures.

    Attributes:
        images: (n, 3, SIDE, SIDE), FP32 about in [0, 1].
        boxes: (n, MAX_SHAPES, 4): left, top, right, bottom in [0, 1]; zeros where there is no shape.
        classes: (n, MAX_SHAPES): index into CLASSES; -1 where there is no shape.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor


def draw_pictures(count: int, seed: int) -> Pictures:
    """Return pictures with one to three shapes each that hardly overlap, the same for the same seed."""
    chance = np.random.default_rng(seed)
    images = np.empty((count, 3, SIDE, SIDE), dtype=np.float32)
    boxes = np.zeros((count, MAX_SHAPES, 4), dtype=np.float32)
    classes = np.full((count, MAX_SHAPES), -1, dtype=np.int64)
    for i in range(count):
        images[i] = chance.uniform(0.1, 0.9, (3, 1, 1))
        placed: list[np.ndarray] = []
        for slot in range(chance.integers(1, MAX_SHAPES + 1)):
            box = _free_box(chance, placed)
            if box is None:
                continue
            placed.append(box)
            kind = int(chance.integers(len(CLASSES)))
            ground = images[i][:, 0, 0].mean()
            colour = chance.uniform(0, 1, 3)
            colour += (0.5 if ground < 0.5 else -0.5) - (colour.mean() - 0.5)  # it stands out
            images[i][:, _mask(kind, box)] = np.clip(colour, 0, 1)[:, None]
            boxes[i, slot] = box / SIDE
            classes[i, slot] = kind
        images[i] += chance.normal(0, NOISE, images[i].shape)
    return Pictures(torch.from_numpy(images), torch.from_numpy(boxes), torch.from_numpy(classes))


def _free_box(chance: np.random.Generator, placed: list[np.ndarray]) -> np.ndarray | None:
    """Return left, top, right, bottom in pixels, apart from what is there; None if there is no room."""
    for _ in range(_TRIES):
        size = chance.integers(SMALLEST, LARGEST + 1)
        left, top = chance.integers(0, SIDE - size + 1, 2)
        box = np.array([left, top, left + size, top + size], dtype=np.float32)
        if all(_overlap(box, other) < 0.05 for other in placed):
            return box
    return None


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    return shared / float((a[2] - a[0]) * (a[3] - a[1]))


def _mask(kind: int, box: np.ndarray) -> np.ndarray:
    """Return which pixels a shape covers; its outline touches all four sides of its box."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    left, top, right, bottom = box
    inside: np.ndarray = (x > left) & (x < right) & (y > top) & (y < bottom)
    if CLASSES[kind] == "circle":
        radius = (right - left) / 2
        inside &= (x - left - radius) ** 2 + (y - top - radius) ** 2 < radius**2
    elif CLASSES[kind] == "triangle":
        inside &= np.abs(x - (left + right) / 2) < (y - top) / 2 + 0.5
    return inside
