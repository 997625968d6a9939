from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsviz.runs.config import ConfigError, RunConfig
from lsviz.runs.injection import (
    FAULT_KINDS,
    MAX_INJECTIONS,
    Injection,
    InjectionError,
    format_injections,
    parse_injections,
)
from lsviz.ui.text import plain

layers = st.text(min_size=1, max_size=20).filter(
    lambda name: name == name.strip() and name.isprintable() and not set(name) & set(":,")
)
faults = st.builds(Injection, st.integers(0, 999_999), layers, st.sampled_from(sorted(FAULT_KINDS)))


@given(st.lists(faults, max_size=8, unique_by=lambda fault: (fault.step, fault.layer)))
def test_the_text_of_any_faults_reads_back_in_order_of_steps(given_faults: list[Injection]) -> None:
    back = parse_injections(format_injections(given_faults))
    assert sorted(back, key=str) == sorted(given_faults, key=str)
    assert [fault.step for fault in back] == sorted(fault.step for fault in given_faults)
    assert parse_injections(format_injections(back)) == back


def test_a_layers_name_may_hold_dots_and_blanks_around_the_parts_do_not_count() -> None:
    assert parse_injections(" 40 : layer1:huge, 20:blocks.0.attn:inf ") == (
        Injection(20, "blocks.0.attn", "inf"),
        Injection(40, "layer1", "huge"),
    )
    assert parse_injections("  ") == ()


WRONG = [
    ("20:layer3", "'20:layer3' is no step:layer:kind; give one as 20:layer3:inf"),
    ("20:layer3:inf,", "'' is no step:layer:kind"),
    ("20:a:b:inf", "is no step:layer:kind"),
    ("-1:layer3:inf", "step '-1' should be a whole number, as in 20:layer3:inf"),
    ("1_0:layer3:inf", "step '1_0' should be"),
    ("²:layer3:inf", "step '²' should be"),
    ("9" * 5000 + ":layer3:inf", "should be a whole number"),
    ("20::inf", "'' is no name of a layer"),
    ("20:a\nb:inf", r"'a\nb' is no name of a layer"),
    (f"20:{'a' * 201}:inf", "is no name of a layer"),
    ("20:layer3:Inf", "unknown kind 'Inf'; choose one of: inf, nan or huge"),
    ("20:layer3:inf, 20:layer3:nan", "layer 'layer3' has two faults at step 20; give it one"),
    (",".join(f"{i}:a:inf" for i in range(MAX_INJECTIONS + 1)), "give up to 100 faults, got 101"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_can_not_be_is_one_clear_line_also_through_the_config(text: str, message: str) -> None:
    with pytest.raises(InjectionError) as error:
        parse_injections(text)
    assert str(error.value).startswith("inject: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250
    with pytest.raises(InjectionError, match=r"^inject: "):
        RunConfig.build(task="t", inject=text)


def test_a_config_holds_faults_in_canonical_form_and_none_where_the_key_is_missing() -> None:
    config = RunConfig.build(task="t", inject="040:b:nan, 7:a.b:huge")
    assert config.inject == "7:a.b:huge,40:b:nan"
    assert config.injections == (Injection(7, "a.b", "huge"), Injection(40, "b", "nan"))
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    old = RunConfig.model_validate_json('{"task": "t", "policy": "none"}')
    assert (old.inject, old.injections) == ("", ())


def test_a_fault_after_the_last_step_is_refused() -> None:
    assert RunConfig.build(task="t", steps=10, inject="9:a:inf").inject == "9:a:inf"
    with pytest.raises(ConfigError) as error:
        RunConfig.build(task="t", steps=10, inject="3:a:inf,10:a:inf")
    assert str(error.value) == "inject: 10:a:inf comes after the last step; choose one from 0 to 9"


def test_what_a_page_shows_can_be_copied_into_the_field() -> None:
    shown = plain("20:fire:inf").replace("\\", "")
    assert shown != "20:fire:inf"
    assert parse_injections(shown) == parse_injections("20:fire:inf")
