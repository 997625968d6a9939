"""The command line: the same acts as the pages, in the same words.

Errors are one line on stderr with exit code 2. torch is imported by ``run`` and ``doctor`` alone;
``sweep``, ``reproduce`` and ``lab`` train in processes of their own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lsviz import __version__, options
from lsviz.analysis.findings import ordinal
from lsviz.cli_analysis import find_run, recommend, whatif
from lsviz.cli_figure import figure
from lsviz.cli_lab import lab, updates
from lsviz.cli_react import react
from lsviz.cli_replay import blame, layers, replay, skips
from lsviz.cli_runs import compare, export, import_runs, remove
from lsviz.cli_sweep import reproduce, sweep
from lsviz.console import (
    RunProgress,
    frame_records,
    policies_table,
    print_error,
    print_json,
    print_summary,
    runs_table,
    trace_table,
)
from lsviz.console_doctor import doctor_table
from lsviz.errors import UserError
from lsviz.policies import POLICIES, parse_number, parse_policy, trace_amax, trace_overflows
from lsviz.runs.config import RunConfig
from lsviz.runs.limits import RunLimits
from lsviz.runs.store import RunStore, default_root
from lsviz.training.catalog import find_task

MAX_AMAX_BYTES = 50_000_000

# typer carries its own copy of click since 0.2x: its usage errors are reached through typer's own.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="lsviz",
    help="See loss scaling: FP16 training runs and every layer's gradient exponents.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"lsviz {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See loss scaling: FP16 training runs and every layer's gradient exponents."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    task: options.Task,
    policy: Annotated[
        str,
        typer.Option(help="Loss-scaling policy: none, constant:1024, gradscaler, megatron:hysteresis=1, ..."),
    ] = "none",
    precision: options.Precision = "fp16",
    device: options.Device = "auto",
    steps: options.Steps = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and dropout.")] = 0,
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
    max_hours: options.MaxHours = None,
    max_memory: options.MaxMemory = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Train, write a run folder, print a summary. It waits for its turn where others train already."""
    spec = find_task(task)
    config = RunConfig.build(
        task=task,
        policy=policy,
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
    limits = RunLimits.build(hours=max_hours, memory_gib=max_memory)
    limits.check(config)
    # torch only now: a mistyped option should not cost its import. An absent device leaves no folder.
    from lsviz.training.engine import Engine
    from lsviz.training.injection import check_layers

    Engine.resolve(config.precision, config.device)
    check_layers(config)
    for note in config.initial_policy.notes():
        print_error(f"note: {note}")
    for warning in config.warnings(spec.optimizer):
        print_error(f"warning: {warning}")
    from lsviz.jobs.queue import enqueue, start_due, wait_for_turn
    from lsviz.jobs.worker import execute_run, stop_on_signals

    with stop_on_signals() as stop:
        queued = enqueue(out or default_root(), config, limits=limits, here=True)
        path = queued.path
        try:
            if not wait_for_turn(queued, lambda: bool(stop), _tell_place):
                print_error("cancelled while it waited for its turn")
                raise typer.Exit(130)
            with RunProgress(config, spec.metric_name) as progress:
                state = execute_run(path, stop, progress.observe)
        finally:
            start_due(path.parent)
    summary = _summary(path)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary)
    if state == "cancelled":
        print_error(f"cancelled at step {summary['steps']} of {config.steps}; the run so far is kept")
        raise typer.Exit(130)


app.command()(sweep)
app.command()(reproduce)
app.command()(whatif)
app.command()(recommend)
app.command()(replay)
app.command()(blame)
app.command()(layers)
app.command()(skips)
app.command()(react)
app.command()(lab)
app.command()(updates)
app.command()(compare)
app.command("rm")(remove)
app.command()(export)
app.command("import")(import_runs)


@app.command("list")
def list_runs(
    runs: Annotated[Path | None, typer.Option(help="Folder that holds the runs.")] = None,
    as_json: options.Json = False,
) -> None:
    """List the runs in a folder, newest first."""
    from lsviz.analysis.listing import runs_frame
    from lsviz.jobs.queue import start_due

    root = runs or default_root()
    start_due(root)
    store = RunStore.at(root)
    frame, problems = runs_frame(store.list_runs())
    for problem in problems:
        print_error(problem)
    if as_json:
        print_json(frame_records(frame))
    else:
        runs_table(frame, store.roots[0])
    for bad in store.list_broken():
        print_error(bad.reason)


@app.command()
def trace(
    policy: Annotated[str, typer.Option(help="Loss-scaling policy.")],
    overflow: Annotated[
        str | None,
        typer.Option(help="One character a step: O overflows, . is clean; - reads them from stdin."),
    ] = None,
    amax: Annotated[
        Path | None,
        typer.Option(help='JSON file {"amax": [largest unscaled |gradient| a step, "inf" allowed]}.'),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run a policy's state machine alone; no training."""
    value = parse_policy(policy)
    if overflow is not None and amax is None:
        result = trace_overflows(value, sys.stdin.read().strip() if overflow == "-" else overflow)
    elif amax is not None and overflow is None:
        result = trace_amax(value, _load_amax(amax))
    else:
        raise UserError("trace takes one of --overflow and --amax")
    if as_json:
        print_json({"scales": result.scales, "skipped": result.skipped, "raised_at": result.raised_at})
    else:
        trace_table(result)
    for note in value.notes():
        print_error(f"note: {note}")
    if result.raised_at is not None:
        print_error(f"{value.name} gives up at step {result.raised_at}: {result.reason}")
    if result.warning:
        print_error(f"warning: {result.warning}")


@app.command()
def policies(as_json: options.Json = False) -> None:
    """List every loss-scaling policy with its rule, its settings and where the rule was read."""
    if as_json:
        print_json(
            [
                {
                    "name": cls.name,
                    "rule": cls.rule,
                    "source": cls.source,
                    "settings": {key: cls.model_fields[key].default for key in cls.settings()},
                }
                for cls in POLICIES.values()
            ]
        )
        return
    policies_table(POLICIES.values())


@app.command()
def report(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, or ids of runs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML file to write.")],
    runs: Annotated[Path | None, typer.Option(help="Folder that holds the runs named by id.")] = None,
) -> None:
    """Write one self-contained HTML file about some runs; it opens offline."""
    from lsviz.report import write_report

    write_report([find_run(name, runs) for name in run_ids], out)
    print(out.resolve())


app.command()(figure)


@app.command()
def doctor(as_json: options.Json = False) -> None:
    """Tell versions, devices and engine, what is missing and how to get it."""
    from lsviz.jobs.doctor import diagnose

    report = diagnose()
    if as_json:
        print_json(report)
    else:
        doctor_table(report)


@app.command()
def dash(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    address: Annotated[
        str,
        typer.Option(help="Address to listen on; all but loopback are view-only without LSVIZ_TOKEN."),
    ] = "127.0.0.1",
    host: Annotated[
        list[str] | None, typer.Option(help="A name by which browsers reach it; may be given again.")
    ] = None,
) -> None:
    """Open the dashboard in the browser."""
    from lsviz.jobs.dashboard import serve_dashboard

    serve_dashboard(port, open_browser=browser, address=address, hosts=host or [])


def _tell_place(place: int) -> None:
    print_error(f"queued, {ordinal(place)}: it begins when its turn comes; Ctrl-C leaves the queue")


def _summary(path: Path) -> dict[str, Any]:
    from lsviz.analysis.compare import summarize
    from lsviz.runs.reader import open_run

    done = open_run(path)
    summary = summarize(
        done.record,
        done.status,
        done.steps(),
        done.exponents(
            columns=["step", "tensor", "kind", "reference", "loss_scale", "numel", "zero", "inf", "nan"]
        ),
    )
    return {"run_id": summary.pop("run_id"), "path": str(path.resolve()), **summary}


def _load_amax(path: Path) -> list[float]:
    try:
        if path.stat().st_size > MAX_AMAX_BYTES:
            raise ValueError("it is larger than 50 MB")
        values = json.loads(path.read_text(encoding="utf-8"))["amax"]
        if not isinstance(values, list) or any(isinstance(value, bool) for value in values):
            raise ValueError("it holds no list of numbers")
        return [float(parse_number(v) if isinstance(v, str) else v) for v in values]
    except OSError as error:
        raise UserError(f"can't read {str(path)!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f'{str(path)!r} must hold JSON such as {{"amax": [0.5, "inf", 0.25]}}') from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started this; what is said there is lost, no more
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    try:
        code = app(args=argv, prog_name="lsviz", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UserError as error:
        print_error(str(error))
        return 2
    except _USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx else "lsviz"
        print_error(f"{error.format_message().rstrip('.')}. Try: {command} --help")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print_error("stopped")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("LSVIZ_DEBUG"):
            raise
        print_error(f"{type(error).__name__}: {error} (unexpected; LSVIZ_DEBUG=1 shows where)")
        return 1
