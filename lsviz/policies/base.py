"""The protocol of a loss-scaling policy: an immutable value with a pure step.

``policy.update(outcome) -> policy``. A policy never sees a tensor: the training loop, the trace
command and replay all drive it with the same `Outcome`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict

from lsviz.errors import UserError

_FP32 = struct.Struct("f")  # NumPy takes twenty times as long for one number
_POWER = re.compile(r"([0-9.]+)\^([+-]?[0-9]{1,4})")

MIN_SCALE = 2.0**-126
MAX_SCALE = 2.0**126
"""Beyond these, S or 1/S is no normal FP32 number and a loss or a gradient is lost to the scale itself."""


def _scale_range(value: float) -> float:
    if not MIN_SCALE <= value <= MAX_SCALE:  # nan too
        raise ValueError("should be a number from 2^-126 to 2^126")
    return value


@dataclass(frozen=True, slots=True)
class Range:
    """The range that a type's own validator holds, for forms to tell."""

    low: float
    high: float


Scale = Annotated[float, AfterValidator(_scale_range), Range(MIN_SCALE, MAX_SCALE)]
"""A loss scale: a positive number with 2^-126 <= S <= 2^126."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step tells the policy.

    What a policy does not ask for (`Policy.needs_amax`, `Policy.large_value`, `Policy.per_layer`) is
    None.

    Attributes:
        finite: Whether every scaled gradient was finite.
        amax: Largest magnitude among the unscaled gradients; inf (or nan) where they held Inf or NaN.
            A series that was given (`lsviz.policies.trace`) knows it even where S made it overflow.
        large_share: Share of the scaled gradient values, Inf and NaN included, whose magnitude is at
            or above `Policy.large_value`.
        layers: Layer -> whether it stayed finite (False: the overflow began there). A layer that is
            missing received what another layer had spoilt, so nothing is known of it.
    """

    finite: bool
    amax: float | None = None
    large_share: float | None = None
    layers: Mapping[str, bool] | None = None


class PolicyError(UserError):
    """A policy's name, key or value is not one we know; the message says what would be right."""


class PolicyStoppedError(UserError):
    """The policy ends the run at this step, as the library it follows would with an error."""


def fp32(value: float) -> float:
    """Round to FP32, the type in which most libraries keep their scale; too large gives Inf."""
    try:
        rounded: float = _FP32.unpack(_FP32.pack(value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return rounded


def parse_number(text: str) -> float | int:
    """Return the number that is written ``1024``, ``1e3``, ``2^10`` or ``inf``.

    Raises:
        ValueError: It is none.
    """
    text = text.strip()
    power = _POWER.fullmatch(text)
    try:
        if power:
            return float(power[1]) ** int(power[2])
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else float(text)
    except (OverflowError, ZeroDivisionError):
        raise ValueError(f"{text!r} is out of range") from None


def format_number(value: float) -> str:
    """Return a number as the string form has it: 1024, 0.5, 2^32; it reads back as the same float."""
    mantissa, exponent = math.frexp(value)
    if mantissa == 0.5 and not -10 <= exponent - 1 < 24:
        return f"2^{exponent - 1}"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


class Policy(BaseModel):
    """Base of every policy: settings and state in one frozen, validated value.

    Subclasses set ``name``, ``rule`` (one sentence) and ``source``, list in ``state_fields`` what
    `update` changes, and implement `loss_scale` and `update`. All but those that never change have a
    setting ``init_scale``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    name: ClassVar[str] = ""
    rule: ClassVar[str] = ""
    source: ClassVar[str] = ""
    short_key: ClassVar[str | None] = None
    """The key that may be left out in the string form (``constant:1024``)."""
    key_aliases: ClassVar[Mapping[str, str]] = {}
    """Other names of keys, as another library calls them."""
    state_fields: ClassVar[tuple[str, ...]] = ()
    needs_amax: ClassVar[bool] = False
    """Whether `update` asks for `Outcome.amax`."""
    per_layer: ClassVar[bool] = False
    """Whether each layer has a scale of its own (`lsviz.policies.layerwise`)."""

    @property
    def large_value(self) -> float | None:
        """The scaled magnitude from which `Outcome.large_share` counts; None where it isn't asked for."""
        return None

    @property
    def loss_scale(self) -> float:
        """S, the factor in force for the next step."""
        raise NotImplementedError

    def update(self, outcome: Outcome) -> Self:
        """Return the policy after a step with that outcome.

        Raises:
            PolicyStoppedError: The library would end the run here.
        """
        raise NotImplementedError

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Return the keys that a user may set, in their order."""
        return tuple(k for k in cls.model_fields if k not in cls.state_fields)

    def notes(self) -> list[str]:
        """Return what a person should know of these settings; usually nothing."""
        return []

    def counters(self) -> dict[str, Any]:
        """Return what the policy remembers besides S, for people to look at."""
        return {key: getattr(self, key) for key in self.state_fields if key != "scale"}

    def to_dict(self) -> dict[str, Any]:
        """Return every field, state included, and the name, as plain JSON values."""
        return {"name": self.name, **self.model_dump()}
