"""The loss scale that anyone's loop has in force, read without waiting for a GPU."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lsviz.errors import UserError
from lsviz.policies import PolicyError, format_number, format_policy, parse_policy


class ScalerError(UserError):
    """Something was given as scaler that tells no loss scale."""


class ScaleReader:
    """Reads S from what a loop scales its loss with.

    Args:
        scaler: ``torch.amp.GradScaler`` or anything with its ``get_scale()``; a number; a function that
            returns S; None for S = 1.

    Raises:
        ScalerError: It is nothing of these.
    """

    def __init__(self, scaler: Any) -> None:
        is_number = isinstance(scaler, (int, float)) and not isinstance(scaler, bool)
        if is_number and not (math.isfinite(scaler) and scaler > 0):
            raise ScalerError(f"scaler: S must be a positive number, got {scaler!r}")
        if not (scaler is None or is_number or callable(scaler) or hasattr(scaler, "get_scale")):
            raise ScalerError(
                f"scaler: {type(scaler).__name__} tells no loss scale; give a torch.amp.GradScaler, "
                "a number, or a function that returns S"
            )
        self._scaler = scaler
        self._fixed = float(scaler) if is_number else 1.0 if scaler is None else None

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled at all."""
        if self._fixed is not None:
            return self._fixed != 1.0
        enabled = getattr(self._scaler, "is_enabled", None)
        return bool(enabled()) if callable(enabled) else True

    @property
    def skips(self) -> bool:
        """Whether steps with Inf or NaN are left out by whatever scales the loss."""
        return self._fixed is None and self.scales

    def now(self) -> float | Tensor:
        """Return S as it is in force; on a GPU as a tensor of its own."""
        if self._fixed is not None:
            return self._fixed
        if not self.scales:
            return 1.0
        inside = getattr(self._scaler, "_get_scale_async", None)
        scale = inside() if callable(inside) else None
        if isinstance(scale, Tensor) and scale.device.type != "cpu":
            return scale.detach().clone()  # it changes in place
        if hasattr(self._scaler, "get_scale"):
            return float(self._scaler.get_scale())
        return float(self._scaler())

    def policy(self) -> str:
        """Return the policy in its string form.

        What is neither a number nor has GradScaler's settings is told as gradscaler, the name of a
        scale that changes; the recorded S says what it did.
        """
        if self._fixed is not None:
            return (
                "none" if self._fixed == 1.0 else _policy_or("none", f"constant:{format_number(self._fixed)}")
            )
        if not self.scales:
            return "none"
        settings = {
            key: getattr(self._scaler, f"get_{key}", None)
            for key in ("growth_factor", "backoff_factor", "growth_interval")
        }
        if not all(callable(get) for get in settings.values()):
            return "gradscaler"
        text = ",".join(f"{key}={format_number(float(get()))}" for key, get in settings.items() if get)
        return _policy_or("gradscaler", f"gradscaler:init_scale={format_number(float(self.now()))},{text}")


def _policy_or(fallback: str, text: str) -> str:
    try:
        return format_policy(parse_policy(text))
    except PolicyError:  # settings past what lsviz itself would train with
        return fallback
