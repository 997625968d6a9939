"""A training step in FP16 on the CPU: the engine against FP32 and against torch's own CPU half.

The step is the task's own: forward, loss, backward from loss x 1024, unscaling and the check for Inf and
NaN, the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.timing import median_seconds, report, save
from lsviz.runs.config import RunConfig
from lsviz.training.engine import Engine
from lsviz.training.memory import keep_freed_memory
from lsviz.training.step import TrainingStep
from lsviz.training.tasks.base import build_task

TASKS = {"char-gpt": (1, 15), "digits-cnn": (10, 15), "sigmoid-mlp": (20, 15)}
"""Steps at a time, rounds."""


def training_steps(name: str, precision: str, steps: int, *, own_half: bool = False) -> Callable[[], None]:
    """Return some steps of a task as one: a run puts the engine's kernels in place once, not at each."""
    torch.manual_seed(0)
    task = build_task(name)
    policy = "none" if precision == "fp32" else "constant:1024"
    config = RunConfig.build(task=name, precision=precision, policy=policy)
    engine = Engine.resolve(config.precision, "cpu")
    once = TrainingStep(task, task.build_model(), config, engine)
    batches = task.batches(0)
    number = 0

    def run() -> None:
        nonlocal number
        for _ in range(steps):
            number += 1
            once.take(next(batches), 10 * number + 1, config.initial_policy)  # never a recorded step

    def with_engine() -> None:
        with engine.active():
            run()

    return run if own_half else with_engine


def main() -> None:
    """Measure three tasks and save the ratios."""
    keep_freed_memory()  # as every process that trains for lsviz does, whatever the precision
    tables = {}
    for name, (steps, rounds) in TASKS.items():
        threads = build_task(name).spec.threads
        before = torch.get_num_threads()
        torch.set_num_threads(threads or before)
        ways: dict[str, Callable[[], object]] = {
            "FP32": training_steps(name, "fp32", steps),
            "FP16, this engine": training_steps(name, "fp16", steps),
            "FP16, torch's own CPU half": training_steps(name, "fp16", steps, own_half=True),
        }
        title = f"{name}, {steps} steps, {threads or before} threads"
        tables[title] = report(title, "FP32", median_seconds(ways, rounds))
        torch.set_num_threads(before)
    save("engine", tables)


if __name__ == "__main__":
    main()
