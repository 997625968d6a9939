"""``lsviz lab``: the ways to update weights, side by side; ``lsviz updates``: one run's. No torch here."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from lsviz import options
from lsviz.analysis.lab import failed_variant, lab_finding, run_verdict, variant_result
from lsviz.cli_analysis import RunName, Runs, find_run
from lsviz.cli_sweep import STOPPED, train_all, versions_of
from lsviz.console import print_error, print_json
from lsviz.console_lab import lab_table, updates_table
from lsviz.errors import UserError
from lsviz.jobs.doctor import machine
from lsviz.jobs.sweep import SweepResult
from lsviz.runs.config import ConfigError, RunConfig
from lsviz.runs.lab import FILE_NAME, Lab, VariantResult, save_lab
from lsviz.runs.reader import Run, RunError
from lsviz.runs.store import default_root
from lsviz.training.lab import CLIP, L2, POLICY, TASK, LabSettings, LabVariant, planned_variants

Optimizer = Annotated[
    str | None,
    typer.Option(help="sgd, momentum, adam or adamw for all; by default sgd, and adam where it differs."),
]
LearningRate = Annotated[float | None, typer.Option(help="Its learning rate; the usual one by default.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        parser=options.read_folder,
        metavar="FOLDER",
        help="Folder that holds the runs and their result, lab.json.",
    ),
]


def lab(
    task: options.Task = TASK,
    policy: Annotated[str, typer.Option(help="Loss-scaling policy of all of them.")] = POLICY,
    steps: options.Steps = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and dropout.")] = 0,
    optimizer: Optimizer = None,
    lr: LearningRate = None,
    clip: Annotated[float, typer.Option(help="Threshold of those that clip.")] = CLIP,
    l2: Annotated[float, typer.Option(help="Penalty of those that have one.")] = L2,
    jobs: options.Jobs = None,
    out: Folder = None,
    as_json: options.Json = False,
) -> None:
    """Train every way to update the weights, each beside the right one in float64."""
    if optimizer == "task":
        raise ConfigError("optimizer: name one (sgd, momentum, adam or adamw), or leave it out")
    plan = planned_variants(LabSettings(task, policy, steps, seed, optimizer, lr, clip, l2))
    root = out or default_root() / "lab"
    started = time.monotonic()
    done = train_all(root, [config for _, config in plan], jobs)
    document = Lab(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=task,
        policy=plan[0][1].policy,
        seed=seed,
        clip=clip,
        l2=l2,
        seconds=round(time.monotonic() - started, 1),
        reused=done.reused,
        stopped=done.stopped,
        machine=machine(),
        versions=versions_of(done),
        variants=[result for variant, config in plan if (result := _result(variant, config, done))],
    )
    if as_json:
        told = document.model_dump(exclude={"variants": {"__all__": {"curve", "counts", "moved"}}})
        print_json({**told, "finding": lab_finding(document)})
    else:
        lab_table(document)
    if done.stopped:
        print_error("stopped; the same command goes on with what is missing")
        raise typer.Exit(STOPPED)
    save_lab(root / FILE_NAME, document)
    if any(result.error for result in document.variants):
        raise typer.Exit(1)


def updates(run: RunName, runs: Runs = None, as_json: options.Json = False) -> None:
    """Tell how a run's weight updates compare with the right ones in float64."""
    found = find_run(run, runs)
    frame = found.updates()
    if frame.empty:
        raise UserError(_no_updates(found))
    summary, sentence = run_verdict(found, frame)
    if as_json:
        rows = frame.assign(counts=frame["counts"].map(list), moved=frame["moved"].map(list))
        finite = rows.astype(object).where(rows.notna() & ~rows.isin([float("inf")]), None)
        told = [{str(key): _plain(value) for key, value in row.items()} for row in finite.to_dict("records")]
        print_json({"run_id": found.run_id, **summary, "verdict": sentence, "updates": told})
    else:
        updates_table(summary, sentence, frame)
    for problem in found.problems:
        print_error(f"warning: {problem}")


def _result(variant: LabVariant, config: RunConfig, done: SweepResult) -> VariantResult | None:
    """Return what a planned run came to; None where an interruption left it out."""
    if config in done.runs:
        try:
            return variant_result(variant, done.runs[config])
        except RunError as gone:  # since it finished
            return failed_variant(variant, config, str(gone))
    return failed_variant(variant, config, done.failed[config]) if config in done.failed else None


def _no_updates(run: Run) -> str:
    if run.config.check_update:
        return f"{run.run_id} has no update to tell of yet, or all its steps were skipped"
    return f"{run.run_id} did not check its updates; train one that does: lsviz run --check-update"


def _plain(value: object) -> object:
    return [int(number) for number in value] if isinstance(value, list) else value
