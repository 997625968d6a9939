"""Commands that train many runs: ``lsviz sweep`` and ``lsviz reproduce``. No torch in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from lsviz import options
from lsviz.analysis.compare import run_label
from lsviz.analysis.reproduction import headline, paper_frame, verdict_frame
from lsviz.analysis.results import failed_result, run_result, spread_frame
from lsviz.console import (
    SweepProgress,
    frame_records,
    print_error,
    print_json,
    reproduction_table,
    sweep_table,
)
from lsviz.errors import UserError
from lsviz.jobs.doctor import machine
from lsviz.jobs.sweep import SweepResult, run_sweep
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import RunError
from lsviz.runs.reproduction import FILE_NAME, Reproduction, RunResult, save_reproduction
from lsviz.runs.store import default_root
from lsviz.training.catalog import find_task
from lsviz.training.experiments import curve_configs, planned_runs

MAX_SEEDS = 1000
STOPPED = 130
ENGINES = ("local", "ray")


def sweep(
    task: options.Task,
    policies: Annotated[
        str, typer.Option(help='Loss-scaling policies, separated by semicolons: "none;constant:1024".')
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    precision: options.Precision = "fp16",
    device: options.Device = "auto",
    steps: options.Steps = None,
    loss_weight: options.LossWeight = 1.0,
    init_gain: options.InitGain = 1.0,
    optimizer: options.Optimizer = "task",
    lr: options.LearningRate = None,
    update: options.Update = "unscale",
    clip: options.Clip = None,
    clip_order: options.ClipOrder = "after",
    l2: options.L2 = 0.0,
    l2_order: options.L2Order = "after",
    on_overflow: options.OnOverflow = "skip",
    master_weights: options.MasterWeights = True,
    check_update: options.CheckUpdate = False,
    record_every: options.RecordEvery = 10,
    reference_every: options.ReferenceEvery = 10,
    inject: options.Inject = "",
    engine: options.Engine = "local",
    address: options.Address = None,
    gpus: options.Gpus = 1.0,
    jobs: options.Jobs = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Train every policy with every seed; running it again continues what is missing."""
    if engine not in ENGINES:
        raise UserError(f"engine: {engine!r} is unknown; choose {' or '.join(ENGINES)}")
    if engine == "local" and address is not None:
        raise UserError("address: it is a Ray cluster's; give --engine ray too")
    spec = find_task(task)
    texts = [text for part in policies.split(";") if (text := part.strip())]
    if not texts:
        raise UserError('policies: none is named; give some as "none;constant:1024;gradscaler"')
    configs = [
        RunConfig.build(
            task=task,
            policy=text,
            precision=precision,
            device=device,
            steps=spec.steps if steps is None else steps,
            seed=seed,
            loss_weight=loss_weight,
            init_gain=init_gain,
            optimizer=optimizer,
            lr=lr,
            update=update,
            clip=clip,
            clip_order=clip_order,
            l2=l2,
            l2_order=l2_order,
            on_overflow=on_overflow,
            master_weights=master_weights,
            check_update=check_update,
            record_every=record_every,
            reference_every=reference_every,
            inject=inject,
        )
        for text in texts
        for seed in parse_seeds(seeds)
    ]
    for warning in dict.fromkeys(w for config in configs for w in config.warnings(spec.optimizer)):
        print_error(f"warning: {warning}")
    root = out or default_root()
    if engine == "ray":
        done = _train_on_ray(root, configs, jobs, address, gpus)
    else:
        done = train_all(root, configs, jobs)
    plan = [(config.task, run_label(config), config) for config in dict.fromkeys(configs)]
    results = _results(plan, done)
    table = spread_frame(results)
    if as_json:
        paths = {run.run_id: str(run.path.resolve()) for run in done.runs.values()}
        runs = [{**r.model_dump(exclude={"history"}), "path": paths.get(r.run_id)} for r in results]
        print_json({"task": task, "runs": runs, "table": frame_records(table), "reused": done.reused})
    else:
        sweep_table(table)
    _tell_end(done, results)


def reproduce(
    quick: Annotated[
        bool, typer.Option("--quick", help="One seed and fewer steps: 3 minutes on two cores in place of 25.")
    ] = False,
    jobs: options.Jobs = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=options.read_folder,
            metavar="FOLDER",
            help="Folder that holds the runs and their result, reproduce.json.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train what Mixed Precision Training found, in small: every task x policies x three seeds."""
    root = out or default_root() / "reproduce"
    plan = [
        (experiment.name, str(variant), config) for experiment, variant, config in planned_runs(quick=quick)
    ]
    curve = [] if quick else [("u-curve", run_label(config), config) for config in curve_configs()]
    started = time.monotonic()
    done = train_all(root, [config for _, _, config in [*plan, *curve]], jobs)
    document = Reproduction(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=quick,
        seconds=round(time.monotonic() - started, 1),
        reused=done.reused,
        stopped=done.stopped,
        machine=machine(),
        versions=versions_of(done),
        results=_results(plan, done),
        curve=_results(curve, done),
    )
    if as_json:
        table = frame_records(verdict_frame(document.results))
        print_json({**document.model_dump(), "headline": headline(document), "table": table})
    else:
        reproduction_table(document, paper_frame(document))
    if not done.stopped:
        save_reproduction(root / FILE_NAME, document)
    _tell_end(done, [*document.results, *document.curve])


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of a comma-separated text, each once.

    Raises:
        UserError: One is no whole number, or there are none or too many.
    """
    try:
        seeds = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"seeds: {text!r} must be whole numbers separated by commas, as 0,1,2") from None
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise UserError(f"seeds: give 1 to {MAX_SEEDS:,} of them, as 0,1,2; got {len(seeds):,}")
    return list(dict.fromkeys(seeds))


def train_all(root: Path, configs: Sequence[RunConfig], jobs: int | None) -> SweepResult:
    """Train what is missing, in processes of their own, and show how far that is."""
    with SweepProgress(len(dict.fromkeys(configs))) as progress:
        return run_sweep(root, configs, jobs=jobs, started=progress.start, observe=progress.observe)


def _train_on_ray(
    root: Path, configs: Sequence[RunConfig], jobs: int | None, address: str | None, gpus: float
) -> SweepResult:
    from lsviz.jobs.ray import ray_crew

    with SweepProgress(len(dict.fromkeys(configs))) as progress:
        crew = ray_crew(address, gpus, stepped=progress.advance, warn=print_error)
        return run_sweep(
            root, configs, jobs=jobs, started=progress.start, observe=progress.observe, recruit=crew
        )


def _results(plan: Sequence[tuple[str, str, RunConfig]], done: SweepResult) -> list[RunResult]:
    """Return a row for each planned run that ended; what an interruption left out is missing."""
    results = []
    for experiment, variant, config in plan:
        if config in done.runs:
            try:
                result = run_result(done.runs[config], experiment, variant)
            except RunError as gone:  # since it finished
                result = failed_result(config, str(gone), experiment, variant)
            results.append(result)
        elif config in done.failed:
            results.append(failed_result(config, done.failed[config], experiment, variant))
    return results


def versions_of(done: SweepResult) -> dict[str, str]:
    """Return the versions that the runs were made with; several, where they differ."""
    seen: dict[str, dict[str, None]] = {}
    for run in done.runs.values():
        for name, version in run.record.versions.items():
            seen.setdefault(name, {})[version] = None
    return {name: ", ".join(versions) for name, versions in seen.items()}


def _tell_end(done: SweepResult, results: Sequence[RunResult]) -> None:
    told = set(done.failed.values())  # as they happened
    for result in results:
        if result.error and result.error not in told:
            print_error(f"{result.experiment}, {result.variant}, seed {result.seed}: {result.error}")
    if done.stopped:
        print_error("stopped; the same command goes on with what is missing")
        raise typer.Exit(STOPPED)
    if any(result.error for result in results):
        raise typer.Exit(1)
