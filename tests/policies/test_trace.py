from __future__ import annotations

import math

import pytest
import torch

from lsviz.errors import UserError
from lsviz.policies import Constant, GradScaler, NoScaling, trace_amax, trace_overflows


def test_the_golden_trace() -> None:
    policy = GradScaler(init_scale=2.0**8, growth_interval=4)
    trace = trace_overflows(policy, "OO....O.........O.O.....")
    expected = [7, 6, 6, 6, 6, 7, 6, 6, 6, 6, 7, 7, 7, 7, 8, 8, 7, 7, 6, 6, 6, 6, 7, 7]
    assert [int(math.log2(s)) for s in trace.scales] == expected
    assert trace.skipped == [0, 1, 6, 16, 18]
    assert trace.raised_at is None


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
