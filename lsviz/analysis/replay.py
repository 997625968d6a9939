"""Replay: any policy over what a run recorded of its gradients, without training.

While the policy's skips are those of the recorded run, the weights are too, and so are the gradients that it
is shown: the replay is exact, but for what its S flushes more or less than the run's did (see
`lsviz.analysis.replayshares`). From the first step on that it skips and the run did not, or the other way
round, training would have gone another way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsviz.analysis.series import GradientSeries, Tried
from lsviz.policies import (
    MAX_RETRIES,
    Layerwise,
    Outcome,
    Policy,
    PolicyStoppedError,
    can_fall,
    format_policy,
    inverse_scale,
)


@dataclass(frozen=True)
class Replay:
    """What a policy would have done.

    Attributes:
        steps: Numbers of the steps that it came to.
        scales: S in force during each, that the loss is multiplied by.
        skipped: The steps that it skips.
        exact_until: The first step from which it is a guess; one past the last step where it is none.
        reason: Why it is a guess from there on; empty where it is not.
        raised_at: The step at which the policy gave up; None if it never did.
        stop: What its error says.
        layer_scales: Layer -> its S during each step, of a policy that has one for each.
    """

    steps: list[int]
    scales: list[float]
    skipped: list[int]
    exact_until: int
    reason: str = ""
    raised_at: int | None = None
    stop: str = ""
    layer_scales: list[Mapping[str, float]] | None = None

    @property
    def guess_from(self) -> int | None:
        """The first step that is a guess; None where none is."""
        return self.exact_until if self.reason else None

    def frame(self) -> pd.DataFrame:
        """Return a row a step: step, loss_scale, skipped, exact."""
        steps = np.array(self.steps, np.int64)
        skipped = np.isin(steps, np.array(self.skipped, np.int64))
        return pd.DataFrame(
            {
                "step": steps,
                "loss_scale": self.scales,
                "skipped": skipped,
                "exact": steps < self.exact_until,
            }
        )


def replay(policy: Policy, series: GradientSeries) -> Replay:
    """Run a policy over a recorded run.

    Where its S is that of the run, it is told what the run told its own policy. Where it is another, a step
    overflows if S times the largest value that the format limits rounds past its end. What is not seen
    (inside attention, say) can overflow all the same.

    Args:
        policy: Before its first step.
        series: `lsviz.analysis.series.gradient_series`.
    """
    facts, own = _Facts(series), format_policy(policy) == series.policy
    scales: list[float] = []
    skipped: list[int] = []
    by_layer: list[Mapping[str, float]] = []
    exact_until, reason = 0, ""
    raised_at, stop = None, ""
    for i, step in enumerate(series.steps.tolist()):
        done = _take(policy, facts, i)
        if done is None:
            raised_at, stop = step, f"S fell to {policy.loss_scale:g}, which can't be undone"
            break
        scale = facts.scale_of_loss(done.policy)
        scales.append(scale)
        if isinstance(done.policy, Layerwise):
            by_layer.append(done.policy.scales_of(series.layers))
        if done.skips:
            skipped.append(step)
        if not reason:
            reason = facts.hole(i) or done.doubt
            if not reason and done.skips != facts.skipped[i]:
                word, did = ("skips", "did not") if done.skips else ("finishes", "skipped")
                reason = f"it {word} step {step:,}, which the recorded run {did}"
            if not reason and own and scale != facts.loss_scale[i]:
                reason = f"S of step {step:,} was not what this policy alone makes of the steps before"
            exact_until = step if reason else step + 1
        if done.stopped:
            raised_at, stop = step, done.stopped
            break
        policy = done.after
    return Replay(
        steps=series.steps[: len(scales)].tolist(),
        scales=scales,
        skipped=skipped,
        exact_until=exact_until,
        reason=reason,
        raised_at=raised_at,
        stop=stop,
        layer_scales=by_layer if policy.per_layer else None,
    )


@dataclass(frozen=True, slots=True)
class _Done:
    """A step: the policy in force at its last try and after it, whether it is skipped, and any doubt."""

    policy: Policy
    after: Policy
    skips: bool
    doubt: str
    stopped: str


def _take(policy: Policy, facts: _Facts, i: int) -> _Done | None:
    """Take one step, with its tries; None where S can't be undone."""
    doubt = ""
    for retries in range(MAX_RETRIES if facts.series.retries else 0, -1, -1):
        if not policy.per_layer and math.isinf(inverse_scale(policy.loss_scale)):
            return None
        same = facts.same(policy, i)
        outcome, doubtful = facts.outcome(policy, i, same)
        doubt = doubt or doubtful
        # A loop may apply what is not finite, or skip a part of the weights: what it did, it would again.
        last = same is not None and same is facts.series.tries[i][-1]
        skips = facts.skipped[i] if last else not outcome.finite
        try:
            after = policy.update(outcome)
        except PolicyStoppedError as error:
            return _Done(policy, policy, skips, doubt, str(error))
        if outcome.finite or not retries or not can_fall(policy, after):
            break
        policy = after
    return _Done(policy, after, skips, doubt, "")


class _Facts:
    """What a policy is told at each step."""

    def __init__(self, series: GradientSeries) -> None:
        self.series = series
        # As lists: NumPy takes ten times as long for one number.
        self._steps: list[int] = series.steps.tolist()
        self._top: list[float] = series.top.tolist()
        self._weights: list[float] = series.weights.tolist()
        self._hopeless: list[bool] = series.hopeless.tolist()
        self.skipped: list[bool] = series.skipped.tolist()
        self.loss_scale: list[float] = series.loss_scale.tolist()
        self._guess = _last_known(series.top)
        limit = series.format.overflow_limit
        self._limit = limit if series.format.overflows_at_limit else math.nextafter(limit, math.inf)
        self._outputs, self._own = (_filled(table) for table in (series.outputs, series.own))

    def _overflows(self, value: float) -> bool:
        """`FloatFormat.overflows` of one number, of which there are many."""
        return value >= self._limit

    def hole(self, i: int) -> str:
        """Return that steps before the i-th are missing, where they are."""
        steps = self._steps
        missing = steps[i] - steps[i - 1] - 1 if i else steps[0]
        return f"{missing:,} steps before step {steps[i]:,} are missing from the run" if missing else ""

    def same(self, policy: Policy, i: int) -> Tried | None:
        """Return the try of the i-th step that the run made at the policy's own S."""
        return next((tried for tried in self.series.tries[i] if _same_scale(tried, policy)), None)

    def scale_of_loss(self, policy: Policy) -> float:
        """Return what the loss is multiplied by."""
        series = self.series
        if not isinstance(policy, Layerwise):
            return policy.loss_scale
        first = series.layers[0] if series.layers else None
        layer = series.loss_layer if series.loss_layer is not None else first
        return policy.loss_scale if layer is None else policy.scale_of(layer)

    def outcome(self, policy: Policy, i: int, same: Tried | None) -> tuple[Outcome, str]:
        """Return what a policy is told at the i-th step, and why that is a guess, if it is one."""
        if isinstance(policy, Layerwise):
            return self._layers_outcome(policy, i, same)
        finite, doubt = (same.finite, "") if same is not None else self._finite(policy, i)
        amax, share = None, None
        if policy.needs_amax:
            amax = same.amax if same is not None else None
            if amax is None:
                amax = self._weights[i] if finite else math.inf
                doubt = doubt or (self._seen_in_part() if finite else "")
            if math.isnan(amax):
                amax, doubt = None, doubt or self._unknown(i)
        if policy.large_value is not None:
            told = same is not None and same.large_value == policy.large_value
            share = same.large_share if same is not None and told else None
            if share is None:
                share, doubtful = self._large_share(policy, i, finite=finite)
                doubt = doubt or doubtful
        return Outcome(finite, amax, share), doubt

    def _finite(self, policy: Policy, i: int) -> tuple[bool, str]:
        """Return whether a step would be finite at another S than the run's."""
        scale, tries = policy.loss_scale, self.series.tries[i]
        if self._hopeless[i]:
            return False, ""
        for tried in tries:
            if tried.scales is None and tried.finite and scale <= tried.loss_scale:
                return True, ""
        for tried in tries:
            if tried.scales is None and not tried.finite and scale >= tried.loss_scale:
                return False, ""
        top = self._top[i]
        doubt = self._unknown(i) if math.isnan(top) else self._seen_in_part()
        return not self._overflows(scale * (self._guess[i] if math.isnan(top) else top)), doubt

    def _large_share(self, policy: Policy, i: int, *, finite: bool) -> tuple[float, str]:
        """Let the step's largest weight gradient stand for all of them, as far as one value counts."""
        limit = policy.large_value or math.inf
        largest = self._weights[i] * policy.loss_scale
        if finite and (math.isnan(largest) or self.series.partial):
            return float(largest >= limit), self._seen_in_part() or self._unknown(i)
        if finite and largest < limit:
            return 0.0, ""
        threshold = getattr(policy, "threshold", 0.0)
        certain = 0 < self.series.weight_values * threshold < 1 or not threshold
        doubt = (
            "" if certain else f"how many gradients were large at step {self.series.steps[i]:,} is not known"
        )
        return 1.0, doubt

    def _layers_outcome(self, policy: Layerwise, i: int, same: Tried | None) -> tuple[Outcome, str]:
        if same is not None and same.layers is not None:
            return Outcome(same.finite, layers=same.layers), ""
        if not self.series.layers:
            return Outcome(True), "no layer's largest gradients were recorded"
        finite = self._layers_finite(policy, i)
        doubt = self._unknown(i) if np.isnan(self.series.own[i]).any() else self._seen_in_part()
        if self._hopeless[i]:
            step = self._steps[i]
            doubt = doubt or f"where the Inf or NaN of step {step:,} began is not known layer by layer"
            finite = {self.series.layers[0]: False}
        return Outcome(all(finite.values()), layers=finite), doubt

    def _layers_finite(self, policy: Layerwise, i: int) -> dict[str, bool]:
        """Return which layers stay finite, without those that another's Inf reaches.

        What a layer hands down still has its own S; in the next layer it takes that one's.
        """
        layers = self.series.layers
        finite: dict[str, bool] = {}
        scales = policy.scales_of(layers)
        outputs, own = self._outputs[i].tolist(), self._own[i].tolist()
        for place, name in enumerate(layers):
            scale = scales[name]
            handed = outputs[place + 1] if place + 1 < len(layers) else 0.0
            hands_inf = self._overflows(scale * max(outputs[place], handed))
            finite[name] = not (hands_inf or self._overflows(scale * own[place]))
            if hands_inf:
                break
        return finite

    def _unknown(self, i: int) -> str:
        return f"how large the gradients of step {self.series.steps[i]:,} were is not known"

    def _seen_in_part(self) -> str:
        return "only some of the model's gradients were recorded" if self.series.partial else ""


def _same_scale(tried: Tried, policy: Policy) -> bool:
    if isinstance(policy, Layerwise):
        return tried.scales is not None and policy.scales_of(tried.scales) == tried.scales
    return tried.scales is None and tried.loss_scale == policy.loss_scale


def _filled(table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    """Return a table with what is unknown taken from the step before, 0 where there is none."""
    found: np.ndarray[Any, Any] = pd.DataFrame(table).ffill().fillna(0.0).to_numpy(np.float64)
    return found


def _last_known(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    """Return each value, or the last one before it; 0 where there is none."""
    found: list[float] = pd.Series(values, dtype=float).ffill().fillna(0.0).tolist()
    return found
