"""A run of 10,000 steps x 100 tensors, all tables: what writing takes, what it weighs, how soon it is read.

Against the same histograms as TensorBoard's add_histogram_raw writes and stores them, for a tenth of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.timing import median_seconds, report, save
from lsviz.exponents import EXPONENTS, ExponentHistogram
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import open_run
from lsviz.runs.schema import ExponentRow, StepRow
from lsviz.runs.series import AmaxRows, OutcomeRow, TensorName
from lsviz.runs.writer import RunWriter, create_run

STEPS, TENSORS = 10_000, 100
NAMES = tuple(TensorName(f"layer{i:03d}", "activation_grad", "float16", True) for i in range(TENSORS))
SHARE = 10
"""TensorBoard gets one of so many steps."""


class MadeUp:
    """Histograms of normal values whose size drifts, and that are never twice the same, as gradients do."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        values = [self._random.normal(size=4096) * 2.0 ** -(k % 40) for k in range(200)]
        self._expected = np.stack([ExponentHistogram.of(v).counts for v in values])

    def at(self, step: int) -> list[ExponentHistogram]:
        """Return the histograms of a step, one a tensor, as FP16 gradients have them."""
        places = (step // 50 + np.arange(TENSORS)) % len(self._expected)
        counts = self._random.poisson(self._expected[places])
        return [ExponentHistogram(row, amax=1.0) for row in counts]

    def largest(self, step: int) -> AmaxRows:
        """Return the largest magnitudes of a step, FP32 values of any significand."""
        amax = np.exp2(self._random.normal(size=TENSORS)).astype(np.float32).astype(np.float64)
        none = np.zeros(TENSORS, np.int64)
        return AmaxRows(step, False, NAMES, np.full(TENSORS, 1024.0), amax, none, none)


def write(root: Path, histograms: MadeUp) -> tuple[Path, float, float]:
    """Write the run and return its folder and the seconds of its steps and of its end."""
    path = create_run(root, RunConfig.build(task="made-up", steps=STEPS))
    taken = 0.0
    with RunWriter(path) as writer:
        for step in range(STEPS):
            rows = [
                ExponentRow(step, f"layer{i:03d}", "activation_grad", False, 1024.0, histogram)
                for i, histogram in enumerate(histograms.at(step))
            ]
            amax = histograms.largest(step)
            started = time.perf_counter()
            writer.append(
                StepRow(step, 1.0, None, 1024.0, True, False, 1e-3, 1.0, 1.0, 0.1),
                rows,
                amax=[amax],
                outcomes=[OutcomeRow(step, 1024.0, True)],
            )
            taken += time.perf_counter() - started
        started = time.perf_counter()
        writer.end("finished")
    return path, taken, time.perf_counter() - started


def write_to_tensorboard(folder: Path, histograms: MadeUp) -> float:
    """Write a share of the same and return the seconds, for all of it."""
    from torch.utils.tensorboard import SummaryWriter

    made = [histograms.at(step) for step in range(STEPS // SHARE)]
    started = time.perf_counter()
    with SummaryWriter(folder) as writer:
        for step, row in enumerate(made):
            for i, histogram in enumerate(row):
                counts = histogram.counts
                writer.add_histogram_raw(
                    f"layer{i:03d}", 0.0, 1.0, int(counts.sum()), 0.0, 0.0,
                    np.exp2(EXPONENTS + 1.0), counts, step,
                )  # fmt: skip
    return (time.perf_counter() - started) * SHARE


def size_of(folder: Path) -> float:
    """Return the size of all files in a folder, in MB."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def main() -> None:
    """Measure, print and save."""
    histograms = MadeUp()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path, live, end = write(root, histograms)
        seconds = live + end
        figures = {
            "us a step to write": live / STEPS * 1e6,
            "us a step to put together at the end": end / STEPS * 1e6,
            "MB": size_of(path),
        }
        run = open_run(path)
        reads: dict[str, Callable[[], object]] = {
            "one tensor, all steps": lambda: run.exponents(tensor="layer050"),
            "all tensors, one step": lambda: run.exponents(steps=[5000]),
            "largest magnitudes, all of them": run.amax,
            "whole exponents.parquet": lambda: run.exponents(columns=["step", "tensor", "counts"]),
        }
        ratios = report(
            f"reading {STEPS:,} steps x {TENSORS} tensors",
            "whole exponents.parquet",
            median_seconds(reads, rounds=5, warm_up=1),
        )
        for name, value in figures.items():
            print(f"  {name:38s} {value:10.1f}")
        tables = {"read": ratios, "figures": figures}
        try:
            taken = write_to_tensorboard(root / "tensorboard", histograms)
        except ImportError:
            print("TensorBoard is not installed (pip install tensorboard): left out")
        else:
            weight = size_of(root / "tensorboard") * SHARE
            tables["against TensorBoard"] = {
                "time to write": seconds / taken,
                "size": figures["MB"] / weight,
            }
            print(f"  against TensorBoard: time {seconds / taken:.2f} x, size {figures['MB'] / weight:.2f} x")
    save("store", tables)


if __name__ == "__main__":
    main()
