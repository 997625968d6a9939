"""FP16 on the CPU held against FP16 on a GPU: where gradients underflow, and what is learned.

For every task and for S = 1, its constant S and GradScaler's, one run trains on each device from the same
weights on the same batches. What must agree: at the first step, before rounding differences could grow,
each tensor's exponents and flushed share; at the end, the metric. Needs a CUDA device; prints a table and
writes ``results/devices.json``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.timing import RESULTS
from lsviz.analysis.shares import flushed_frame, layer_names, total_flushed_frame
from lsviz.jobs.worker import StopFlag, execute_run
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run, open_run
from lsviz.runs.writer import create_run
from lsviz.training.experiments import EXPERIMENTS, Experiment, Variant

VARIANTS: tuple[Variant, ...] = ("fp32", "none", "constant", "gradscaler")
LONGEST = 1000
"""Steps at most: longer runs would say no more about the device."""


def train(root: str, experiment: Experiment, variant: Variant, device: str) -> str:
    """Train one run on one device and return its folder."""
    config = experiment.config(variant, 0, quick=experiment.steps > LONGEST)
    path = create_run(Path(root), RunConfig.build(**{**config.model_dump(), "device": device}))
    execute_run(path, StopFlag())
    return str(path)


def first_step_rows(cpu: pd.DataFrame, gpu: pd.DataFrame) -> tuple[float, float, float]:
    """Return how far the first step's FP16 gradients are apart on two devices.

    Returns:
        The largest total variation distance between a tensor's two exponent distributions, zeros, Inf and
        NaN being outcomes too; the same for the FP32 references, which is what another order of sums does
        alone; the largest difference between a tensor's two flushed shares.
    """
    apart = {}
    for reference in (False, True):
        spread = [_distributions(frame, reference) for frame in (cpu, gpu)]
        shared = spread[0].keys() & spread[1].keys()
        assert shared
        assert len(shared) == len(spread[0]) == len(spread[1])
        apart[reference] = max(float(np.abs(spread[0][key] - spread[1][key]).sum() / 2) for key in shared)
    shares = [
        flushed_frame(frame[frame["step"] == 0]).set_index(["tensor", "kind"])["flushed"]
        for frame in (cpu, gpu)
    ]
    return apart[False], apart[True], float((shares[0] - shares[1]).abs().max())


def _distributions(frame: pd.DataFrame, reference: bool) -> dict[tuple[str, str], Any]:
    rows = frame[(frame["step"] == 0) & (frame["reference"] == reference)]
    return {
        (str(row["tensor"]), str(row["kind"])): np.array(
            [*row["counts"], row["zero"], row["inf"], row["nan"]], float
        )
        / row["numel"]
        for row in rows.to_dict("records")
    }


def compared(experiment: Experiment, variant: Variant, cpu: Run, gpu: Run) -> dict[str, Any]:
    """Return one row of the table."""
    frames = [run.exponents() for run in (cpu, gpu)]
    row: dict[str, Any] = {"task": experiment.name, "run": variant, "steps": cpu.record.config.steps}
    if variant != "fp32":
        row["apart"], row["apart_fp32"], row["flushed_apart"] = first_step_rows(*frames)
    for name, run, frame in zip(("cpu", "gpu"), (cpu, gpu), frames, strict=True):
        total = total_flushed_frame(flushed_frame(frame), layer_names(frame))["flushed"]
        steps = run.steps()
        row[f"flushed_{name}"] = [float(total.iloc[0]), float(total.iloc[-1])] if len(total) else []
        row[f"metric_{name}"] = float(steps["metric"].dropna().iloc[-1])
        row[f"skipped_{name}"] = int(steps["skipped"].sum())
        row[f"ms_{name}"] = float(steps["ms"].median())
    return row


def main() -> None:
    """Train every pair, print how far they are apart and save it."""
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here: this compares the CPU with one")
    chosen = [e for e in EXPERIMENTS if e.name in sys.argv[1:] or len(sys.argv) == 1]
    wanted = [(e, v) for e in chosen for v in VARIANTS if v in e.variants]
    with (
        tempfile.TemporaryDirectory() as root,
        ProcessPoolExecutor(max(2, (os.cpu_count() or 2) - 1), get_context("spawn")) as pool,
    ):
        trained = [
            (pair, [pool.submit(train, root, *pair, device) for device in ("cpu", "cuda")])
            for pair in sorted(wanted, key=lambda pair: -pair[0].steps)
        ]
        rows = []
        failed = 0
        for pair, runs in trained:
            errors = [str(error) for found in runs if (error := found.exception()) is not None]
            if errors:
                failed += 1
                print(pair[0].name, pair[1], *errors, flush=True)
                continue
            rows.append(compared(*pair, *(open_run(Path(found.result())) for found in runs)))
            print(json.dumps(rows[-1]), flush=True)
    document = {
        "gpu": torch.cuda.get_device_name(),
        "torch": str(torch.__version__),
        "rows": rows,
        "largest": {
            name: max(row[name] for row in rows if name in row)
            for name in ("apart", "apart_fp32", "flushed_apart")
        },
    }
    print(json.dumps(document["largest"]))
    (RESULTS / "devices.json").write_text(json.dumps(document, indent=1) + "\n")
    if failed:
        sys.exit(f"{failed} pairs failed")


if __name__ == "__main__":
    main()
