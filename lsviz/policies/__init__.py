"""Loss-scaling policies: one protocol, one string form, no torch."""

from lsviz.policies.backoff import GradScaler
from lsviz.policies.base import Outcome, Policy, PolicyError
from lsviz.policies.constant import Constant, NoScaling
from lsviz.policies.text import ALIASES, POLICIES, format_policy, parse_policy, policy_from_dict
from lsviz.policies.trace import Trace, trace_amax, trace_overflows

__all__ = [
    "ALIASES",
    "POLICIES",
    "Constant",
    "GradScaler",
    "NoScaling",
    "Outcome",
    "Policy",
    "PolicyError",
    "Trace",
    "format_policy",
    "parse_policy",
    "policy_from_dict",
    "trace_amax",
    "trace_overflows",
]
