"""Small exact experiments behind lessons: sums in FP16, and gradients accumulated while S changes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lsviz.policies import parse_policy, trace_overflows

SUM_STEPS = 1000


def half_sum_frame(power: int, steps: int = SUM_STEPS) -> pd.DataFrame:
    """Return what becomes of a weight of 1 to which 2^power is added again and again.

    Args:
        power: Binary exponent of the update.
        steps: How many updates.

    Returns:
        Columns step (from 0, before the first update), fp16 and fp32: the weight as each format keeps it,
        really added and rounded in it.
    """
    update = np.float32(2.0**power)
    half, single = [np.float16(1)], [np.float32(1)]
    for _ in range(steps):
        half.append(np.float16(np.float32(half[-1]) + update))
        single.append(np.float32(single[-1] + update))
    return pd.DataFrame(
        {"step": range(steps + 1), "fp16": np.array(half, float), "fp32": np.array(single, float)}
    )


def half_sum_table(power: int) -> pd.DataFrame:
    """Return the exact numbers about an update of a weight of 1, as FP16 has them.

    Returns:
        Columns ``what`` and ``value``.
    """
    one, update = np.float16(1), np.float16(2.0**power)
    rows = [
        ("the update", float(update)),
        ("1 + the update, in FP16", float(one + update)),
        ("the next FP16 number above 1", float(np.nextafter(one, np.float16(2)))),
    ]
    return pd.DataFrame(rows, columns=["what", "value"])


def accumulation_frame(batches: int, doubles_after: int) -> pd.DataFrame:
    """Return with which weight each micro-batch enters an accumulated gradient.

    gradscaler is asked for a new S after every micro-batch, and doubles it after so many; the sum is
    divided by the last S that a gradient was scaled with.

    Args:
        batches: Micro-batches in one update.
        doubles_after: Clean micro-batches before S doubles (the growth interval).

    Returns:
        Columns batch (from 1), loss_scale, each (its weight where S is updated at each micro-batch; 1 is
        right) and once (where it is updated once, after the last).
    """
    policy = parse_policy(f"gradscaler:init_scale=2^10,growth_interval={doubles_after}")
    scales = [policy.loss_scale, *trace_overflows(policy, "." * batches).scales][:batches]
    return pd.DataFrame(
        {
            "batch": range(1, batches + 1),
            "loss_scale": scales,
            "each": [scale / scales[-1] for scale in scales],
            "once": 1.0,
        }
    )
