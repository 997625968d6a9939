"""The one string form of a policy, for command line, URL, run.json and legends.

``name`` or ``name:key=value,key=value``; ``constant:1024`` is short for ``constant:scale=1024``.
Numbers may be written ``1024``, ``1e3`` or ``2^10``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from lsviz.policies.backoff import GradScaler
from lsviz.policies.base import Policy, PolicyError
from lsviz.policies.constant import Constant, NoScaling

POLICIES: Final[dict[str, type[Policy]]] = {p.name: p for p in (NoScaling, Constant, GradScaler)}
"""Every policy by its name, in the order of menus."""

ALIASES: Final[dict[str, str]] = {"dynamic": "gradscaler"}

_POWER = re.compile(r"([0-9.]+)\^([+-]?[0-9]{1,4})")


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
        if key not in cls.model_fields:
            raise PolicyError(f"{cls.name} has no key {key!r}; {_keys(cls)}")
        if key in values:
            raise PolicyError(f"{cls.name}: key {key!r} is given twice")
        values[key] = _parse_number(cls.name, key, value)
    return _build(cls, values)


def format_policy(policy: Policy) -> str:
    """Return the shortest string form that `parse_policy` reads back to the same value."""
    fields = type(policy).model_fields
    parts = [
        (key, _format_number(value))
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
    rest = dict(values)
    cls = _policy_class(str(rest.pop("name", "")))
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
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise PolicyError(f"{cls.name}: {key} {reason}, got {first['input']!r}") from None


def _keys(cls: type[Policy]) -> str:
    keys = cls.settings()
    return f"it takes: {', '.join(keys)}" if keys else "it takes no keys"


def _parse_number(name: str, key: str, text: str) -> float | int:
    power = _POWER.fullmatch(text)
    try:
        if power:
            return float(power[1]) ** int(power[2])
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else float(text)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise PolicyError(f"{name}: {key} takes a number such as 1024, 0.5 or 2^10, got {text!r}") from None


def _format_number(value: float) -> str:
    mantissa, exponent = math.frexp(value)
    if mantissa == 0.5 and not -10 <= exponent - 1 < 24:
        return f"2^{exponent - 1}"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
