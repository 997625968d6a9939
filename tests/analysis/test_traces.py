from __future__ import annotations

import pytest

from lsviz.analysis.traces import counters_frame, trace_finding, traces_frame
from lsviz.policies import Policy, Trace, parse_policy, trace_amax, trace_overflows


def traced(pattern: str, *texts: str) -> tuple[dict[str, Policy], dict[str, Trace]]:
    policies = {text: parse_policy(text) for text in texts}
    return policies, {text: trace_overflows(policy, pattern) for text, policy in policies.items()}


def test_a_row_a_policy_and_step_with_the_scale_in_force() -> None:
    frame = traces_frame(*traced("O..", "gradscaler:growth_interval=2", "none"))
    assert frame["policy"].tolist() == ["gradscaler:growth_interval=2"] * 3 + ["none"] * 3
    assert frame["loss_scale"].tolist() == [2**16, 2**15, 2**15, 1, 1, 1]
    assert frame["after"].tolist() == [2**15, 2**15, 2**16, 1, 1, 1]
    assert frame["overflow"].tolist() == [True, False, False] * 2
    assert frame["remembers"].tolist()[:2] == ["clean steps 0", "clean steps 1"]


def test_a_policy_that_gave_up_has_no_further_rows() -> None:
    frame = traces_frame(*traced("OO...", "deepspeed:init_scale=1,hysteresis=1", "tf"))
    assert frame.groupby("policy").size().to_dict() == {"tf": 5}


def test_counters_have_a_column_each() -> None:
    policies, traces = traced("O.", "megatron")
    frame = counters_frame(policies["megatron"], traces["megatron"])
    assert frame.to_dict("list") == {
        "step": [0, 1],
        "outcome": ["overflow, skipped", "clean"],
        "S": ["2³²", "2³²"],
        "S after": ["2³²", "2³²"],
        "clean steps": [0, 1],
        "overflows": [1, 1],
    }


@pytest.mark.parametrize(
    ("pattern", "texts", "words"),
    [
        ("", (), "Choose a policy"),
        ("", ("none",), "Give at least one step."),
        ("OO", ("none",), "After 2 steps none has S = 1."),
        (
            "OO",
            ("gradscaler", "fairseq"),
            "After 2 steps gradscaler has S = 2¹⁴, fairseq 32: 512 times apart.",
        ),
        ("OO", ("keras", "tf"), "After 2 steps both have S = 8,192."),
        ("OO", ("keras", "tf", "jmp"), "After 2 steps all 3 policies have S = 8,192."),
        ("OO", ("none", "megatron"), "After 2 steps megatron has S = 2³¹, none 1: 2³¹ times apart."),
        ("OOO", ("deepspeed:init_scale=2",), "gives up at step 2: overflow with the loss scale already"),
    ],
)
def test_the_finding_says_what_one_sees(pattern: str, texts: tuple[str, ...], words: str) -> None:
    _, traces = traced(pattern, *texts)
    assert words in trace_finding(list(texts), list(traces.values()), len(pattern))


def test_scales_that_are_no_powers_of_two_are_rounded() -> None:
    policy = parse_policy("logmax")
    traces = [trace_amax(policy, [2.0**9, 2.0**10])]
    words = trace_finding(["logmax"], traces, 2)
    assert len(words.split("S = ")[1].strip(".")) <= 4
