"""Counting the exponents of 8 M values: against torch.histc (as wandb.watch counts) and one abs-max pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.timing import median_seconds, report, save
from lsviz.training.counting import count_exponents

VALUES = 8_000_000


def main() -> None:
    """Measure FP32 and FP16 values and save the ratios."""
    torch.manual_seed(0)
    single = torch.randn(VALUES) * torch.exp2(torch.randint(-30, 3, (VALUES,)).float())
    tables = {}
    for name, values in (("FP32", single), ("FP16", single.half())):
        floats = values.float()
        array = floats.numpy()
        ways: dict[str, Callable[[], object]] = {
            "torch.histc, 64 linear bins": lambda f=floats: torch.histc(f, bins=64),  # type: ignore[misc]
            "x.abs().max()": lambda v=values: v.abs().max(),  # type: ignore[misc]
            "numpy.histogram, 64 bins": lambda a=array: np.histogram(a, bins=64),  # type: ignore[misc]
            "count_exponents": lambda v=values: count_exponents(v),  # type: ignore[misc]
            "count_exponents, with rounding": lambda v=values: count_exponents(v, rounding=True),  # type: ignore[misc]
        }
        title = f"{VALUES:,} values, {name}"
        tables[title] = report(
            title, "torch.histc, 64 linear bins", median_seconds(ways, rounds=5, warm_up=1)
        )
    save("counting", tables)


if __name__ == "__main__":
    main()
