"""shapes-ssd: a small multibox detector of drawn shapes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.tasks.base import Batch
from lsviz.training.tasks.boxes import (
    MATCHED,
    average_precision,
    decoded,
    intersection_over_union,
    kept_detections,
    matched_anchors,
    square_anchors,
)
from lsviz.training.tasks.shapes import CLASSES, SIDE, Pictures, draw_pictures

DRAWN, HELD_OUT = 1024, 128
NEGATIVES: Final = 3
"""Background anchors that count for each matched one: those that the network is worst at."""
SIZES: Final = ((10 / SIDE, 14 / SIDE), (18 / SIDE, 24 / SIDE))
"""Anchors' sides on the fine map (12 x 12) and on the coarse one (6 x 6)."""
PER_CELL: Final = 2
SUREST: Final = 0.05
"""Scores below this are no detections."""


class MultiboxNet(nn.Module):
    """Five convolutions; boxes and classes from maps of 12 x 12 and 6 x 6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.conv4 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.conv5 = nn.Conv2d(64, 64, 3, padding=1)
        self.boxes_fine = nn.Conv2d(32, 4 * PER_CELL, 3, padding=1)
        self.classes_fine = nn.Conv2d(32, (len(CLASSES) + 1) * PER_CELL, 3, padding=1)
        self.boxes_coarse = nn.Conv2d(64, 4 * PER_CELL, 3, padding=1)
        self.classes_coarse = nn.Conv2d(64, (len(CLASSES) + 1) * PER_CELL, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (batch, 3, SIDE, SIDE) to offsets (batch, anchors, 4) and logits (batch, anchors, 4)."""
        fine = torch.relu(self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(images))))))
        coarse = torch.relu(self.conv5(torch.relu(self.conv4(fine))))
        offsets = [_by_anchor(self.boxes_fine(fine), 4), _by_anchor(self.boxes_coarse(coarse), 4)]
        kinds = len(CLASSES) + 1
        logits = [
            _by_anchor(self.classes_fine(fine), kinds),
            _by_anchor(self.classes_coarse(coarse), kinds),
        ]
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


def _by_anchor(maps: Tensor, numbers: int) -> Tensor:
    """Turn (batch, PER_CELL x numbers, h, w) into (batch, h x w x PER_CELL, numbers)."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, numbers)


class ShapesSSDTask:
    """1,024 drawn pictures to learn from, 128 others to be measured on: mean average precision at 0.5."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.anchors = torch.cat([square_anchors(12, SIZES[0]), square_anchors(6, SIZES[1])])

    @cached_property
    def _drawn(self) -> tuple[Tensor, Tensor, Tensor]:
        pictures = draw_pictures(DRAWN, seed=1)
        targets, offsets = [], []
        for boxes, classes in zip(pictures.boxes, pictures.classes, strict=True):
            there = classes >= 0
            target, offset = matched_anchors(self.anchors, boxes[there], classes[there])
            targets.append(target)
            offsets.append(offset)
        return pictures.images, torch.stack(targets), torch.stack(offsets)

    @cached_property
    def _held_out(self) -> Pictures:
        return draw_pictures(HELD_OUT, seed=2)

    def build_model(self) -> nn.Module:
        """Return a fresh `MultiboxNet`."""
        return MultiboxNet()

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield (images, each anchor's class, each anchor's offsets), drawn with replacement."""
        images, targets, offsets = self._drawn
        generator = torch.Generator().manual_seed(seed)
        while True:
            chosen = torch.randint(len(images), (self.spec.batch_size,), generator=generator)
            yield images[chosen], targets[chosen], offsets[chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return SSD's loss: of classes, with hard negatives, plus of offsets, over matched anchors."""
        images, targets, wanted = batch
        offsets, logits = model(images)
        matched = targets > 0
        count = matched.sum().clamp(min=1)
        moved = nn.functional.smooth_l1_loss(offsets.float()[matched], wanted[matched], reduction="sum")
        named = nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        counted = matched | _hardest(named.detach().masked_fill(matched, -1.0), NEGATIVES * matched.sum(1))
        return (moved + named[counted].sum()) / count

    @torch.no_grad()
    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        """Return the mean average precision at an overlap of 0.5 on the held-out pictures."""
        pictures = self._held_out
        offsets, logits = model(pictures.images.to(device))
        if not (torch.isfinite(offsets).all() and torch.isfinite(logits).all()):
            return 0.0
        boxes = decoded(self.anchors, offsets.float().cpu())
        scores = logits.float().cpu().softmax(-1)
        return float(
            np.mean([self._precision_of(kind, boxes, scores, pictures) for kind in range(len(CLASSES))])
        )

    def _precision_of(self, kind: int, boxes: Tensor, scores: Tensor, pictures: Pictures) -> float:
        right: list[bool] = []
        sure: list[float] = []
        for i in range(len(boxes)):
            there = pictures.boxes[i][pictures.classes[i] == kind]
            likely = (scores[i, :, kind + 1] > SUREST).nonzero()[:, 0]
            score = scores[i, likely, kind + 1]
            kept = kept_detections(boxes[i, likely], score)
            right += _found(boxes[i, likely][kept], there)
            sure += score[kept].tolist()
        objects = int((pictures.classes == kind).sum())
        return average_precision(np.array(right, dtype=bool), np.array(sure), objects)


def _hardest(losses: Tensor, counts: Tensor) -> Tensor:
    """Mark each row's ``counts`` largest losses."""
    ranks = losses.argsort(dim=1, descending=True).argsort(dim=1)
    return ranks < counts[:, None]


def _found(detections: Tensor, objects: Tensor) -> list[bool]:
    """Return whether each detection, surest first, finds an object that none before it found."""
    free = [True] * len(objects)
    right = []
    overlaps = intersection_over_union(detections, objects)
    for overlap in overlaps:
        best = int(overlap.argmax()) if len(objects) else -1
        hit = best >= 0 and float(overlap[best]) >= MATCHED and free[best]
        if hit:
            free[best] = False
        right.append(hit)
    return right


def build_task(spec: TaskSpec) -> ShapesSSDTask:
    """Return the task."""
    return ShapesSSDTask(spec)
