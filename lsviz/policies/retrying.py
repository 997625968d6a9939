"""Trying a batch again after an overflow: how often, and whether it can come to anything."""

from __future__ import annotations

from typing import Final

from lsviz.policies.base import Outcome, Policy, PolicyStoppedError

MAX_RETRIES: Final = 300
"""After so many tries a batch is given up; halving S takes 252 from its highest to its lowest."""
FORESIGHT: Final = 64
"""How many further overflows are tried out to learn whether a policy would still reduce S."""


def can_fall(policy: Policy, after: Policy) -> bool:
    """Return whether an overflow has changed S, or further ones would: hysteresis lets some pass first.

    Args:
        policy: In force as the batch overflowed.
        after: What it became.
    """
    start = policy.loss_scale
    for _ in range(FORESIGHT):
        if after.loss_scale != start:
            return True
        try:
            after = after.update(Outcome(finite=False))
        except PolicyStoppedError:
            return False
    return False
