"""Policies' traces as tidy frames: what each policy would have done at every step of one series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from lsviz.analysis.findings import format_powers, format_scale
from lsviz.policies import Policy, Trace

TRACE_COLUMNS: Final = ["policy", "step", "loss_scale", "overflow", "after", "remembers"]


def traces_frame(policies: Mapping[str, Policy], traces: Mapping[str, Trace]) -> pd.DataFrame:
    """Return what every policy did, one row a policy and step.

    Args:
        policies: Label -> the policy before the first step.
        traces: The same labels -> its trace.

    Returns:
        Columns policy (the label), step, loss_scale (S in force during the step), overflow (whether the
        step overflowed), after (S after it) and remembers (the counters after it, in words). A policy
        that gave up has no row for that step and later ones.
    """
    rows: list[tuple[Any, ...]] = []
    for label, trace in traces.items():
        before = policies[label].loss_scale
        skipped = set(trace.skipped)
        for step, (after, counters) in enumerate(zip(trace.scales, trace.counters, strict=True)):
            rows.append((label, step, before, step in skipped, after, counters_in_words(counters)))
            before = after
    return pd.DataFrame(rows, columns=TRACE_COLUMNS)


def counters_frame(policy: Policy, trace: Trace) -> pd.DataFrame:
    """Return one policy's counters at every step, a column each.

    Returns:
        Columns step, outcome, S, ``S after``, and one for each counter, after the step.
    """
    before = policy.loss_scale
    skipped = set(trace.skipped)
    rows = []
    for step, (after, counters) in enumerate(zip(trace.scales, trace.counters, strict=True)):
        named = {key.replace("_", " "): _shown(key, value) for key, value in counters.items()}
        outcome = "overflow, skipped" if step in skipped else "clean"
        scales = {"S": format_scale(before), "S after": format_scale(after)}
        rows.append({"step": step, "outcome": outcome, **scales, **named})
        before = after
    return pd.DataFrame(rows)


def counters_in_words(counters: Mapping[str, Any]) -> str:
    """Return counters as people read them: ``clean steps 3, overflows 1``."""
    return ", ".join(f"{key.replace('_', ' ')} {_shown(key, value)}" for key, value in counters.items())


def trace_finding(labels: Sequence[str], traces: Sequence[Trace], steps: int) -> str:
    """Return in one or two sentences what a comparison of traces shows."""
    if not labels:
        return "Choose a policy to see what it would do."
    gave_up = [label for label, trace in zip(labels, traces, strict=True) if trace.raised_at is not None]
    if gave_up:
        first = traces[labels.index(gave_up[0])]
        return f"{gave_up[0]} gives up at step {first.raised_at}: {first.reason}."
    ends = {label: trace.scales[-1] for label, trace in zip(labels, traces, strict=True) if trace.scales}
    if not ends:
        return "Give at least one step."
    lowest, highest = min(ends, key=lambda k: ends[k]), max(ends, key=lambda k: ends[k])
    if len(ends) == 1:
        (label,) = ends
        return f"After {_steps(steps)} {label} has S = {_scale(ends[label])}."
    if ends[lowest] == ends[highest]:
        who = "both" if len(ends) == 2 else f"all {len(ends)} policies"
        return f"After {_steps(steps)} {who} have S = {_scale(ends[lowest])}."
    return (
        f"After {_steps(steps)} {highest} has S = {_scale(ends[highest])}, {lowest} {_scale(ends[lowest])}: "
        f"{_times(ends[highest], ends[lowest])} apart."
    )


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number:,} steps"


def _scale(value: float) -> str:
    return format_scale(value) if math.frexp(value)[0] == 0.5 else f"{value:.3g}"


def _times(high: float, low: float) -> str:
    if low == 0:
        return "infinitely far"
    ratio = high / low
    if ratio >= 1000:
        return format_powers(
            f"{'' if math.frexp(ratio)[0] == 0.5 else 'about '}2^{round(math.log2(ratio))} times"
        )
    return f"{ratio:.3g} times"


def _shown(key: str, value: Any) -> Any:
    if value is None:
        return "–"
    if isinstance(value, float):
        return format_scale(value) if key.endswith("scale") else f"{value:.4g}"
    return value
