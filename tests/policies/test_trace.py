from __future__ import annotations

import math

import pytest
import torch

from lsviz.errors import UserError
from lsviz.policies import (
    POLICIES,
    Constant,
    NoScaling,
    parse_amax,
    parse_policy,
    trace_amax,
    trace_overflows,
)

GradScaler = POLICIES["gradscaler"]


def test_constants_skip_and_stay() -> None:
    trace = trace_overflows(Constant(scale=8), ".O.")
    assert trace.scales == [8, 8, 8]
    assert trace.skipped == [1]


def test_amax_overflows_where_the_cast_does() -> None:
    values = [65504.0, 65519.9, 65520.0, 1e9, 0.0]
    trace = trace_amax(NoScaling(), values)
    casts = torch.tensor(values, dtype=torch.float64).float().half().isinf()
    assert trace.skipped == [i for i, over in enumerate(casts) if over]


def test_amax_knows_the_scale_of_each_step() -> None:
    trace = trace_amax(GradScaler(init_scale=2.0**4, growth_interval=2), [1e4, 1e4, 1e4, math.inf, math.nan])
    assert trace.skipped == [0, 1, 3, 4]
    assert trace.scales == [8, 4, 4, 2, 1]


def test_a_strange_pattern_is_refused() -> None:
    with pytest.raises(UserError, match=r"only O \(overflow\) and \. \(clean\), got 'x' at position 2"):
        trace_overflows(NoScaling(), "O.x")
    with pytest.raises(UserError, match=r"can't be negative, got -1\.0 at step 0"):
        trace_amax(NoScaling(), [-1.0])


def test_counters_are_told_at_every_step() -> None:
    trace = trace_overflows(parse_policy("megatron:growth_interval=3"), "O..O")
    assert trace.counters == [
        {"clean_steps": 0, "overflows": 1},
        {"clean_steps": 1, "overflows": 1},
        {"clean_steps": 2, "overflows": 1},
        {"clean_steps": 0, "overflows": 2},
    ]


def torch_weight_after(pattern: str, init_scale: float) -> float:
    """A weight after real GradScaler steps, whose loss is never scaled by a number that FP32 lacks."""
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for char in pattern:
        scaler.scale(weight.sum())
        weight.grad = torch.full((1,), math.inf if char == "O" else 1.0)
        scaler.step(optimizer)
        scaler.update()
    return float(weight.detach())


@pytest.mark.parametrize("overflows", range(6))
def test_the_warning_comes_where_torch_would_corrupt_the_weights(overflows: int) -> None:
    pattern = "O" * overflows + "."
    trace = trace_overflows(parse_policy("gradscaler:init_scale=2^-125"), pattern)
    corrupt = not math.isfinite(torch_weight_after(pattern, 2.0**-125))
    assert (trace.unsafe_at is not None) == corrupt == (overflows >= 3)
    assert ("1/S is infinite" in trace.warning) == corrupt


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_traced_both_ways(name: str) -> None:
    policy = POLICIES[name]()
    assert len(trace_overflows(policy, "..O..O...").scales) == 9
    assert len(trace_amax(policy, [0.5, 0.0, math.inf, math.nan, 2**-30, 1e-3]).scales) == 6


def test_a_scale_that_is_0_from_the_start_is_warned_of() -> None:
    trace = trace_overflows(parse_policy("gradscaler:scale=0"), ".")
    assert trace.unsafe_at == 0
    assert "at step 0 S is 0 and 1/S is infinite" in trace.warning


def test_lists_of_largest_gradients() -> None:
    assert parse_amax("0.5 2^-10,inf\n3") == [0.5, 2.0**-10, math.inf, 3]
    with pytest.raises(UserError, match=r"numbers such as 0\.5, 2\^-10 or inf, got 'x'"):
        parse_amax("1 x")
