"""Counting the exponents of 8 M values: against what others count with, and one pass over the memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import median_seconds, report, save
from lsviz.training.counting import Seat, count_exponents, histograms
from lsviz.training.ondevice import count_together

VALUES = 8_000_000


def ways_to_count(values: Tensor) -> dict[str, Callable[[], object]]:
    """Return ways to count one tensor; those that take no half get it as FP32."""
    floats = values.float()
    array = floats.numpy()
    fields = (floats.view(torch.int32) >> 23) & 255
    return {
        "torch.histc, 64 linear bins": lambda: torch.histc(floats, bins=64),
        "torch.bincount of exponent fields": lambda: torch.bincount(fields, minlength=256),
        "numpy.histogram, 64 bins": lambda: np.histogram(array, bins=64),
        "x.abs().max()": lambda: values.abs().max(),
        "count_exponents": lambda: count_exponents(values),
        "count_exponents, with rounding": lambda: count_exponents(values, rounding=True),
        "count_exponents by torch operations": lambda: histograms([Seat(count_together([values]), 0)]),
    }


def main() -> None:
    """Measure values over 33 binades and values like a layer's gradients, in FP32 and FP16."""
    torch.manual_seed(0)
    wide = torch.randn(VALUES) * torch.exp2(torch.randint(-30, 3, (VALUES,)).float())
    layer = torch.randn(VALUES) * 1e-3
    tables = {}
    for shape, single in (("33 binades", wide), ("normal, sigma 1e-3", layer)):
        for name, values in (("FP32", single), ("FP16", single.half())):
            title = f"{VALUES:,} values, {name}, {shape}, {torch.get_num_threads()} threads"
            seconds = median_seconds(ways_to_count(values), rounds=5, warm_up=1, at_once=6)
            tables[title] = report(title, "torch.histc, 64 linear bins", seconds)
            to_pass = seconds["count_exponents"] / seconds["x.abs().max()"]
            print(f"  count_exponents against one x.abs().max(): {to_pass:.2f} x")
            tables[title]["count_exponents / x.abs().max()"] = to_pass
    save("counting", tables)


if __name__ == "__main__":
    main()
