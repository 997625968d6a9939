"""From scaled gradients to new weights: unscaling, clipping, L2, the optimizer's step, FP16 weights.

What each rule is for and breaks stands in `lsviz.runs.updates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lsviz.errors import UserError
from lsviz.policies import Policy, inverse_scale
from lsviz.policies.base import fp32
from lsviz.runs.updates import Order, Update


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """How the update undoes S.

    Attributes:
        update: ``unscale``, ``fold-lr`` or ``none``.
        clip: Largest gradient norm; None: no clipping.
        clip_order: ``after`` unscaling, ``before`` it, or before it at threshold x S (``scaled``).
        l2: Coupled L2 penalty; this times the weight joins its gradient.
        l2_order: ``after`` unscaling and clipping, or before both, as it is (``before``) or times S
            (``scaled``).
        weights: None for FP32 weights; else the format that they are rounded to after every update.
    """

    update: Update = "unscale"
    clip: float | None = None
    clip_order: Order = "after"
    l2: float = 0.0
    l2_order: Order = "after"
    weights: torch.dtype | None = None


@dataclass(frozen=True, slots=True)
class Clipping:
    """What clipping did to one step's gradients.

    Attributes:
        norm: L2 norm of all gradients as it saw them, scaled or not.
        threshold: What it held that against.
        factor: What it multiplied them by, at most 1.
    """

    norm: float
    threshold: float
    factor: float


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What became of one step's gradients.

    Attributes:
        finite: Whether all scaled gradients were finite.
        skipped: Whether the update was left out.
        grad_norm: L2 norm of all unscaled gradients, before clipping; inf or nan where they are.
        amax: Largest unscaled magnitude, inf where a gradient held Inf or NaN; None where the policy
            does not ask.
        large_share: Share of scaled values at or above the policy's ``large_value``, Inf and NaN
            included; None where it does not ask.
        clipping: What clipping did; None where it is off or the update was left out.
    """

    finite: bool
    skipped: bool
    grad_norm: float
    amax: float | None = None
    large_share: float | None = None
    clipping: Clipping | None = None


class ScaleVanishedError(UserError):
    """S is 0 or so small that 1/S is no finite FP32 number: no gradient can be unscaled."""


class WeightUpdate:
    """Applies an `UpdateRule` to a model's gradients after every backward pass.

    Args:
        model: Its parameters are FP32, and so are their gradients, whose values went through FP16.
        optimizers: One, or several that share the model's parameters between them. A gradient with Inf or
            NaN anywhere holds all of them back, where ``torch.amp.GradScaler`` skips each on its own.
        rule: How the update undoes S. FP16 weights are rounded at once.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        rule: UpdateRule | None = None,
    ) -> None:
        self._model = model
        self._optimizers = [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else [*optimizers]
        self._rule = rule or UpdateRule()
        self._round_weights()

    def apply(self, loss_scale: float, policy: Policy | None = None) -> UpdateResult:
        """Update the weights from scaled gradients, unless one is Inf or NaN.

        Where nothing happens before it, check and product are torch's own
        (``_amp_foreach_non_finite_check_and_unscale_``, as ``torch.amp.GradScaler.unscale_`` calls it
        in torch 2.13): it looks at the scaled values. ``.grad`` is left as the optimizer took it.

        Args:
            loss_scale: S.
            policy: Asked for what it needs to know of the gradients.

        Raises:
            ScaleVanishedError: 1/S is not finite.
            UserError: l2 x S is past FP32.
        """
        inverse = inverse_scale(loss_scale)
        if math.isinf(inverse):
            raise ScaleVanishedError(
                f"the loss scale fell to {loss_scale:g}, which can't be undone (1/S is infinite; "
                "torch.amp.GradScaler would now write Inf or NaN into the weights): gradients were Inf or "
                "NaN at every scale, so the cause lies in the model, the data or the learning rate"
            )
        rule = self._rule
        parameters: list[Tensor] = [p for p in self._model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        amax = largest(gradients) / loss_scale if policy and policy.needs_amax else None
        share = None
        if policy and policy.large_value is not None:
            share = share_at_or_above(gradients, policy.large_value)

        as_usual = (rule.l2_order == "after" or not rule.l2) and (rule.clip_order == "after" or not rule.clip)
        if rule.update == "unscale" and as_usual:
            finite, norm = self._unscale(gradients, inverse), total_norm(gradients)
        else:
            finite, norm = self._unscale(gradients, 1.0), unscaled_norm(gradients, inverse)
        if not finite:
            return UpdateResult(False, True, norm, amax, share)

        clipping = None
        with torch.no_grad():
            if not as_usual:
                clipping = self._before_unscaling(parameters, gradients, loss_scale)
                if rule.l2_order == "scaled" and not self._unscale(gradients, 1.0):
                    return UpdateResult(False, True, norm, amax, share)  # L2 x S x weight left FP32
                if rule.update == "unscale" and gradients:
                    torch._foreach_mul_(gradients, inverse)
            if rule.clip is not None and rule.clip_order == "after":
                clipping = _clip(parameters, rule.clip)
            if rule.l2 and rule.l2_order == "after" and gradients:
                torch._foreach_add_(gradients, parameters, alpha=rule.l2)
        with self._learning_rates_times(inverse if rule.update == "fold-lr" else 1.0):
            for optimizer in self._optimizers:
                optimizer.step()
        self._round_weights()
        return UpdateResult(True, False, norm, amax, share, clipping)

    @property
    def lr(self) -> float:
        """The first optimizer's learning rate, before any folding."""
        return float(self._optimizers[0].param_groups[0]["lr"])

    def _before_unscaling(
        self, parameters: list[Tensor], gradients: list[Tensor], loss_scale: float
    ) -> Clipping | None:
        rule = self._rule
        if not gradients:
            return None
        if rule.l2 and rule.l2_order != "after":
            factor = rule.l2 * (loss_scale if rule.l2_order == "scaled" else 1.0)
            if math.isinf(fp32(factor)):
                raise UserError(
                    f"l2 x S = {factor:g} is no FP32 number: choose a smaller l2 or S, or l2_order=after"
                )
            torch._foreach_add_(gradients, parameters, alpha=factor)
        if rule.clip is not None and rule.clip_order != "after":
            # The norm by way of the unscaled one: squares of scaled values would leave FP32 first.
            norm = unscaled_norm(gradients, inverse_scale(loss_scale)) * loss_scale
            threshold = rule.clip * (loss_scale if rule.clip_order == "scaled" else 1.0)
            factor = min(1.0, threshold / (norm + 1e-6))
            torch._foreach_mul_(gradients, factor)
            return Clipping(norm, threshold, factor)
        return None

    @staticmethod
    def _unscale(gradients: list[Tensor], inverse: float) -> bool:
        """Multiply in place and return whether all were finite before."""
        if not gradients:
            return True
        device = gradients[0].device
        found = torch.zeros(1, device=device)
        factor = torch.full((1,), inverse, device=device)
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, factor)
        return not found.item()

    @contextmanager
    def _learning_rates_times(self, factor: float) -> Iterator[None]:
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        before = [group["lr"] for group in groups]
        for group, lr in zip(groups, before, strict=True):
            group["lr"] = lr * factor
        try:
            yield
        finally:
            for group, lr in zip(groups, before, strict=True):
                group["lr"] = lr

    @torch.no_grad()
    def _round_weights(self) -> None:
        if self._rule.weights is None:
            return
        for parameter in self._model.parameters():
            parameter.copy_(parameter.to(self._rule.weights))


def _clip(parameters: list[Tensor], threshold: float) -> Clipping:
    norm = nn.utils.clip_grad_norm_(parameters, threshold)
    return Clipping(float(norm), threshold, float(torch.clamp(threshold / (norm + 1e-6), max=1.0)))


def total_norm(gradients: Sequence[Tensor]) -> float:
    """Return the L2 norm of all values together; 0 without gradients."""
    return float(nn.utils.get_total_norm(list(gradients))) if gradients else 0.0


def unscaled_norm(gradients: Sequence[Tensor], inverse: float) -> float:
    """Return the L2 norm of all values times 1/S; 0 without gradients."""
    return total_norm(torch._foreach_mul(list(gradients), inverse)) if gradients else 0.0


def largest(gradients: Sequence[Tensor]) -> float:
    """Return the largest magnitude of all values together; Inf where one is Inf or NaN."""
    filled = [g for g in gradients if g.numel()]
    if not filled:
        return 0.0
    value = float(torch.stack(torch._foreach_norm(filled, math.inf)).max())
    return value if math.isfinite(value) else math.inf


def share_at_or_above(gradients: Sequence[Tensor], limit: float) -> float:
    """Return the share of values whose magnitude is at or above a limit; Inf and NaN count."""
    values = sum(g.numel() for g in gradients)
    if not values:
        return 0.0
    return float(torch.stack([(~(g.abs() < limit)).sum() for g in gradients]).sum()) / values
