"""Replay of loops of one's own, and of runs of which something is missing: exact, or said to be a guess."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lsviz
from lsviz.analysis.replay import replay
from lsviz.analysis.replayshares import flushing_note, recorded_frame, replay_frame
from lsviz.analysis.series import load_series
from lsviz.analysis.shares import layer_names
from lsviz.analysis.whatif import load_histograms
from lsviz.formats import FP16
from lsviz.policies import parse_policy
from lsviz.runs.reader import Run, open_run
from tests.conftest import train_run


class Two(nn.Module):
    """Two layers, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


def trained(
    root: Path, scaler: Any, spoil: Callable[[int, Two], None] = lambda step, model: None, **settings: Any
) -> Run:
    """Train 12 steps, two optimizers under one scaler or none, and return the recording."""
    torch.manual_seed(0)
    model = Two()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model.a, model.b)]
    inputs, targets = torch.randn(16, 8), torch.randint(0, 4, (16,))
    with lsviz.record(model, root / "mine", scaler=scaler, **settings) as rec:
        for step in range(12):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = nn.functional.cross_entropy(model(inputs), targets)
            (scaler.scale(loss) if scaler else loss).backward()
            spoil(step, model)
            for optimizer in optimizers:
                if scaler:
                    scaler.step(optimizer)
                else:
                    optimizer.step()
            if scaler:
                scaler.update()
            model.zero_grad(set_to_none=True)
            rec.step(loss)
    return open_run(rec.path)


def spoil_lower(step: int, model: Two) -> None:
    """Give one optimizer's gradient an Inf at two steps; the recorder has seen it by then, as is."""
    if step in (3, 7):
        assert model.a.weight.grad is not None
        model.a.weight.grad[0, 0] = math.inf


def assert_comes_out_again(run: Run) -> None:
    steps = run.steps()
    done = replay(run.config.initial_policy, load_series(run))
    assert done.reason == ""
    assert done.exact_until == len(steps) == 12
    assert done.scales == steps["loss_scale"].tolist()
    assert done.skipped == steps.loc[steps["skipped"], "step"].tolist()


@pytest.mark.parametrize("every", [1, 2, 5])
def test_where_one_of_two_optimizers_skips_s_comes_out_again(every: int, tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    run = trained(tmp_path, scaler, spoil_lower, every=every)
    assert run.steps()["loss_scale"].nunique() > 1
    assert_comes_out_again(run)


def test_a_loop_without_a_scaler_applies_what_is_not_finite(tmp_path: Path) -> None:
    def spoil(step: int, model: Two) -> None:
        if step == 5:  # the weights are NaN from here on, and so are all gradients
            with torch.no_grad():
                model.a.weight.fill_(math.nan)

    run = trained(tmp_path, None, spoil)
    assert not run.steps()["skipped"].any()
    assert not run.steps()["finite"].all()
    assert_comes_out_again(run)


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({"modules": ["a"]}, "constant:2^20"),
        ({"activations": False}, "patent"),
        ({"weights": False}, "constant:2^20"),
    ],
)
def test_where_only_some_gradients_were_recorded_another_s_is_a_guess(
    settings: dict[str, Any], policy: str, tmp_path: Path
) -> None:
    run = trained(tmp_path, torch.amp.GradScaler("cpu", init_scale=4.0), **settings)
    done = replay(parse_policy(policy), load_series(run))
    assert done.exact_until == 0
    assert "only some of the model's gradients" in done.reason or "is not known" in done.reason
    assert_comes_out_again(run)


def test_missing_steps_are_a_doubt(tmp_path: Path) -> None:
    run = train_run(tmp_path, task="digits-mlp", policy="none", steps=6)
    steps = run.steps()
    series = load_series(run)
    from lsviz.analysis.series import gradient_series

    holed = gradient_series(
        steps[~steps["step"].isin([2, 3])], run.outcomes(), run.amax(), precision="fp16", policy="none"
    )
    assert replay(parse_policy("none"), series).exact_until == 6
    done = replay(parse_policy("none"), holed)
    assert done.exact_until == 4
    assert done.reason == "2 steps before step 4 are missing from the run"


def test_s_below_one_is_told_by_the_reference_and_not_by_s_equal_to_one(tmp_path: Path) -> None:
    run = train_run(
        tmp_path, task="digits-mlp", policy="gradscaler:init_scale=16", steps=12, inject="5:output:huge"
    )
    series = load_series(run)
    fits = 2.0 ** math.floor(math.log2(65504 / series.top[5]))
    assert 5 in replay(parse_policy(f"constant:{2 * fits}"), series).skipped
    assert 5 not in replay(parse_policy(f"constant:{fits / 2}"), series).skipped
    endless = train_run(tmp_path, task="digits-mlp", policy="none", steps=8, inject="5:output:inf")
    assert replay(parse_policy("constant:2^-10"), load_series(endless)).skipped == [5]


def test_where_another_s_flushes_much_less_that_is_said(tmp_path: Path) -> None:
    run = train_run(tmp_path, task="sigmoid-mlp", policy="none", steps=21)
    series, rows = load_series(run), load_histograms(run)
    layers = layer_names(rows.keys)
    recorded = recorded_frame(series, rows, FP16, layers)
    assert recorded["flushed"].dropna().iloc[0] > 0.3
    for policy, apart in (("constant:2^12", True), ("none", False), ("gradscaler:init_scale=1", False)):
        frame = replay_frame(replay(parse_policy(policy), series), rows, FP16, layers)
        note = flushing_note(frame, recorded)
        assert bool(note) == apart
        assert not apart or note.startswith("at step 0 the run flushed")
