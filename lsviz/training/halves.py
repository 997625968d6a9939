"""Which FP32 gradients went through a half format: those whose values all are that format's."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lsviz.training.counting import stored

_NAMES: Final = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_HALF: Final = (torch.float16, torch.bfloat16)
_TRIES: Final = 20
"""A gradient that is zero or not finite tells nothing; one that is so for long is looked at no more."""


def dtype_name(tensor: Tensor) -> str:
    """Return a dtype as ``float16``."""
    return _NAMES.get(tensor.dtype) or str(tensor.dtype).removeprefix("torch.")


def is_half(name: str) -> bool:
    """Return whether a dtype's name is that of a half format."""
    return name in ("float16", "bfloat16")


class HalfSeen:
    """Looks at each gradient until it tells, and remembers.

    Under autocast, a product's gradient leaves it as half and may be widened to FP32 before anyone sees it:
    a layer norm's output has FP32 gradients that can be no larger than FP16's largest value. A sum of two,
    or what FP32 computed, has digits that half does not hold.

    Attributes:
        format: The half format that autocast was seen to use in the pass under way; None: none yet.
    """

    def __init__(self) -> None:
        self.format: torch.dtype | None = None
        self._known: dict[str, bool] = {}
        self._tries: dict[str, int] = {}

    def begin(self) -> None:
        """Forget the format: another pass begins, perhaps in FP32."""
        self.format = None

    def seen(self, name: str, gradient: Tensor) -> bool:
        """Return whether a gradient is, or was, of a half format.

        Args:
            name: The tensor's.
            gradient: As backward has it.
        """
        if gradient.dtype in _HALF:
            return True
        if self.format is None or gradient.dtype != torch.float32:
            return False
        if name not in self._known and self._tries.get(name, 0) < _TRIES:
            self._tries[name] = self._tries.get(name, 0) + 1
            values, _ = stored(gradient.detach())
            if bool(torch.isfinite(values).all()) and bool(values.any()):
                self._known[name] = bool((values.to(self.format).float() == values).all())
        return self._known.get(name, False)
