"""Boxes of a detector: anchors, matching, offsets, suppression and average precision.

As in SSD (Liu et al., SSD: Single Shot MultiBox Detector, 2016): anchors on each feature map, matched
where they overlap an object by half or are its best, offsets with variances 0.1 and 0.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MATCHED: Final = 0.5
"""From this intersection over union on, an anchor stands for an object, and a detection is right."""
SUPPRESSED: Final = 0.45
"""A detection that overlaps a surer one of its class by more than this is left out."""
_VARIANCES: Final = (0.1, 0.2)


def square_anchors(cells: int, sizes: Sequence[float]) -> Tensor:
    """Return (cells^2 x sizes, 4) boxes, centred on each cell of a square map, sizes in parts of the image.

    Row by row, and in each cell by size.
    """
    centres = (torch.arange(cells) + 0.5) / cells
    y, x, size = torch.meshgrid(centres, centres, torch.tensor(sizes), indexing="ij")
    return torch.stack([x - size / 2, y - size / 2, x + size / 2, y + size / 2], dim=-1).reshape(-1, 4)


def intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    """Return the overlaps of (n, 4) and (m, 4) boxes as (n, m)."""
    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(-1)
    areas = [(c[:, 2:] - c[:, :2]).prod(-1) for c in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-9)


def matched_anchors(anchors: Tensor, boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return each anchor's class (0: background, else class + 1) and its offsets to its object's box.

    Args:
        anchors: (n, 4).
        boxes: (m, 4), one an object.
        classes: (m,), from 0.
    """
    target = torch.zeros(len(anchors), dtype=torch.int64)
    offsets = torch.zeros(len(anchors), 4)
    if not len(boxes):
        return target, offsets
    overlap = intersection_over_union(anchors, boxes)
    best, chosen = overlap.max(dim=1)
    favourites = overlap.argmax(dim=0)  # no object goes without an anchor
    chosen[favourites] = torch.arange(len(boxes))
    best[favourites] = 1.0
    matched = best >= MATCHED
    target[matched] = classes[chosen[matched]] + 1
    offsets[matched] = encoded(anchors[matched], boxes[chosen[matched]])
    return target, offsets


def encoded(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Return the offsets that lead from anchors to boxes, both (n, 4)."""
    centre, size = _centre_and_size(anchors)
    box_centre, box_size = _centre_and_size(boxes)
    moves = (box_centre - centre) / size / _VARIANCES[0]
    return torch.cat([moves, (box_size / size).log() / _VARIANCES[1]], dim=-1)


def decoded(anchors: Tensor, offsets: Tensor) -> Tensor:
    """Return the boxes that offsets lead to; anchors (n, 4), offsets (..., n, 4)."""
    centre, size = _centre_and_size(anchors)
    centre = centre + offsets[..., :2] * _VARIANCES[0] * size
    size = size * (offsets[..., 2:] * _VARIANCES[1]).clamp(max=4).exp()
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def kept_detections(boxes: Tensor, scores: Tensor, most: int = 20) -> Tensor:
    """Return the indices of the boxes that non-maximum suppression keeps, surest first."""
    order = scores.argsort(descending=True)[: 10 * most]
    overlap = intersection_over_union(boxes[order], boxes[order]) > SUPPRESSED
    kept: list[int] = []
    for place in range(len(order)):
        if len(kept) < most and not overlap[place, kept].any():
            kept.append(place)
    return order[kept]


def average_precision(right: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], objects: int) -> float:
    """Return the area under the precision-recall curve, precision made to fall (PASCAL VOC from 2010 on).

    Args:
        right: Whether each detection found an object that no surer one had found.
        scores: How sure each was.
        objects: How many there were to find.
    """
    if not objects:
        return float("nan")
    ordered = right[np.argsort(-scores, kind="stable")]
    found = np.cumsum(ordered)
    precision = found / np.arange(1, len(ordered) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * ordered).sum() / objects)
