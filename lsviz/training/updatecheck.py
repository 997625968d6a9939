"""The weight update beside the one that is right: the same gradients, taken exactly, in float64.

The gradients are those of the real model, so that the float64 weights that go along do not part from it
by the chaos of training but by what its update does alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from lsviz.runs.updatecheck import LOWEST_RATIO, RATIO_BINS, UpdateRow
from lsviz.training.catalog import TaskSpec
from lsviz.training.optimizers import build_optimizer
from lsviz.training.update import UpdateResult, UpdateRule

EPSILON: Final = 1e-6
"""What torch's clipping adds to the norm: part of the rule, so it stands in the ideal one too."""


@dataclass(frozen=True, slots=True)
class Before:
    """A step just before its update.

    Attributes:
        loss_scale: S that the gradients still hold.
        weights: All weights in one, float64, shape (numel,).
        gradients: A parameter's scaled gradient each, float64; None where it has none.
    """

    loss_scale: float
    weights: Tensor
    gradients: list[Tensor | None]


class UpdateCheck:
    """Goes along with a model's updates in float64, and tells how far they part. It changes nothing.

    Where L2 joins before clipping in the run's rule it does so in the ideal one: which of the two comes
    first is a choice that S has no part in.

    Args:
        model: Whose updates are watched; its weights as they are now are where both begin.
        spec: Its task: which parts have an optimizer each, and which.
        rule: What the model's update does.
        optimizer: As in `build_optimizer`.
        lr: As in `build_optimizer`.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: TaskSpec,
        rule: UpdateRule,
        optimizer: str = "task",
        lr: float | None = None,
    ) -> None:
        self._rule = rule
        self._parameters = list(model.parameters())
        ideal = {p: nn.Parameter(p.detach().to(torch.float64, copy=True)) for p in self._parameters}
        self._ideal = list(ideal.values())
        self._optimizers = [
            build_optimizer([ideal[p] for p in model.get_submodule(part).parameters()], spec, optimizer, lr)
            for part in spec.parts
        ]
        self._first = _flat(self._ideal)

    def look(self, loss_scale: float) -> Before:
        """Take the weights and the gradients as backward left them.

        Args:
            loss_scale: S that they hold.
        """
        gradients = [
            None if p.grad is None else p.grad.detach().to(torch.float64, copy=True) for p in self._parameters
        ]
        return Before(loss_scale, _flat(self._parameters), gradients)

    @torch.no_grad()
    def compare(self, step: int, before: Before, done: UpdateResult) -> UpdateRow | None:
        """Apply the ideal update and tell how the model's own differs; None where it was skipped.

        Args:
            step: Its number.
            before: What `look` found.
            done: What the model's update came to.
        """
        if done.skipped:
            return None
        ideal_before = _flat(self._ideal)
        seen = done.clipping.norm if done.clipping else self._norm_in_its_place(before)
        norm = self._take(before)
        after, ideal = _flat(self._parameters), _flat(self._ideal)
        change = ideal - ideal_before
        distance = _norm(ideal - self._first)
        moves = change != 0
        changed = after != before.weights
        counted = moves & (before.weights != 0)
        exponents = _exponents(change / before.weights)
        return UpdateRow(
            step=step,
            loss_scale=before.loss_scale,
            weight_error=_norm(after - ideal) / distance if distance else math.nan,
            distance=distance,
            norm=norm,
            norm_seen=seen,
            clip_threshold=done.clipping.threshold if done.clipping else None,
            clip_factor=done.clipping.factor if done.clipping else 1.0,
            step_size=_norm(after - before.weights),
            ideal_step_size=_norm(change),
            stalled=float((moves & ~changed).sum() / moves.sum()),
            numel=len(after),
            zero_weights=int((before.weights == 0).sum()),
            zero_updates=int((~moves & (before.weights != 0)).sum()),
            counts=_counts(exponents[counted]),
            moved=_counts(exponents[counted & changed]),
        )

    def _take(self, before: Before) -> float:
        """Apply the right rule to the ideal weights; return the norm that it clips by."""
        rule, held = self._rule, []
        for weight, scaled in zip(self._ideal, before.gradients, strict=True):
            weight.grad = None if scaled is None else scaled / before.loss_scale
            held += [] if weight.grad is None else [weight]
        if rule.l2 and rule.l2_order != "after":
            self._add_penalty(held)
        gradients = [weight.grad for weight in held if weight.grad is not None]
        norm = _norm_of(gradients)
        if rule.clip is not None:
            for gradient in gradients:
                gradient *= min(1.0, rule.clip / (norm + EPSILON))
        if rule.l2 and rule.l2_order == "after":
            self._add_penalty(held)
        for optimizer in self._optimizers:
            optimizer.step()
        return norm

    def _add_penalty(self, weights: list[nn.Parameter]) -> None:
        for weight in weights:
            assert weight.grad is not None
            weight.grad += self._rule.l2 * weight

    def _norm_in_its_place(self, before: Before) -> float:
        """Return the norm that the model's update would clip by if it did."""
        rule, scale = self._rule, before.loss_scale
        penalty = rule.l2 * {"after": 0.0, "before": 1.0, "scaled": scale}[rule.l2_order]
        places = torch.split(before.weights, [p.numel() for p in self._parameters])
        gradients = [
            gradient.flatten() + penalty * weight
            for gradient, weight in zip(before.gradients, places, strict=True)
            if gradient is not None
        ]
        unscaled = rule.update == "unscale" and rule.clip_order == "after"
        return _norm_of(gradients) / (scale if unscaled else 1.0)


def _exponents(ratios: Tensor) -> Tensor:
    """Return floor(log2 |x|) of each; meaningless of what is zero or not finite."""
    return torch.frexp(ratios).exponent.long() - 1


def _counts(exponents: Tensor) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    bins = (exponents - LOWEST_RATIO).clamp(0, RATIO_BINS - 1)
    return torch.bincount(bins, minlength=RATIO_BINS).cpu().numpy().astype(np.uint32)


def _flat(parameters: list[nn.Parameter]) -> Tensor:
    """Return all values in one, float64, apart from the parameters' own memory."""
    if not parameters:
        return torch.zeros(0, dtype=torch.float64)
    return torch.cat([p.detach().double().flatten() for p in parameters])


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values))


def _norm_of(tensors: list[Tensor]) -> float:
    return math.hypot(*(_norm(tensor) for tensor in tensors))
