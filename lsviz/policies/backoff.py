"""The back-off/growth machine: shrink the scale at an overflow, raise it after enough clean steps.

Every library's rule is a `Rule`, a set of parameters of this one machine (the table is in
`lsviz.policies.libraries`). Nothing here knows of pydantic, text or libraries' names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from lsviz.policies.base import PolicyStoppedError, fp32

FP32_MAX: Final = float(2**128 - 2**104)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The parameters of the machine. The defaults are those of ``torch.amp.GradScaler``.

    Attributes:
        init_scale: S at the first step.
        growth_factor: Factor on S after enough clean steps.
        backoff_factor: Factor on S at a back-off; None takes 1 / growth_factor.
        growth_interval: Clean steps before S grows.
        late: Further clean steps that pass before growth is looked for.
        recount: Whether the count of clean steps starts again at growth; else it runs on from the last
            overflow, and S grows at its multiples.
        hysteresis: Overflows before S is reduced.
        refill: When the counted overflows are forgotten: at ``growth``, at any ``clean`` step, or at a
            clean step and after each ``backoff``.
        tolerance: S is reduced only where overflows since it was last reduced, over steps since it last
            changed, reach this share.
        min_scale: Floor.
        keeps_above_floor: At the floor S stays as it is, rather than being set to the floor.
        max_scale: Ceiling.
        raise_at_min_scale: Whether an overflow at the floor ends the run.
        min_loss_scale: A back-off to this scale or less ends the run; None: never.
        max_overflows: More overflows in a row than this end the run; None: never.
        interval_follows_scale: Whether the interval grows and shrinks with S.
        ladder: Intervals to climb: up one after three growths, down to 1 after three back-offs.
        delayed: Whether a new scale comes into force one step late.
        arithmetic: ``fp32``; ``fp64``; or ``mixed``, factors in FP64 and S in FP32.
        by_reciprocal: Whether back-off multiplies by the rounded 1 / growth_factor instead of dividing.
        beyond: What becomes of a growth past the number format: ``hold`` S, ``clip`` to FP32's largest
            number, or ``stop``, where the library would go on with S = Inf and skip every step.
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float | None = None
    growth_interval: float = 2000
    late: int = 0
    recount: bool = True
    hysteresis: int = 1
    refill: Literal["growth", "clean", "backoff"] = "growth"
    tolerance: float = 0.0
    min_scale: float = 0.0
    keeps_above_floor: bool = False
    max_scale: float = math.inf
    raise_at_min_scale: bool = False
    min_loss_scale: float | None = None
    max_overflows: int | None = None
    interval_follows_scale: bool = False
    ladder: tuple[int, ...] = ()
    delayed: bool = False
    arithmetic: Literal["fp32", "fp64", "mixed"] = "fp32"
    by_reciprocal: bool = False
    beyond: Literal["hold", "clip", "stop"] = "stop"

    def rounded(self, scale: float) -> float:
        """Round S to the type that the library keeps it in."""
        return scale if self.arithmetic == "fp64" else fp32(scale)

    def factor(self, value: float) -> float:
        """Round a factor to the type that the library computes with."""
        return fp32(value) if self.arithmetic == "fp32" else value

    @property
    def first_rung(self) -> int:
        """Where on the ladder it starts: the lowest rung where the interval asked for is none of them."""
        return self.ladder.index(int(self.growth_interval)) if self.growth_interval in self.ladder else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the machine remembers between steps.

    Attributes:
        scale: S now.
        clean_steps: Clean steps counted so far.
        overflows: Overflows counted towards the next back-off.
        overflows_in_a_row: Overflows since the last clean step.
        steps_since_rescale: Steps since S last changed.
        overflows_since_rescale: Overflows since S was last reduced.
        interval: The growth interval now.
        next_scale: S of the step after the next, where changes come late.
        rung: Place on the ladder of intervals; -1 is the interval 1 below it.
        growths: Growths counted towards the next rung.
        backoffs: Back-offs counted towards the fall to interval 1.
    """

    scale: float
    clean_steps: int = 0
    overflows: int = 0
    overflows_in_a_row: int = 0
    steps_since_rescale: int = 0
    overflows_since_rescale: int = 0
    interval: float = 0
    next_scale: float = 0.0
    rung: int = 0
    growths: int = 0
    backoffs: int = 0


@lru_cache(maxsize=1024)
def first_state(rule: Rule) -> State:
    """Return the state before the first step."""
    scale = rule.rounded(rule.init_scale)
    rung = rule.first_rung
    interval = rule.ladder[rung] if rule.ladder else rule.growth_interval
    return State(scale=scale, next_scale=scale, interval=interval, rung=rung)


def advance(rule: Rule, state: State, *, finite: bool) -> State:
    """Return the state after one step.

    Raises:
        PolicyStoppedError: The library would end the run here.
    """
    take = _after_clean if finite else _after_overflow
    if not rule.delayed:
        return take(rule, state)
    late = take(rule, replace(state, scale=state.next_scale))
    return replace(late, scale=state.next_scale, next_scale=late.scale)


def _after_overflow(rule: Rule, state: State) -> State:
    state = replace(
        state,
        clean_steps=0,
        overflows=min(state.overflows + 1, rule.hysteresis),
        overflows_in_a_row=state.overflows_in_a_row + 1,
        steps_since_rescale=state.steps_since_rescale + 1,
        overflows_since_rescale=state.overflows_since_rescale + 1,
    )
    share = state.overflows_since_rescale / state.steps_since_rescale
    if state.overflows >= rule.hysteresis and share >= rule.tolerance:
        state = _backed_off(rule, state)
    if rule.min_loss_scale is not None and state.scale <= rule.min_loss_scale:
        raise PolicyStoppedError(
            f"the loss scale fell to min_loss_scale ({rule.min_loss_scale:g}), where the library gives up"
        )
    if rule.max_overflows is not None and state.overflows_in_a_row > rule.max_overflows:
        raise PolicyStoppedError(
            f"more than {rule.max_overflows} overflows in a row, at which the library gives up"
        )
    return state


def _backed_off(rule: Rule, state: State) -> State:
    if rule.raise_at_min_scale and state.scale == rule.min_scale:
        raise PolicyStoppedError(
            f"overflow with the loss scale already at its floor ({rule.min_scale:g}), "
            "at which the library gives up"
        )
    state = replace(
        state,
        scale=_shrunk(rule, state.scale),
        steps_since_rescale=0,
        overflows_since_rescale=0,
        overflows=0 if rule.refill == "backoff" else state.overflows,
    )
    if rule.interval_follows_scale:
        state = replace(state, interval=max(int(state.interval / rule.growth_factor), 1))
    if rule.ladder:
        state = replace(state, backoffs=(state.backoffs + 1) % 4)
        if state.backoffs == 3 and state.rung > 0:
            state = replace(state, rung=-1, interval=1, growths=0, backoffs=0)
    return state


def _after_clean(rule: Rule, state: State) -> State:
    state = replace(
        state,
        clean_steps=state.clean_steps + 1,
        overflows=state.overflows if rule.refill == "growth" else 0,
        overflows_in_a_row=0,
        steps_since_rescale=state.steps_since_rescale + 1,
    )
    due = state.clean_steps - rule.late
    if due <= 0 or due % state.interval:
        return state
    state = replace(
        state,
        scale=_grown(rule, state.scale),
        clean_steps=0 if rule.recount else state.clean_steps,
        overflows=0,
        steps_since_rescale=0,
    )
    if rule.interval_follows_scale:
        state = replace(state, interval=state.interval * rule.growth_factor)
    if rule.ladder:
        state = replace(state, growths=(state.growths + 1) % 4, backoffs=0)
        if state.growths == 3 and state.rung < len(rule.ladder) - 1:
            rung = state.rung + 1
            state = replace(state, rung=rung, interval=rule.ladder[rung], growths=0)
    return state


def _shrunk(rule: Rule, scale: float) -> float:
    if rule.backoff_factor is not None:
        smaller = scale * rule.factor(rule.backoff_factor)
    elif rule.by_reciprocal:
        smaller = scale * rule.factor(1.0 / rule.factor(rule.growth_factor))
    else:
        smaller = scale / rule.factor(rule.growth_factor)
    smaller = rule.rounded(smaller)
    if smaller < rule.min_scale:
        return scale if rule.keeps_above_floor else rule.rounded(rule.min_scale)
    return smaller


def _grown(rule: Rule, scale: float) -> float:
    larger = rule.rounded(min(scale * rule.factor(rule.growth_factor), rule.max_scale))
    if math.isfinite(larger):
        return larger
    if rule.beyond == "stop":
        raise PolicyStoppedError(
            "the loss scale grew past its number format: the library would hold S = Inf and skip every step"
        )
    return FP32_MAX if rule.beyond == "clip" else scale
