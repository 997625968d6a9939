"""Loss-scaling policies: one protocol, one string form, no torch."""

from lsviz.policies.base import (
    Outcome,
    Policy,
    PolicyError,
    PolicyStoppedError,
    Range,
    format_number,
    parse_number,
)
from lsviz.policies.constant import Constant, NoScaling
from lsviz.policies.layerwise import Layerwise
from lsviz.policies.retrying import MAX_RETRIES, can_fall
from lsviz.policies.statistics import Histogram, LogMax, Patent
from lsviz.policies.text import (
    ALIASES,
    POLICIES,
    format_policy,
    parse_policy,
    policy_from_dict,
)
from lsviz.policies.trace import Trace, inverse_scale, parse_amax, trace_amax, trace_overflows

__all__ = [
    "ALIASES",
    "MAX_RETRIES",
    "POLICIES",
    "Constant",
    "Histogram",
    "Layerwise",
    "LogMax",
    "NoScaling",
    "Outcome",
    "Patent",
    "Policy",
    "PolicyError",
    "PolicyStoppedError",
    "Range",
    "Trace",
    "can_fall",
    "format_number",
    "format_policy",
    "inverse_scale",
    "parse_amax",
    "parse_number",
    "parse_policy",
    "policy_from_dict",
    "trace_amax",
    "trace_overflows",
]
