"""The one string form of a policy, for command line, URL, run.json and legends.

``name`` or ``name:key=value,key=value``; ``constant:1024`` is short for ``constant:scale=1024``.
Numbers may be written ``1024``, ``1e3`` or ``2^10``, yes and no ``true`` and ``false``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_origin

from pydantic import ValidationError

from lsviz.policies.base import Policy, PolicyError, format_number, parse_number
from lsviz.policies.constant import Constant, NoScaling
from lsviz.policies.layerwise import Layerwise, format_layers
from lsviz.policies.libraries import PRESETS
from lsviz.policies.presets import build_preset
from lsviz.policies.statistics import Histogram, LogMax, Patent

_CLASSES: Final[tuple[type[Policy], ...]] = (
    NoScaling,
    Constant,
    *(build_preset(row) for row in PRESETS),
    Patent,
    LogMax,
    Histogram,
    Layerwise,
)

POLICIES: Final[dict[str, type[Policy]]] = {cls.name: cls for cls in _CLASSES}
"""Every policy by its name, in the order of menus."""

ALIASES: Final[dict[str, str]] = {"dynamic": "gradscaler"}


def parse_policy(text: str) -> Policy:
    """Return the policy that a string form names.

    Raises:
        PolicyError: Unknown name or key, a missing or repeated key, or a value out of its range.
    """
    name, _, rest = text.strip().partition(":")
    cls = _policy_class(name.strip())
    values: dict[str, Any] = {}
    for part in (p.strip() for p in rest.split(",") if rest):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals:
            if cls.short_key is None or values:
                raise PolicyError(f"{cls.name}: expected key=value, got {part!r}; {_keys(cls)}")
            key, value = cls.short_key, part
        key = cls.key_aliases.get(key, key)
        if key not in cls.model_fields:
            raise PolicyError(f"{cls.name} has no key {key!r}; {_keys(cls)}")
        if key in values:
            raise PolicyError(f"{cls.name}: key {key!r} is given twice")
        values[key] = _parse_value(cls, key, value)
    return _build(cls, values)


def format_policy(policy: Policy) -> str:
    """Return the shortest string form that `parse_policy` reads back to the same value."""
    fields = type(policy).model_fields
    parts = [
        (key, _format_value(value))
        for key, value in policy
        if value is not None and (value != fields[key].default or key == policy.short_key)
    ]
    if not parts:
        return policy.name
    if len(parts) == 1 and parts[0][0] == policy.short_key:
        return f"{policy.name}:{parts[0][1]}"
    return f"{policy.name}:" + ",".join(f"{key}={value}" for key, value in parts)


def policy_from_dict(values: Mapping[str, Any]) -> Policy:
    """Return the policy that `Policy.to_dict` wrote.

    Raises:
        PolicyError: As `parse_policy`.
    """
    cls = _policy_class(str(values.get("name", "")))
    rest = {cls.key_aliases.get(key, key): value for key, value in values.items() if key != "name"}
    for key in rest:
        if key not in cls.model_fields:
            raise PolicyError(f"{cls.name} has no key {key!r}; {_keys(cls)}")
    return _build(cls, rest)


def _policy_class(name: str) -> type[Policy]:
    cls = POLICIES.get(ALIASES.get(name, name))
    if cls is None:
        aliases = [f"{alias} (= {of})" for alias, of in ALIASES.items()]
        known = ", ".join([*POLICIES, *aliases])
        raise PolicyError(f"unknown policy {name!r}; choose one of: {known}")
    return cls


def _build(cls: type[Policy], values: dict[str, Any]) -> Policy:
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if not key:  # of several keys together: the reason names them
            raise PolicyError(f"{cls.name}: {reason}") from None
        raise PolicyError(f"{cls.name}: {key} {reason}, got {first['input']!r}") from None


def _keys(cls: type[Policy]) -> str:
    keys = cls.settings()
    return f"it takes: {', '.join(keys)}" if keys else "it takes no keys"


def _parse_value(cls: type[Policy], key: str, text: str) -> float | int | bool | str:
    """Return a value of the kind that the key takes; its bounds are checked by the model."""
    kind = cls.model_fields[key].annotation
    if kind is bool:
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in known:
            raise PolicyError(f"{cls.name}: {key} takes true or false, got {text!r}")
        return known[text.lower()]
    if get_origin(kind) in (Literal, tuple):
        return text
    try:
        number = parse_number(text)
        return int(number) if kind is int and float(number).is_integer() else number
    except ValueError:
        raise PolicyError(
            f"{cls.name}: {key} takes a number such as 1024, 0.5 or 2^10, got {text!r}"
        ) from None


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    return format_layers(value) if isinstance(value, tuple) else format_number(value)
