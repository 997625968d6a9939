from __future__ import annotations

import pytest

from lsviz.policies import Layerwise, Outcome, PolicyError, format_policy, parse_policy, trace_overflows


def test_only_the_layers_that_overflowed_back_off_and_the_unknown_stay() -> None:
    policy = Layerwise(init_scale=2**10, growth_interval=2)
    policy = policy.update(Outcome(False, layers={"top": True, "middle": False}))
    assert policy.scales == {"top": 2**10, "middle": 2**9}
    assert policy.scale_of("bottom") == 2**10
    policy = policy.update(Outcome(True, layers={"top": True, "middle": True, "bottom": True}))
    assert policy.scales == {"top": 2**11, "middle": 2**9, "bottom": 2**10}
    policy = policy.update(Outcome(True, layers={"top": True, "middle": True, "bottom": True}))
    assert policy.scales == {"top": 2**11, "middle": 2**10, "bottom": 2**11}
    assert policy.loss_scale == 2**10


def test_alone_it_is_back_off_and_growth_of_the_whole_model() -> None:
    pattern = "OO....O.........O.O....."
    ours = trace_overflows(parse_policy("layerwise:init_scale=2^8,growth_interval=4"), pattern)
    torchs = trace_overflows(parse_policy("gradscaler:init_scale=2^8,growth_interval=4"), pattern)
    assert ours.scales == torchs.scales
    assert ours.counters == torchs.counters


def test_bounds_hold_the_scale() -> None:
    policy = parse_policy("layerwise:init_scale=4,growth_interval=1,min_scale=2,max_scale=8")
    assert trace_overflows(policy, "OOO....").scales == [2, 2, 2, 4, 8, 8, 8]


@pytest.mark.parametrize("key", ["init_scale=3", "growth_factor=1.5", "backoff_factor=0.3"])
def test_scales_are_powers_of_two(key: str) -> None:
    with pytest.raises(PolicyError, match="should be a power of two, so that every update stays exact"):
        parse_policy(f"layerwise:{key}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers=layer1", "should look like layer1@1024@7/layer2@2^11@0"),
        ("layers=layer1@x@0", "should look like layer1@1024@7/layer2@2^11@0"),
        ("layers=layer1@nan@0", "should be a number from 2^-60 to 2^60"),
        ("layers=layer1@0@0", "should be a number from 2^-60 to 2^60"),
        ("layers=layer1@3@0", "should be a power of two"),
        ("layers=layer1@4@-1", "should not hold a negative number of clean steps"),
        ("layers=a@4@1/a@8@1", "should name every layer once"),
        ("layers=a@2^20@0,max_scale=2^16", "layers should have scales between min_scale"),
        ("init_scale=2^61", "init_scale should be a number from 2^-60 to 2^60"),
        ("min_scale=8,init_scale=4", "init_scale should lie between min_scale (8) and max_scale (2^60)"),
    ],
)
def test_state_has_bounds_too(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(f"layerwise:{text}")
    assert message in str(error.value)


def test_layers_may_have_any_name() -> None:
    policy = Layerwise().update(Outcome(True, layers={"a,b=c/d@e %\ud800": True, "": True}))
    assert parse_policy(format_policy(policy)) == policy
    assert parse_policy("layerwise:layers=a@2^10@3").scale_of("a") == 1024
