"""How a row of the table in `lsviz.policies.libraries` becomes a policy.

A row's ``settings`` are the keys that the library lets one choose, with the library's defaults (its
names for them differ); ``fixed`` is what it has written into its code. Together they are parameters of
the machine in `lsviz.policies.backoff`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field, create_model, model_validator

from lsviz.policies.backoff import FP32_MAX, Rule, advance, first_state
from lsviz.policies.base import Outcome, Policy, Scale, format_number

_Interval = Annotated[int, Field(ge=1, le=10**9)]
_Count = Annotated[int, Field(ge=1, le=10**6)]

KEYS: Final[dict[str, tuple[Any, str]]] = {
    "init_scale": (Scale, "S at the first step."),
    "growth_factor": (Annotated[float, Field(gt=1, le=2.0**16)], "Factor on S after enough clean steps."),
    "backoff_factor": (Annotated[float, Field(gt=0, lt=1)], "Factor on S at an overflow."),
    "growth_interval": (_Interval, "Clean steps before S grows."),
    "hysteresis": (_Count, "Overflows before S is reduced; S then falls at every further one."),
    "consecutive_hysteresis": (bool, "Whether any clean step makes it forget earlier overflows."),
    "decr_every_n": (_Count, "Overflows in a row before S is reduced; the count then starts again."),
    "tolerance": (
        Annotated[float, Field(ge=0, le=1)],
        "S is reduced only where overflows since it was last reduced, over steps since it last changed, "
        "reach this share.",
    ),
    "min_scale": (Scale, "Floor of S."),
    "max_scale": (Scale, "Ceiling of S."),
    "min_loss_scale": (Annotated[float, Field(ge=0, le=2.0**16)], "The run ends where S falls this low."),
    "raise_at_min_scale": (bool, "Whether an overflow with S at its floor ends the run."),
    "min_interval": (_Interval, "Lowest growth interval of the ladder."),
    "max_interval": (_Interval, "Highest growth interval of the ladder."),
}
"""Every setting: its type with bounds, and what it does."""

_whole = Annotated[int, Field(ge=0)]
_scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_STATE: Final[dict[str, tuple[Any, Any, str]]] = {
    "scale": (_scale | None, None, "S now; empty at the start."),
    "clean_steps": (_whole, 0, "Clean steps counted so far."),
    "overflows": (_whole, 0, "Overflows counted towards the next back-off."),
    "overflows_in_a_row": (_whole, 0, "Overflows since the last clean step."),
    "steps_since_rescale": (_whole, 0, "Steps since S last changed."),
    "overflows_since_rescale": (_whole, 0, "Overflows since S was last reduced."),
    "interval": (
        Annotated[float, Field(ge=1, allow_inf_nan=False)] | None,
        None,
        "Growth interval now; empty at the start.",
    ),
    "next_scale": (_scale | None, None, "S of the step after the next; empty at the start."),
    "rung": (Annotated[int, Field(ge=-1)] | None, None, "Place on the ladder; empty at the start."),
    "growths": (_whole, 0, "Growths counted towards the next rung."),
    "backoffs": (_whole, 0, "Back-offs counted towards the fall to interval 1."),
}


class BackOff(Policy):
    """A library's scaler: settings and state as fields, the machine's other parameters in ``fixed``."""

    fixed: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def parameters(self) -> Rule:
        """The machine's parameters."""
        cls = type(self)
        return _parameters(cls, tuple(getattr(self, key) for key in _settings(cls)))

    @property
    def loss_scale(self) -> float:
        """S now."""
        scale: float | None = getattr(self, "scale", None)
        return first_state(self.parameters).scale if scale is None else scale

    def update(self, outcome: Outcome) -> Self:
        """Return the policy after one step; see `Policy.update`."""
        rule = self.parameters
        known = {k: v for k in self.state_fields if (v := getattr(self, k)) is not None}
        after = advance(rule, replace(first_state(rule), **known), finite=outcome.finite)
        return self.model_copy(update={k: getattr(after, k) for k in self.state_fields})

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        rule = self.parameters
        if rule.max_scale < rule.min_scale:
            raise ValueError(f"min_scale should be at most max_scale ({format_number(rule.max_scale)})")
        if rule.init_scale > rule.max_scale:
            raise ValueError(f"init_scale should be at most max_scale ({format_number(rule.max_scale)})")
        if rule.init_scale < rule.min_scale:
            raise ValueError(f"init_scale should be at least its floor ({format_number(rule.min_scale)})")
        if rule.min_loss_scale is not None and rule.init_scale <= rule.min_loss_scale:
            raise ValueError(
                f"init_scale should be above min_loss_scale ({format_number(rule.min_loss_scale)})"
            )
        if len(rule.ladder) == 1:  # nothing below the highest
            raise ValueError("min_interval should be below max_interval")
        if rule.ladder and min(rule.ladder) < 1:
            raise ValueError("max_interval should not lie between 101 and 199: its ladder would hold a 0")
        highest = rule.rounded(rule.max_scale)
        if rule.arithmetic != "fp64":
            highest = min(highest, FP32_MAX)
        for key in ("scale", "next_scale"):
            scale = getattr(self, key, None)
            if scale is not None and not rule.rounded(rule.min_scale) <= scale <= highest:
                raise ValueError(
                    f"{key} should lie between {format_number(rule.min_scale)} and {format_number(highest)}"
                )
        return self

    def notes(self) -> list[str]:
        """Return what a person should know of these settings."""
        rule = self.parameters
        if rule.ladder and rule.growth_interval not in rule.ladder:
            return [
                f"growth_interval={rule.growth_interval:g} is no rung of the ladder "
                f"{', '.join(map(str, rule.ladder))}: as in the library, the lowest is taken"
            ]
        return []


@lru_cache(maxsize=256)
def _settings(cls: type[BackOff]) -> tuple[str, ...]:
    return cls.settings()


@lru_cache(maxsize=1024)
def _parameters(cls: type[BackOff], chosen: tuple[Any, ...]) -> Rule:
    """Return the machine's parameters from settings in the libraries' words."""
    given = zip(_settings(cls), chosen, strict=True)
    values = {**cls.fixed, **{key: value for key, value in given if value is not None}}
    if "decr_every_n" in values:
        values["hysteresis"] = values.pop("decr_every_n")
    if values.pop("consecutive_hysteresis", False):
        values["refill"] = "clean"
    if "max_interval" in values:
        values["ladder"] = interval_ladder(values.pop("min_interval"), values.pop("max_interval"))
    if "init_scale" not in values:
        values["init_scale"] = values["max_scale"]
    return Rule(**values)


def interval_ladder(lowest: int, highest: int) -> tuple[int, ...]:
    """Return mindformers' growth intervals, lowest first: 20, 30, 40, 50, 100, 200, 500, 1000.

    Downwards from the highest, halved and rounded down to a hundred above 100, halved at 100, and by
    half the lowest below (MindFormers 1.x, mindformers/wrapper/adaptive_loss_scale.py,
    ``_get_window_list``).
    """
    interval = float(highest)
    ladder = [highest]
    while interval > lowest:
        if interval > 100:
            interval = int(interval / 2 / 100) * 100
        elif interval == 100:
            interval = 50
        else:
            interval -= lowest / 2
        ladder.append(int(interval))
    return tuple(reversed(ladder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A row of the table.

    Attributes:
        name: As in ``--policy``.
        rule: What it does, in one sentence.
        source: Where that was read: library, version, file.
        settings: Key -> the library's default; None is "no such bound".
        fixed: Parameters of `Rule` that the library does not let one choose.
        aliases: Other names of a key.
    """

    name: str
    rule: str
    source: str
    settings: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> tuple[str, ...]:
        """The names of what it remembers between steps."""
        keys = {**self.settings, **self.fixed}
        names = ["scale", "clean_steps"]
        if keys.keys() & {"hysteresis", "decr_every_n"}:
            names.append("overflows")
        if "max_overflows" in keys:
            names.append("overflows_in_a_row")
        if "tolerance" in keys:
            names += ["steps_since_rescale", "overflows_since_rescale"]
        if "interval_follows_scale" in keys:
            names.append("interval")
        if "delayed" in keys:
            names.append("next_scale")
        if "max_interval" in keys:
            names += ["interval", "rung", "growths", "backoffs"]
        return tuple(names)


def build_preset(row: Preset) -> type[BackOff]:
    """Return the policy class of a row."""
    fields: dict[str, Any] = {}
    for key, default in row.settings.items():
        kind, description = KEYS[key]
        optional = kind | None if default is None else kind
        if key == "init_scale" and default is None:
            description += " Empty: the ceiling."
        fields[key] = (optional, Field(default=default, description=description))
    for key in row.state:
        kind, default, description = _STATE[key]
        fields[key] = (kind, Field(default=default, description=description))
    title = "".join(part.capitalize() for part in row.name.split("-"))
    cls: type[BackOff] = create_model(title, __base__=BackOff, __module__=__name__, **fields)
    cls.__doc__ = f"{row.rule}\n\nSource: {row.source}."
    cls.name = row.name
    cls.rule = row.rule
    cls.source = row.source
    cls.fixed = MappingProxyType(dict(row.fixed))
    cls.key_aliases = MappingProxyType(dict(row.aliases))
    cls.state_fields = row.state
    return cls
