"""Replay against training: the policy that ran comes out again, and others as they really train."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

import lsviz
from lsviz.analysis.replay import Replay, replay
from lsviz.analysis.replayshares import replay_frame
from lsviz.analysis.series import GradientSeries, gradient_series, load_series
from lsviz.analysis.shares import layer_names
from lsviz.analysis.whatif import READ_COLUMNS, Histograms, whatif_frame
from lsviz.formats import FP16
from lsviz.policies import POLICIES, PolicyStoppedError, parse_policy
from lsviz.runs.reader import Run, open_run
from tests.conftest import train_run

STEPS = 32
NAMES = list(POLICIES)


def policy_text(name: str) -> str:
    """A policy that changes S, and overflows, within a few steps."""
    if name in ("constant", "layerwise"):
        return f"{name}:{'scale' if name == 'constant' else 'growth_interval=3,init_scale'}=2^22"
    return f"{name}:growth_interval=4" if "growth_interval" in POLICIES[name].settings() else name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Run]:
    """Every policy, skipping or retrying what overflows; gradients recorded now and then only."""
    root = tmp_path_factory.mktemp("replayed")
    return {
        (name, rule): train_run(
            root,
            task="digits-mlp",
            policy=policy_text(name),
            steps=STEPS,
            record_every=7,
            reference_every=0,
            on_overflow=rule,
        )
        for name, rule in itertools.product(NAMES, ("skip", "retry"))
    }


def recorded(run: Run) -> tuple[list[float], list[int]]:
    steps = run.steps()
    return steps["loss_scale"].tolist(), steps.loc[steps["skipped"], "step"].tolist()


@pytest.mark.parametrize("rule", ["skip", "retry"])
@pytest.mark.parametrize("name", NAMES)
def test_the_policy_that_ran_comes_out_again(name: str, rule: str, runs: dict[tuple[str, str], Run]) -> None:
    run = runs[name, rule]
    done = replay(run.config.initial_policy, load_series(run))
    assert (done.scales, done.skipped) == recorded(run)
    assert (done.exact_until, done.reason, done.raised_at) == (STEPS, "", None)


def test_overflows_are_among_what_is_replayed(runs: dict[tuple[str, str], Run]) -> None:
    skipping = [name for name in NAMES if recorded(runs[name, "skip"])[1]]
    assert len(skipping) >= 15
    assert "layerwise" in skipping
    retried = [run.steps() for (_, rule), run in runs.items() if rule == "retry"]
    assert sum(int((~s["finite"] & ~s["skipped"]).sum()) for s in retried) >= 15


@pytest.mark.parametrize("shown", NAMES)
def test_where_it_is_exact_training_did_the_same(shown: str, runs: dict[tuple[str, str], Run]) -> None:
    series = load_series(runs[shown, "skip"])
    far = 0
    for name in NAMES:
        done = replay(parse_policy(policy_text(name)), series)
        until = done.exact_until
        scales, skipped = recorded(runs[name, "skip"])
        assert done.scales[:until] == scales[:until], name
        assert [s for s in done.skipped if s < until] == [s for s in skipped if s < until], name
        far += until
    assert far > len(NAMES)


def test_a_policy_that_gives_up_stops_where_the_run_did(tmp_path: Path) -> None:
    policy = "deepspeed:init_scale=2^26,min_scale=2^24,raise_at_min_scale=true,hysteresis=1"
    with pytest.raises(PolicyStoppedError, match="gives up"):
        train_run(tmp_path, task="digits-mlp", policy=policy, steps=20)
    (path,) = [p for p in tmp_path.iterdir() if p.is_dir()]
    run = open_run(path)
    done = replay(parse_policy(policy), load_series(run))
    assert (done.scales, done.skipped) == recorded(run)
    assert done.raised_at == run.steps()["step"].max()
    assert "gives up" in done.stop


def loop_run(root: Path, every: int) -> Run:
    """A loop of one's own under a real GradScaler that overflows at first."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=5)
    inputs, targets = torch.randn(32, 8), torch.randint(0, 4, (32,))
    with lsviz.record(model, root / "mine", scaler=scaler, every=every) as rec:
        for _ in range(20):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            rec.step(loss=loss)
    return open_run(rec.path)


@pytest.mark.parametrize("every", [1, 4])
def test_a_loop_under_a_real_gradscaler_comes_out_again(every: int, tmp_path: Path) -> None:
    run = loop_run(tmp_path, every)
    done = replay(run.config.initial_policy, load_series(run))
    assert (done.scales, done.skipped) == recorded(run)
    assert done.skipped
    assert done.exact_until == 20


def test_what_nobody_measured_is_said_to_be_a_guess(tmp_path: Path) -> None:
    run = loop_run(tmp_path, 4)
    done = replay(parse_policy("constant:2^8"), load_series(run))
    assert done.exact_until == recorded(run)[1][0] == 0
    assert "how large the gradients of step 0 were is not known" in done.reason
    higher = replay(parse_policy("constant:2^40"), load_series(run))
    assert higher.skipped[0] == 0
    clean = loop_run(tmp_path, 0)
    told = replay(parse_policy("patent"), load_series(clean))
    assert "is not known" in told.reason


def test_flushed_and_overflow_are_those_of_a_cast_at_its_scales(unscaled_run: Run) -> None:
    exponents = unscaled_run.exponents(columns=READ_COLUMNS)
    rows, layers = Histograms.of(exponents), layer_names(exponents)
    done = replay(parse_policy("constant:2^12"), load_series(unscaled_run))
    frame = replay_frame(done, rows, FP16, layers)
    told = frame.dropna(subset=["flushed"])
    assert told["step"].tolist() == [0, 10, 20, 30, 40]
    cast = whatif_frame(rows, [2.0**12], FP16)
    numel = rows.keys["numel"]
    chosen = (cast["kind"] == "activation_grad") & cast["tensor"].isin(layers)
    for row in told.to_dict("records"):
        here = chosen & (cast["step"] == row["step"])
        lost = (cast["flushed"] * numel)[here].sum()
        at_risk = ((1 - cast["structural_zero"]) * numel)[here].sum()
        assert row["flushed"] == pytest.approx(lost / at_risk)
        assert row["overflow"] == pytest.approx((cast["overflow"] * numel)[here].sum() / numel[here].sum())


def test_shares_of_a_scale_per_layer_take_each_its_own(tmp_path: Path) -> None:
    policy = "layerwise:init_scale=2^22,growth_interval=3"
    run = train_run(tmp_path, task="digits-mlp", policy=policy, steps=21)
    exponents = run.exponents(columns=READ_COLUMNS)
    rows, layers = Histograms.of(exponents), layer_names(exponents)
    done = replay(run.config.initial_policy, load_series(run))
    assert done.layer_scales is not None
    scales = done.layer_scales[20]
    assert len({*scales.values()}) > 1
    frame = replay_frame(done, rows, FP16, layers)
    keys = rows.keys
    here = (keys["step"] == 20) & (keys["kind"] == "activation_grad") & keys["tensor"].isin(layers)
    lost, at_risk = 0.0, 0.0
    for place in here[here].index:
        row = keys.loc[place]
        alone = rows.subset(keys.index == place)
        (told,) = whatif_frame(alone, [scales[row["tensor"]]], FP16).to_dict("records")
        lost += told["flushed"] * row["numel"]
        at_risk += (1 - told["structural_zero"]) * row["numel"]
    assert frame.loc[frame["step"] == 20, "flushed"].iloc[0] == pytest.approx(lost / at_risk)


def test_without_references_shares_are_unknown(unscaled_run: Run) -> None:
    done = replay(parse_policy("none"), load_series(unscaled_run))
    frame = replay_frame(done, None, FP16, [])
    assert frame["flushed"].isna().all()
    assert frame["exact"].all()


def series_of(run: Run, **changes: object) -> GradientSeries:
    steps, outcomes, amax = run.steps(), run.outcomes(), run.amax()
    kept = {"precision": "fp16", "weight_values": 10_000, **changes}
    return gradient_series(steps, outcomes, amax, **kept)  # type: ignore[arg-type]


def test_histogram_is_sure_where_one_large_value_is_over_its_threshold(unscaled_run: Run) -> None:
    policy = parse_policy("histogram:init_scale=2^20")
    sure = replay(policy, series_of(unscaled_run))
    unsure = replay(policy, series_of(unscaled_run, weight_values=10**9))
    assert sure.exact_until > unsure.exact_until
    assert "how many gradients were large" in unsure.reason
    assert isinstance(sure, Replay)


def test_the_largest_value_decides_at_the_rounding_point(unscaled_run: Run) -> None:
    series = series_of(unscaled_run)
    top = float(max(series.top))
    fits = 2.0 ** math.floor(math.log2(FP16.overflow_limit / top))
    assert replay(parse_policy(f"constant:{fits:.0f}"), series).skipped == []
    skipped = replay(parse_policy(f"constant:{2 * fits:.0f}"), series).skipped
    assert skipped == [
        int(s) for s, v in zip(series.steps, series.top, strict=True) if v * 2 * fits >= FP16.overflow_limit
    ]
    assert skipped
