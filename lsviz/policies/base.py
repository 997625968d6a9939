"""The protocol of a loss-scaling policy: an immutable value with a pure step.

``policy.update(outcome) -> policy``. A policy never sees a tensor: the training loop, the trace
command and replay all drive it with the same `Outcome`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict

from lsviz.errors import UserError

MIN_SCALE = 2.0**-126
MAX_SCALE = 2.0**126
"""Beyond these, S or 1/S is no normal FP32 number and a loss or a gradient is lost to the scale itself."""


def _scale_range(value: float) -> float:
    if not MIN_SCALE <= value <= MAX_SCALE:  # nan too
        raise ValueError("should be a number from 2^-126 to 2^126")
    return value


Scale = Annotated[float, AfterValidator(_scale_range)]
"""A loss scale: a positive number with 2^-126 <= S <= 2^126."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step tells the policy.

    Attributes:
        finite: Whether every scaled gradient was finite.
        amax: Largest magnitude among the unscaled gradients, inf or nan where there was one; None
            where nobody measured it.
    """

    finite: bool
    amax: float | None = None


class PolicyError(UserError):
    """A policy's name, key or value is not one we know; the message says what would be right."""


class Policy(BaseModel):
    """Base of every policy: settings and state in one frozen, validated value.

    Subclasses set ``name``, ``rule`` (one sentence) and ``source``, list in ``state_fields`` what
    `update` changes, and implement `loss_scale` and `update`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    name: ClassVar[str] = ""
    rule: ClassVar[str] = ""
    source: ClassVar[str] = ""
    short_key: ClassVar[str | None] = None
    """The key that may be left out in the string form (``constant:1024``)."""
    state_fields: ClassVar[tuple[str, ...]] = ()

    @property
    def loss_scale(self) -> float:
        """S, the factor in force for the next step."""
        raise NotImplementedError

    def update(self, outcome: Outcome) -> Self:
        """Return the policy after a step with that outcome."""
        raise NotImplementedError

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Return the keys that a user may set, in their order."""
        return tuple(k for k in cls.model_fields if k not in cls.state_fields)

    def to_dict(self) -> dict[str, Any]:
        """Return every field, state included, and the name, as plain JSON values."""
        return {"name": self.name, **self.model_dump()}
