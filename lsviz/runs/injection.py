"""Faults that a run is asked to suffer, for teaching: which step, which layer, which kind. No torch here.

The string form is ``step:layer:kind``, several separated by commas: ``20:layer3:inf,40:layer1:huge``.
`lsviz.training.injection` applies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, cast, get_args

from lsviz.errors import UserError

FaultKind = Literal["inf", "nan", "huge"]

HUGE: Final = 2.0**16
"""What a huge batch multiplies gradients by: past FP16 at a large S, inside it at a small one."""

FAULT_KINDS: Final[dict[str, str]] = {
    "inf": "One value of the gradient becomes Inf: no S cures that.",
    "nan": "One value of the gradient becomes NaN: no S cures that.",
    "huge": "All values are multiplied by 2^16, as a huge batch has them: a smaller S cures an overflow.",
}

MAX_INJECTIONS: Final = 100
MAX_LAYER: Final = 200
"""Longest name of a layer, in characters."""


class InjectionError(UserError):
    """A fault was asked for that can't be; the message says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault.

    Attributes:
        step: At which step, from 0.
        layer: The module at whose output the gradient is changed, as in ``named_modules()``.
        kind: ``inf``, ``nan`` or ``huge`` (`FAULT_KINDS`).
    """

    step: int
    layer: str
    kind: FaultKind

    def __str__(self) -> str:
        return f"{self.step}:{self.layer}:{self.kind}"


def parse_injections(text: str) -> tuple[Injection, ...]:
    """Return the faults of a text in order of steps, none of an empty one.

    Raises:
        InjectionError: One is not of the form, or a layer has two at one step.
    """
    text = text.replace("\u2060", "")  # copied from a page, where it keeps :layer: from being an emoji
    parts = text.split(",") if text.strip() else []
    if len(parts) > MAX_INJECTIONS:
        raise InjectionError(f"inject: give up to {MAX_INJECTIONS} faults, got {len(parts):,}")
    found = sorted(map(_parse_one, parts), key=lambda fault: (fault.step, fault.layer))
    for before, after in pairwise(found):
        if (before.step, before.layer) == (after.step, after.layer):
            raise InjectionError(
                f"inject: layer {after.layer!r} has two faults at step {after.step}; give it one"
            )
    return tuple(found)


def format_injections(injections: Sequence[Injection]) -> str:
    """Return the text that `parse_injections` reads."""
    return ",".join(map(str, injections))


def _parse_one(text: str) -> Injection:
    parts = [part.strip() for part in text.split(":")]
    if len(parts) != 3:
        raise InjectionError(
            f"inject: {text.strip()[:80]!r} is no step:layer:kind; give one as 20:layer3:inf"
        )
    step, layer, kind = parts
    if not (step.isascii() and step.isdecimal() and len(step) <= 9):
        raise InjectionError(f"inject: step {step[:80]!r} should be a whole number, as in 20:layer3:inf")
    if not (layer and len(layer) <= MAX_LAYER and layer.isprintable()):
        raise InjectionError(f"inject: {layer[:80]!r} is no name of a layer, as in 20:layer3:inf")
    if kind not in FAULT_KINDS:
        *most, last = get_args(FaultKind)
        known = f"{', '.join(most)} or {last}"
        raise InjectionError(f"inject: unknown kind {kind[:80]!r}; choose one of: {known}")
    return Injection(int(step), layer, cast(FaultKind, kind))
