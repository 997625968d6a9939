"""Commands that keep house among runs: compare, rm, export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lsviz import options
from lsviz.cli_analysis import RunName, Runs, find_run, tell_problems
from lsviz.console import differences_table, frame_records, print_error, print_json
from lsviz.errors import UserError
from lsviz.runs.reader import Run
from lsviz.runs.showing import showable
from lsviz.runs.store import RunStore, default_root, samples_root

RunNames = Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, or ids of runs.")]


def compare(names: RunNames, runs: Runs = None, as_json: options.Json = False) -> None:
    """Tell which settings and results differ between runs."""
    from lsviz.analysis.compare import difference_frame, run_labels, settings_and_results
    from lsviz.jobs.manager import live_status

    found = [find_run(name, runs) for name in names]
    rows = [settings_and_results(run.record, run.steps(), live_status(run)) for run in found]
    if as_json:
        by_run = difference_frame([run.run_id for run in found], rows).T
        records = frame_records(by_run)
        print_json([{"run_id": run.run_id, **record} for run, record in zip(found, records, strict=True)])
    else:
        labels = [run.labels.name for run in found]
        told = run_labels([run.record for run in found])
        shown = [name or label for name, label in zip(labels, told, strict=True)]
        differences_table(difference_frame(shown, rows))
    for run in found:
        tell_problems(run)


def remove(
    names: RunNames,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    runs: Runs = None,
) -> None:
    """Delete runs, once you said yes. Live runs and shipped samples stay."""
    from lsviz.jobs.removal import delete_run, refuse_to_delete

    found = {run.path.resolve(): run for run in (find_run(name, runs) for name in names)}
    for run in found.values():
        reason = refuse_to_delete(run)
        if reason is not None:  # before any is gone
            raise UserError(reason)
    if not yes:
        for run in found.values():
            name = f", {run.labels.name}" if run.labels.name else ""
            print(showable(f"{run.run_id}: {run.config.policy} on {run.config.task}{name}"))
        number = "this run" if len(found) == 1 else f"these {len(found)} runs"
        typer.confirm(f"Delete {number}? Nothing brings it back.", abort=True)
    for run in found.values():
        delete_run(run)


def export(
    run: RunName,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="The zip to write; of every other format, a folder for its files."),
    ],
    fmt: Annotated[
        str,
        typer.Option(
            "--format",
            help="zip (for lsviz import), csv or parquet (tables), tensorboard (an event file), "
            "wandb (an offline run, for wandb sync).",
        ),
    ] = "zip",
    runs: Runs = None,
) -> None:
    """Write a run to a zip that another lsviz imports, or for other programs."""
    from lsviz.runs.exchange import save_tables, save_zip

    found = find_run(run, runs)
    if fmt == "zip":
        from lsviz.jobs.manager import live_status

        live_status(found)  # marks one whose process died as ended
        save_zip(found, out)
        written = [out]
    elif fmt in ("tensorboard", "wandb"):
        written = [_save_dashboard(found, fmt, out)]
    else:
        written = save_tables(found, fmt, out)
    for path in written:
        print(path.resolve())
    tell_problems(found)


def _save_dashboard(run: Run, fmt: str, out: Path) -> Path:
    from lsviz.analysis.shares import COUNTED_COLUMNS, flushed_frame
    from lsviz.runs.eventfiles import save_events
    from lsviz.runs.wandbfiles import save_wandb

    save = save_events if fmt == "tensorboard" else save_wandb
    return save(run, flushed_frame(run.exponents(columns=COUNTED_COLUMNS)), out)


def import_runs(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Zips that lsviz export or the page Runs wrote; run folders; TensorBoard's event files and "
            "log folders; logs of torch.amp in JSON, a list of objects or an object a line.",
        ),
    ],
    runs: Annotated[Path | None, typer.Option(help="Folder that the runs go into.")] = None,
    gradients: Annotated[
        str,
        typer.Option(
            help="Histograms of gradients in event files: unscaled (logged after scaler.unscale_ or "
            "scaler.step) or scaled (straight after backward)."
        ),
    ] = "unscaled",
) -> None:
    """Take in exported runs and logs of other programs; one whose id is taken gets a fresh one."""
    from lsviz.runs.foreignrun import GRADIENTS
    from lsviz.runs.incoming import import_path

    if gradients not in GRADIENTS:
        raise UserError(f"unknown gradients {gradients!r}; choose one of: {', '.join(GRADIENTS)}")
    store = RunStore.at(runs or default_root(), samples_root())
    wrong: list[str] = []
    for path in files:
        came: list[Run] = []
        try:
            came, reasons = import_path(path, store, gradients)
        except OSError as error:
            reasons = [f"can't read {str(path)!r}: {error.strerror}"]
        except UserError as error:
            reasons = [str(error)]
        for run in came:
            if run.record.source:
                print_error(f"note: {run.record.source}")
            print(run.path.resolve())
        for reason in reasons:
            print_error(reason)
        wrong += reasons
    if wrong:
        raise typer.Exit(2)
