"""Commands on what overflowed, what other policies would have done and what one S costs; no torch."""

from __future__ import annotations

from typing import Annotated

import typer

from lsviz import options
from lsviz.cli_analysis import Format, RunName, Runs, find_run, tell_caution, tell_problems
from lsviz.console import frame_records, print_error, print_json
from lsviz.console_replay import blame_table, one_scale_table, replay_table, skips_table
from lsviz.formats import parse_format
from lsviz.policies import parse_policy


def replay(
    run: RunName,
    policy: Annotated[str, typer.Option(help="Loss-scaling policy to run over the recorded gradients.")],
    runs: Runs = None,
    as_json: options.Json = False,
) -> None:
    """Tell what another policy would have done with a run's gradients; no training."""
    from lsviz.analysis import replay as analysis
    from lsviz.analysis.replayshares import flushing_note_of
    from lsviz.analysis.series import load_series

    value = parse_policy(policy)
    found = find_run(run, runs)
    read = load_series(found)
    done = analysis.replay(value, read)
    note = flushing_note_of(found, read, done)
    if as_json:
        print_json(
            {
                "run_id": found.run_id,
                "policy": policy,
                "steps": len(done.steps),
                "scales": done.scales,
                "skipped": done.skipped,
                "exact_until": done.exact_until,
                "reason": done.reason,
                "note": note,
                "raised_at": done.raised_at,
            }
        )
    else:
        replay_table(done, policy, read, note)
    if done.raised_at is not None:
        print_error(f"{value.name} gives up at step {done.raised_at}: {done.stop}")
    tell_problems(found)


def blame(run: RunName, runs: Runs = None, as_json: options.Json = False) -> None:
    """Tell which gradient overflowed first at each skipped step, and which layer limits S."""
    from lsviz.analysis import blame as analysis
    from lsviz.analysis.limits import judge_run

    found = find_run(run, runs)
    judged = judge_run(found, must_ask=False)
    layers = analysis.layers_headroom_frame(judged.usual)
    finding = analysis.blame_finding(judged.blame, len(found.steps()))
    if as_json:
        print_json(
            {
                "run_id": found.run_id,
                "finding": finding,
                "skipped": frame_records(judged.blame),
                "bottleneck": None if judged.bottleneck is None else judged.bottleneck.to_dict(),
                "headroom": frame_records(layers),
                "limits": judged.limits.to_dict(),
            }
        )
    else:
        limits = f"{judged.limits.finding}. {judged.limits.note}".strip()
        blame_table(judged.blame, layers, [finding, limits, analysis.bottleneck_finding(judged.bottleneck)])
    tell_problems(found)


def layers(run: RunName, fmt: Format = "fp16", runs: Runs = None, as_json: options.Json = False) -> None:
    """Tell what one S for all costs each layer: would a scale per layer help?"""
    from lsviz.analysis.limits import judge_run
    from lsviz.analysis.onescale import one_scale_finding, one_scale_frame
    from lsviz.analysis.shares import layer_names

    found = find_run(run, runs)
    judged = judge_run(found, parse_format(fmt))
    rows, recommendation, scale_map = judged.asked
    costs = one_scale_frame(
        scale_map, layer_names(rows.keys), recommendation.most or 0.0, judged.layer_ceilings
    )
    finding = one_scale_finding(costs, judged.limits.forbids)
    if as_json:
        print_json({"run_id": found.run_id, "finding": finding, "layers": frame_records(costs)})
    else:
        one_scale_table(costs, finding)
    tell_caution(rows)
    tell_problems(found)


def skips(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, or ids of runs.")],
    runs: Runs = None,
    as_json: options.Json = False,
) -> None:
    """Tell what skipped steps cost: examples thrown away, schedules ahead of the optimizer."""
    from lsviz.analysis.skips import load_skipping_run, skips_frame

    found = [find_run(name, runs) for name in names]
    frame = skips_frame([load_skipping_run(run) for run in found])
    if as_json:
        print_json(frame_records(frame))
    else:
        skips_table(frame)
    for run in found:
        tell_problems(run)
