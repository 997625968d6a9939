"""Commands that read a recorded run and train nothing; none of them needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsviz import options
from lsviz.console import print_error, print_json
from lsviz.console_analysis import recommendation_table, whatif_table
from lsviz.errors import UserError
from lsviz.formats import parse_format
from lsviz.policies import parse_number
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore, default_root, samples_root

if TYPE_CHECKING:
    from lsviz.analysis.whatif import Histograms

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or id of a run.")]
Runs = Annotated[Path | None, typer.Option(help="Folder that holds the runs named by id.")]
Format = Annotated[str, typer.Option("--format", help="fp16, bf16, e4m3 or e5m2.")]


def find_run(name: str, runs: Path | None) -> Run:
    """Return the run of a folder, or of an id in the folder of runs; without one named, of a sample too.

    Raises:
        RunError: There is none, or it can't be read.
    """
    if Path(name, "run.json").exists():
        return open_run(name)
    store = RunStore.at(default_root(), samples_root()) if runs is None else RunStore.at(runs)
    return store.find(name)


def whatif(
    run: RunName,
    scales: Annotated[str, typer.Option(help="Loss scales, as 1,8,2^10; each from 2^-10 to 2^40.")],
    fmt: Format = "fp16",
    step: Annotated[
        int | None, typer.Option(help="Only this step; all of them by default, as a table the last.")
    ] = None,
    runs: Runs = None,
    as_json: options.Json = False,
) -> None:
    """Tell what a cast would do to a run's gradients at other loss scales."""
    from lsviz.analysis.whatif import READ_COLUMNS, SHARES, WHATIF_COLUMNS, Histograms, whatif_frame

    given, target = _scales(scales), parse_format(fmt)
    found = find_run(run, runs)
    steps = None if step is None else [step]
    exponents = found.exponents(steps=steps, columns=READ_COLUMNS)
    if step is not None and exponents.empty:
        raise UserError(_no_such_step(step, found.recorded_steps()))
    rows = Histograms.of(exponents)
    frame = whatif_frame(rows, given, target)
    if as_json:
        bounds = [f"{name}_{end}" for name in SHARES for end in ("low", "high")]
        print_json(
            [
                {name: row[name] for name in (*WHATIF_COLUMNS, "exact", *([] if row["exact"] else bounds))}
                for row in frame.to_dict("records")
            ]
        )
    else:
        whatif_table(frame[frame["step"] == frame["step"].max()], target)
    tell_caution(rows)
    tell_problems(found)


def recommend(
    run: RunName,
    fmt: Format = "fp16",
    threshold: Annotated[
        float, typer.Option(help="Share of a tensor's values that may be flushed over the run.")
    ] = 0.01,
    runs: Runs = None,
    as_json: options.Json = False,
) -> None:
    """Tell which loss scale a run's own gradients ask for, and why."""
    from lsviz.analysis.limits import advice, judge_run

    found = find_run(run, runs)
    judged = judge_run(found, parse_format(fmt), threshold=threshold)
    rows, recommendation, _ = judged.asked
    if as_json:
        told = {
            "run_id": found.run_id,
            "advice": advice(found.config, judged),
            "keeps": judged.keeps,
            **recommendation.to_dict(),
            "censored": rows.censored,
            "limits": judged.limits.to_dict(),
            "cautions": judged.cautions,
        }
        print_json(told)
    else:
        recommendation_table(found.config, judged)
    tell_caution(rows)
    for caution in judged.cautions:
        print_error(f"note: {caution}")
    tell_problems(found)


def _scales(text: str) -> list[float]:
    try:
        scales = [float(parse_number(part)) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--scales: {text!r} is no list of numbers such as 1,8,2^10") from None
    from lsviz.analysis.whatif import check_scale

    return [check_scale(scale) for scale in scales]


def _no_such_step(step: int, recorded: list[int]) -> str:
    if not recorded:
        return "this run recorded no gradients; record some with --record-every 10"
    nearest = min(recorded, key=lambda other: abs(other - step))
    return f"no gradients were recorded at step {step}; the nearest step is {nearest}"


def tell_caution(rows: Histograms) -> None:
    """Print that histograms lack what was flushed, where they do."""
    if rows.caution:
        print_error(f"note: {rows.caution}")


def tell_problems(run: Run) -> None:
    """Print what could not be read of a run."""
    for problem in run.problems:
        print_error(f"warning: {problem}")
