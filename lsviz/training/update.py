"""From scaled gradients to a weight update: the rule ``unscale`` with ``skip`` on overflow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lsviz.errors import UserError
from lsviz.policies.base import fp32


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What became of one step's gradients.

    Attributes:
        finite: Whether all scaled gradients were finite.
        skipped: Whether the update was left out.
        grad_norm: L2 norm of all unscaled gradients; inf or nan where they are.
    """

    finite: bool
    skipped: bool
    grad_norm: float


class ScaleVanishedError(UserError):
    """S is 0 or so small that 1/S is no finite FP32 number: no gradient can be unscaled."""


def unscaled_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss_scale: float) -> UpdateResult:
    """Multiply every ``.grad`` by 1/S in FP32 and step the optimizer, unless one is Inf or NaN.

    The check and the product are torch's own (``_amp_foreach_non_finite_check_and_unscale_``, as
    ``torch.amp.GradScaler.unscale_`` calls it in torch 2.13): it looks at the scaled values.

    Args:
        model: Its parameters hold scaled FP32 gradients, which are unscaled in place.
        optimizer: Steps on the same parameters.
        loss_scale: S.

    Raises:
        ScaleVanishedError: 1/S is not finite.
    """
    inverse = fp32(1.0 / loss_scale) if loss_scale else float("inf")
    if inverse == float("inf"):
        raise ScaleVanishedError(
            f"the loss scale fell to {loss_scale:g}, which can't be undone (1/S is infinite): gradients "
            "were Inf or NaN at every scale, so the cause lies in the model, the data or the learning rate"
        )
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    found = _unscale(gradients, inverse)
    norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
    if found:
        return UpdateResult(finite=False, skipped=True, grad_norm=norm)
    optimizer.step()
    return UpdateResult(finite=True, skipped=False, grad_norm=norm)


def _unscale(gradients: list[Tensor], inverse: float) -> bool:
    if not gradients:
        return False
    device = gradients[0].device
    found = torch.zeros(1, device=device)
    factor = torch.full((1,), inverse, device=device)
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, factor)
    return bool(found.item())
