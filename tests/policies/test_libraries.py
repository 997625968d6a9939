"""The libraries' scalers: torch's driven for real, the others against traces of their own code.

``golden_traces.json`` holds the loss scale after each step as the libraries' own files had it, run over
patterns of overflows (the versions and files stand in it).
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lsviz.policies import (
    POLICIES,
    Outcome,
    PolicyError,
    PolicyStoppedError,
    format_policy,
    parse_policy,
    trace_overflows,
)
from lsviz.policies.libraries import PRESETS
from lsviz.policies.presets import Preset, build_preset, interval_ladder

GOLDEN = json.loads((Path(__file__).parent / "golden_traces.json").read_text())
GradScaler = POLICIES["gradscaler"]


def scales_of(log2: list[float]) -> list[float]:
    return [2.0**exponent for exponent in log2]


@pytest.mark.parametrize("name", [row.name for row in PRESETS])
def test_traces_are_those_of_the_librarys_own_code(name: str) -> None:
    golden = [trace for trace in GOLDEN["traces"] if trace["policy"] == name]
    assert len(golden) >= 10
    for expected in golden:
        ours = trace_overflows(POLICIES[name](**expected["settings"]), expected["pattern"])
        what = (expected["settings"], expected["pattern"])
        assert ours.raised_at == expected["raised_at"], what
        # Exact but for libraries that were run in FP32 with factors that are no powers of two.
        assert ours.scales == pytest.approx(scales_of(expected["log2"]), rel=1e-6), what


PATTERN = "OO....O.........O.O....."
TORCH = [7, 6, 6, 6, 6, 7, 6, 6, 6, 6, 7, 7, 7, 7, 8, 8, 7, 7, 6, 6, 6, 6, 7, 7]


@pytest.mark.parametrize(
    ("policy", "log2"),
    [
        ("gradscaler", TORCH),
        ("dynamic", TORCH),
        ("fairseq", TORCH),
        ("megatron:hysteresis=1", TORCH),
        ("megatron", [8, 7, 7, 7, 7, 8, 8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 9, 9, 9, 9, 10, 10]),
        ("deepspeed", [8, 7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 7, 7, 7, 7, 7, 8]),
    ],
)
def test_the_traces_that_were_given(policy: str, log2: list[int]) -> None:
    name, _, more = policy.partition(":")
    settings = ",".join(filter(None, ["init_scale=2^8", "growth_interval=4", more]))
    assert trace_overflows(parse_policy(f"{name}:{settings}"), PATTERN).scales == scales_of(log2)


DEFAULTS: dict[str, dict[str, Any]] = {
    "apex": {"init_scale": 2**16, "growth_interval": 2000, "max_scale": 2**24, "min_scale": None},
    "apex-contrib": {"init_scale": 2**16, "growth_interval": 1000},
    "apex-fp16utils": {"init_scale": 2**32, "growth_interval": 1000},
    "megatron": {"init_scale": 2**32, "growth_interval": 1000, "min_scale": 1, "hysteresis": 2},
    "deepspeed": {"init_scale": 2**16, "growth_interval": 1000, "min_scale": 1, "hysteresis": 2},
    "deepspeed-fused": {"init_scale": 2**16, "growth_interval": 1000, "min_scale": 1},
    "deepspeed2025": {"init_scale": 2**16, "growth_interval": 1000, "min_scale": 1, "hysteresis": 2},
    "fairseq": {"init_scale": 2**7, "growth_interval": 2**14, "tolerance": 0, "min_loss_scale": 1e-4},
    "metaseq": {"init_scale": 4, "growth_interval": 256, "min_scale": 2**-5},
    "openseq2seq": {"max_scale": 2**14, "growth_interval": 2000, "min_scale": 1},
    "keras": {"init_scale": 2**15, "growth_interval": 2000},
    "tf": {"init_scale": 2**15, "growth_interval": 2000},
    "jmp": {"init_scale": 2**15, "growth_interval": 2000, "min_scale": 1},
    "flax": {"init_scale": 2**16, "growth_interval": 2000, "min_scale": 2**-126},
    "colossalai": {"init_scale": 2**16, "growth_interval": 1000, "hysteresis": 2, "min_scale": None},
    "mindspore": {"init_scale": 2**24, "growth_interval": 2000},
    "mindformers": {"growth_interval": 20, "min_interval": 20, "max_interval": 1000},
    "paddle": {"init_scale": 2**16, "growth_interval": 2000, "decr_every_n": 1},
    "mxnet": {"init_scale": 2**16, "growth_interval": 2000, "max_scale": 2**24},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_librarys(name: str) -> None:
    policy = POLICIES[name]()
    for key, value in DEFAULTS[name].items():
        assert getattr(policy, key) == value, key


def test_openseq2seq_starts_at_its_ceiling() -> None:
    assert parse_policy("openseq2seq").loss_scale == 2**14
    assert parse_policy("openseq2seq:max_scale=64").loss_scale == 64
    assert parse_policy("openseq2seq:init_scale=8").loss_scale == 8


def test_megatrons_counter_is_refilled_only_at_growth() -> None:
    policy = parse_policy("megatron:init_scale=2^8,growth_interval=4,hysteresis=2")
    assert trace_overflows(policy, "O...O...O").scales == [2**8] * 4 + [2**7] * 4 + [2**6]
    assert trace_overflows(policy, "O....O").scales[-1] == 2**9


def test_deepspeed_gives_up_at_its_floor_and_tells_so() -> None:
    trace = trace_overflows(parse_policy("deepspeed:init_scale=2,hysteresis=1"), "O.O...")
    assert (trace.scales, trace.skipped, trace.raised_at) == ([1, 1], [0, 2], 2)
    assert "already at its floor (1)" in trace.reason
    assert trace_overflows(parse_policy("deepspeed-fused:init_scale=2"), "O.O...").raised_at is None
    goes_on = parse_policy("deepspeed:init_scale=2,hysteresis=1,raise_at_min_scale=false")
    assert trace_overflows(goes_on, "O.O...").raised_at is None


def test_mindspore_gives_up_after_more_than_1000_overflows_in_a_row() -> None:
    policy = parse_policy("mindspore")
    assert trace_overflows(policy, "O" * 1000 + "." + "O" * 1000).raised_at is None
    assert trace_overflows(policy, "O" * 1001).raised_at == 1000


def test_a_scale_past_its_number_format_stops_the_policy() -> None:
    policy = parse_policy("keras:init_scale=2^126,growth_interval=1")
    trace = trace_overflows(policy, "....")
    assert (trace.scales, trace.raised_at) == ([2.0**127], 1)
    assert "S = Inf" in trace.reason
    assert trace_overflows(parse_policy("flax:init_scale=2^126,growth_interval=1"), "." * 6).scales[
        -1
    ] == float(torch.finfo(torch.float32).max)


def test_mxnets_new_scale_comes_one_step_late() -> None:
    trace = trace_overflows(parse_policy("mxnet:init_scale=2^8,growth_interval=2"), "OO....")
    assert trace.scales == [256, 128, 64, 64, 128, 128]


def test_paddle_counts_overflows_in_a_row() -> None:
    policy = parse_policy("paddle:init_scale=2^8,decr_every_n=2")
    assert trace_overflows(policy, "O.OOOO.").scales == [256, 256, 256, 128, 128, 64, 64]
    assert parse_policy("paddle:hysteresis=2") == parse_policy("paddle:decr_every_n=2")


def test_mindformers_ladder() -> None:
    assert interval_ladder(20, 1000) == (20, 30, 40, 50, 100, 200, 500, 1000)
    climbs = parse_policy("mindformers:init_scale=2^8")
    intervals = trace_overflows(climbs, "." * 60).counters
    assert intervals[58]["interval"] == 20
    assert intervals[59]["interval"] == 30
    falls = trace_overflows(climbs, "." * 60 + "O.O.O..").counters
    assert falls[-1]["interval"] == 1


def test_an_interval_off_the_ladder_is_noted() -> None:
    assert "lowest is taken" in parse_policy("mindformers:growth_interval=35").notes()[0]
    assert parse_policy("mindformers:growth_interval=50").notes() == []
    assert parse_policy("megatron:growth_interval=35").notes() == []


def test_a_new_library_takes_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Preset(
        name="mylib",
        rule="S starts at 2^10, is halved at every overflow, not below 1, and doubled after 2 clean steps.",
        source="mylib 1.2, mylib/amp.py, Scaler",
        settings={"init_scale": 2.0**10, "growth_interval": 2},
        fixed={"min_scale": 1.0},
    )
    monkeypatch.setitem(POLICIES, "mylib", build_preset(row))
    policy = parse_policy("mylib:init_scale=2")
    assert trace_overflows(policy, "OOO..").scales == [1, 1, 1, 1, 2]
    assert format_policy(policy.update(Outcome(finite=True))) == "mylib:init_scale=2,scale=2,clean_steps=1"
    with pytest.raises(PolicyError, match="mylib has no key 'min_scale'; it takes: init_scale, growth_int"):
        parse_policy("mylib:min_scale=2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jmp:hysteresis=2", "jmp has no key 'hysteresis'; it takes: init_scale, growth_factor"),
        ("megatron:consecutive_hysteresis=true", "megatron has no key 'consecutive_hysteresis'; it takes"),
        ("gradscaler:min_scale=1", "gradscaler has no key 'min_scale'; it takes: init_scale"),
        ("gradscaler:next_scale=1", "gradscaler has no key 'next_scale'; it takes: init_scale"),
        ("deepspeed:raise_at_min_scale=maybe", "raise_at_min_scale takes true or false, got 'maybe'"),
        ("megatron:hysteresis=0", "megatron: hysteresis should be greater than or equal to 1, got 0"),
        ("megatron:min_scale=8,init_scale=4", "megatron: init_scale should be at least its floor (8)"),
        ("apex:init_scale=2^30", "apex: init_scale should be at most max_scale (2^24)"),
        ("colossalai:min_scale=8,max_scale=4", "colossalai: min_scale should be at most max_scale (4)"),
        ("fairseq:init_scale=2^-20", "fairseq: init_scale should be above min_loss_scale (0.0001)"),
        ("fairseq:tolerance=2", "fairseq: tolerance should be less than or equal to 1, got 2"),
        ("mindformers:min_interval=50,max_interval=50", "min_interval should be below max_interval"),
        ("mindformers:max_interval=150", "max_interval should not lie between 101 and 199"),
        ("gradscaler:scale=1e300", "gradscaler: scale should lie between 0 and 3.40282"),
        ("megatron:scale=0.5", "megatron: scale should lie between 1 and 3.40282"),
        ("apex:scale=2^30", "apex: scale should lie between 0 and 2^24"),
        ("metaseq:interval=0", "metaseq: interval should be greater than or equal to 1"),
        ("gradscaler:growth_interval=1e30", "growth_interval should be less than or equal to 1000000000"),
    ],
)
def test_what_a_library_does_not_have_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def drive_torch(pattern: str, **settings: float) -> list[float]:
    """Return torch's scale after each step; O puts an Inf into the gradient."""
    scaler = torch.amp.GradScaler("cpu", **settings)  # type: ignore[arg-type]
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scales = []
    for char in pattern:
        scaler.scale(weight.sum())  # makes the scaler build its state
        weight.grad = torch.tensor([1.0, math.inf if char == "O" else 1.0])
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


def drive_ours(pattern: str, **settings: float) -> list[float]:
    policy = GradScaler(**settings)  # type: ignore[arg-type]
    scales = []
    for char in pattern:
        policy = policy.update(Outcome(finite=char == "."))
        scales.append(policy.loss_scale)
    return scales


@pytest.mark.parametrize("seed", range(40))
def test_scales_are_torchs_on_random_overflows(seed: int) -> None:
    chance = random.Random(seed)
    settings = {
        "init_scale": chance.choice([2.0**16, 2.0**-3, 1000.0, 3.3]),
        "growth_factor": chance.choice([2.0, 1.5, 1.001, 4.0]),
        "backoff_factor": chance.choice([0.5, 0.25, 0.9]),
        "growth_interval": chance.choice([1, 2, 3, 7, 50]),
    }
    odds = chance.choice([0.02, 0.2, 0.6])
    pattern = "".join("O" if chance.random() < odds else "." for _ in range(300))
    assert drive_ours(pattern, **settings) == drive_torch(pattern, **settings)


def test_growth_stops_where_fp32_ends() -> None:
    settings = {"init_scale": 2.0**120, "growth_interval": 1}
    ours = drive_ours("." * 12, **settings)
    assert ours == drive_torch("." * 12, **settings)
    assert ours[-1] == 2.0**127


def test_there_is_no_floor_down_to_zero() -> None:
    settings = {"init_scale": 2.0**-120}
    ours = drive_ours("O" * 40, **settings)
    assert ours == drive_torch("O" * 40, **settings)
    assert ours[-1] == 0.0


def test_defaults_are_torchs() -> None:
    theirs = torch.amp.GradScaler("cpu")
    ours = GradScaler()
    assert ours.growth_factor == theirs.get_growth_factor()
    assert ours.backoff_factor == theirs.get_backoff_factor()
    assert ours.growth_interval == theirs.get_growth_interval()
    assert ours.loss_scale == theirs.get_scale()


def test_a_policy_that_stops_leaves_its_value_usable() -> None:
    policy = parse_policy("deepspeed:init_scale=1,hysteresis=1")
    with pytest.raises(PolicyStoppedError):
        policy.update(Outcome(finite=False))
    assert policy.update(Outcome(finite=True)).loss_scale == 1


def test_an_update_leaves_the_old_value_as_it_was() -> None:
    before = GradScaler()
    after = before.update(Outcome(finite=False))
    assert before.loss_scale == 2.0**16
    assert after.loss_scale == 2.0**15
