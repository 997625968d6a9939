from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsviz.policies import (
    POLICIES,
    Constant,
    GradScaler,
    NoScaling,
    Outcome,
    PolicyError,
    format_policy,
    parse_policy,
    policy_from_dict,
)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("none", NoScaling()),
        ("constant:1024", Constant(scale=1024)),
        ("constant:scale=1024", Constant(scale=1024)),
        ("constant: 2^10", Constant(scale=1024)),
        ("constant:1e3", Constant(scale=1000)),
        ("dynamic", GradScaler()),
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


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(5))
def test_every_field_survives_after_100_random_updates(name: str, seed: int) -> None:
    chance = random.Random(seed)
    policy = POLICIES[name]()
    if name == "gradscaler":
        policy = GradScaler(init_scale=3.7, growth_interval=3, growth_factor=1.9, backoff_factor=0.3)
    for _ in range(100):
        policy = policy.update(Outcome(finite=chance.random() < 0.7))
        assert parse_policy(format_policy(policy)) == policy
        assert policy_from_dict(policy.to_dict()) == policy


def test_from_dict_refuses_unknown_keys() -> None:
    with pytest.raises(PolicyError, match="constant has no key 'sale'; it takes: scale"):
        policy_from_dict({"name": "constant", "sale": 3})


@pytest.mark.parametrize("cls", POLICIES.values())
def test_every_policy_tells_its_rule_and_source(cls: type[GradScaler]) -> None:
    assert cls.rule.endswith(".")
    assert cls.source
    for key in cls.settings():
        assert cls.model_fields[key].description
