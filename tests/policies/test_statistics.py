"""Policies that look at the gradients: against their formulas, written out in float64 and fractions."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsviz.policies import (
    Outcome,
    PolicyError,
    format_policy,
    parse_policy,
    trace_amax,
    trace_overflows,
)

GOLDEN = json.loads((Path(__file__).parent / "golden_traces.json").read_text())


@given(st.floats(min_value=2.0**-100, max_value=2.0**100), st.integers(0, 6))
def test_patent_puts_the_largest_gradient_just_under_the_top(amax: float, margin: int) -> None:
    policy = parse_policy(f"patent:margin={margin}")
    (scale,) = trace_amax(policy, [amax]).scales
    assert math.frexp(scale)[0] == 0.5
    assert 2.0 ** (14 - margin) < amax * scale <= 2.0 ** (15 - margin)


@pytest.mark.parametrize("exponent", [-30, -1, 0, 7, 15, 16])
def test_patent_is_exact_at_powers_of_two(exponent: int) -> None:
    just_above = math.nextafter(2.0**exponent, math.inf)
    trace = trace_amax(parse_policy("patent"), [2.0**exponent, just_above])
    assert trace.scales == [2.0 ** (15 - exponent), 2.0 ** (14 - exponent)]


def test_patents_stated_rules_for_the_first_step_inf_nan_and_zero() -> None:
    trace = trace_amax(parse_policy("patent:init_scale=2^8"), [math.inf, math.nan, 0.0, 2.0**-10, 0.0])
    assert trace.scales == [128, 64, 64, 2.0**25, 2.0**25]
    assert parse_policy("patent:init_scale=2^8").loss_scale == 256
    assert trace_overflows(parse_policy("patent:init_scale=2^8"), "O.").scales == [128, 128]


def reference_logmax(amax: list[float], inf_x: float, deviations: float = 3.09) -> list[float]:
    """The published rule in float64, sums written out instead of recursions."""
    xs: list[float] = []
    scales = []
    for value in amax:
        xs.append(math.log2(value) if math.isfinite(value) else inf_x)
        n = len(xs)
        fast = [0.99 ** (n - 1 - i) for i in range(n)]
        slow = [0.999 ** (n - 1 - i) for i in range(n)]
        mean = math.fsum(w * x for w, x in zip(fast, xs, strict=True)) / math.fsum(fast)
        slow_mean = math.fsum(w * x for w, x in zip(slow, xs, strict=True)) / math.fsum(slow)
        square = math.fsum(w * (x - slow_mean) ** 2 for w, x in zip(slow, xs, strict=True)) / math.fsum(slow)
        log2 = 16 - (mean + deviations * math.sqrt(square))
        scales.append(2.0 ** min(max(log2, 0.0), 14.0))
    return scales


@pytest.mark.parametrize(("rule", "inf_x"), [("log2", 16.0), ("published", 65536.0)])
def test_logmax_follows_its_formula(rule: str, inf_x: float) -> None:
    chance = random.Random(3)
    amax = [2.0 ** chance.gauss(3, 1.5) for _ in range(300)]
    amax[150] = math.inf
    policy = parse_policy(f"logmax:inf_rule={rule}")
    scales = []
    for value in amax:
        policy = policy.update(Outcome(math.isfinite(value), value))
        scales.append(policy.loss_scale)
    assert scales == pytest.approx(reference_logmax(amax, inf_x), rel=1e-5)


def test_logmax_is_near_the_librarys_own_fp32_run() -> None:
    """Near, not equal: in FP32 the bias corrections cancel, up to 2 % of S in the second step."""
    compared = 0
    for trace in GOLDEN["amax_traces"]:
        amax = [float(value) for value in trace["amax"]]
        if not all(map(math.isfinite, amax)):
            continue
        settings = ",".join(f"{key}={value}" for key, value in trace["settings"].items())
        ours = trace_amax(parse_policy(f"logmax:inf_rule=published,{settings}".rstrip(",")), amax)
        if ours.skipped:
            continue
        compared += 1
        assert ours.scales == pytest.approx(trace["scales"], rel=0.02)
    assert compared >= 5


def test_as_published_one_inf_pins_the_scale_to_1_for_thousands_of_steps() -> None:
    amax = [2.0**-10] * 1000 + [math.inf] + [2.0**-10] * 14000
    pinned = {
        rule: sum(s == 1 for s in trace_amax(parse_policy(f"logmax:inf_rule={rule}"), amax).scales[1000:])
        for rule in ("published", "log2")
    }
    assert 10_000 < pinned["published"] < 13_000
    assert pinned["log2"] == 0


def test_logmax_passes_over_what_nobody_measured() -> None:
    policy = parse_policy("logmax").update(Outcome(finite=True, amax=2.0**4))
    assert policy.update(Outcome(finite=True, amax=0.0)) == policy
    assert policy.update(Outcome(finite=True)) == policy


def test_histogram_halves_above_its_threshold_and_doubles_below_it() -> None:
    policy = parse_policy("histogram:init_scale=2^8")
    assert policy.large_value == 0.125 * 65504
    assert policy.update(Outcome(True, large_share=1e-7)).loss_scale == 512
    assert policy.update(Outcome(True, large_share=1.1e-7)).loss_scale == 128
    assert policy.update(Outcome(False, large_share=0.0)).loss_scale == 512
    assert policy.update(Outcome(False)).loss_scale == 128


def test_histogram_settles_without_an_overflow() -> None:
    trace = trace_amax(parse_policy("histogram"), [1.0] * 40)
    assert trace.skipped == []
    # 2^13 = 8,192 is above the edge of 8,188, 2^12 below.
    assert set(trace.scales[-10:]) == {2**12, 2**13}


@given(st.floats(min_value=2.0**-120, max_value=2.0**110), st.lists(st.floats(1e-30, 1e6), max_size=5))
def test_logmax_state_survives_whatever_its_bounds_round_to(bound: float, amax: list[float]) -> None:
    policy = parse_policy(f"logmax:min_scale={bound},max_scale={bound * 3}")
    for value in amax:
        policy = policy.update(Outcome(True, value))
        assert parse_policy(format_policy(policy)) == policy


def test_patent_takes_the_smallest_and_largest_numbers() -> None:
    assert trace_amax(parse_policy("patent"), [5e-324, 1.7e308]).scales == [2.0**126, 2.0**-126]


def test_bounds_of_logmax_are_checked_together() -> None:
    with pytest.raises(PolicyError, match=r"init_scale should lie between min_scale \(1\) and max_scale"):
        parse_policy("logmax:init_scale=2^15")
    assert parse_policy("logmax:min_scale=8").loss_scale == 8
