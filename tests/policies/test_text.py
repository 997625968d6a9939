from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsviz.policies import (
    POLICIES,
    Constant,
    Layerwise,
    LogMax,
    NoScaling,
    Outcome,
    Policy,
    PolicyError,
    PolicyStoppedError,
    format_policy,
    parse_policy,
    policy_from_dict,
)

GradScaler = POLICIES["gradscaler"]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("none", NoScaling()),
        ("constant:1024", Constant(scale=1024)),
        ("constant:scale=1024", Constant(scale=1024)),
        ("constant: 2^10", Constant(scale=1024)),
        ("constant:1e3", Constant(scale=1000)),
        ("dynamic", GradScaler()),
        ("logmax:inf_rule=published,max_scale=2^10", LogMax(inf_rule="published", max_scale=2**10)),
        ("deepspeed:consecutive_hysteresis=true", POLICIES["deepspeed"](consecutive_hysteresis=True)),
        ("deepspeed:raise_at_min_scale=0", POLICIES["deepspeed"](raise_at_min_scale=False)),
        ("layerwise:init_scale=8", Layerwise(init_scale=8)),
        (" gradscaler:growth_interval=4,init_scale=2^8", GradScaler(init_scale=256, growth_interval=4)),
    ],
)
def test_string_forms(text: str, policy: object) -> None:
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "unknown policy 'foo'; choose one of: none, constant, gradscaler"),
        ("", "unknown policy ''; choose one of: none"),
        ("none:1", "none: expected key=value, got '1'; it takes no keys"),
        ("gradscaler:8", "gradscaler: expected key=value, got '8'; it takes: init_scale, growth_factor"),
        ("gradscaler:x=1", "gradscaler has no key 'x'; it takes: init_scale, growth_factor"),
        ("gradscaler:init_scale=2,init_scale=4", "gradscaler: key 'init_scale' is given twice"),
        ("constant:abc", "constant: scale takes a number such as 1024, 0.5 or 2^10, got 'abc'"),
        ("constant:nan", "constant: scale should be a number from 2^-126 to 2^126, got nan"),
        ("constant:0", "constant: scale should be a number from 2^-126 to 2^126, got 0"),
        ("constant:-8", "constant: scale should be a number from 2^-126 to 2^126, got -8"),
        ("constant:inf", "constant: scale should be a number from 2^-126 to 2^126, got inf"),
        ("constant:2^9999", "constant: scale takes a number such as 1024, 0.5 or 2^10"),
        ("gradscaler:growth_factor=1", "gradscaler: growth_factor should be greater than 1, got 1"),
        ("gradscaler:backoff_factor=1", "gradscaler: backoff_factor should be less than 1, got 1"),
        ("gradscaler:growth_interval=0", "gradscaler: growth_interval should be greater than or equal to 1"),
        ("gradscaler:growth_interval=1.5", "gradscaler: growth_interval should be a valid integer"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        policy = parse_policy(text)
    except PolicyError:
        return
    assert parse_policy(format_policy(policy)) == policy


UNUSUAL = {
    "gradscaler": {"init_scale": 3.7, "growth_interval": 3, "growth_factor": 1.9, "backoff_factor": 0.3},
    "metaseq": {"growth_interval": 3, "tolerance": 0.3},
    "fairseq": {"growth_interval": 2, "tolerance": 0.2, "min_loss_scale": 2**-100},
    "deepspeed": {"growth_interval": 2, "raise_at_min_scale": False, "consecutive_hysteresis": True},
    "deepspeed2025": {"growth_interval": 2, "raise_at_min_scale": False},
    "mindformers": {"min_interval": 2, "max_interval": 16, "growth_interval": 2},
    "mxnet": {"growth_interval": 2},
    "paddle": {"decr_every_n": 3, "backoff_factor": 0.7},
    "patent": {"margin": 2},
    "logmax": {"inf_rule": "published", "deviations": 1.5},
    "layerwise": {"growth_interval": 2},
}


def random_outcome(chance: random.Random) -> Outcome:
    finite = chance.random() < 0.7
    amax = 2.0 ** chance.uniform(-40, 10) if finite else chance.choice([float("inf"), float("nan")])
    names = ["layer1", "encoder.0", "odd, name=1/2@x+y:z", ""]
    layers = {name: chance.random() < 0.7 for name in names if chance.random() < 0.8}
    return Outcome(finite, amax, chance.choice([0.0, 1e-9, 0.5]), layers)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(5))
def test_every_field_survives_after_100_random_updates(name: str, seed: int) -> None:
    chance = random.Random(seed)
    settings = UNUSUAL.get(name, {}) if seed % 2 else {}
    policy: Policy = POLICIES[name](**settings)
    for _ in range(100):
        try:
            policy = policy.update(random_outcome(chance))
        except PolicyStoppedError:
            policy = POLICIES[name](**settings)
        assert parse_policy(format_policy(policy)) == policy
        assert policy_from_dict(json.loads(json.dumps(policy.to_dict(), allow_nan=False))) == policy


def test_from_dict_refuses_unknown_keys() -> None:
    with pytest.raises(PolicyError, match="constant has no key 'sale'; it takes: scale"):
        policy_from_dict({"name": "constant", "sale": 3})


@pytest.mark.parametrize("cls", POLICIES.values())
def test_every_policy_tells_its_rule_and_source(cls: type[Policy]) -> None:
    assert cls.rule.endswith(".")
    assert cls.source
    for key in cls.settings():
        assert cls.model_fields[key].description
    if cls.name not in ("none", "constant"):
        assert cls.settings()[0] == "init_scale"
