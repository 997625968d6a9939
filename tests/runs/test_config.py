from __future__ import annotations

import pytest

from lsviz.policies import Constant, PolicyError
from lsviz.runs.config import MAX_SEED, MAX_STEPS, ConfigError, RunConfig


def test_the_policy_is_kept_in_its_canonical_form() -> None:
    config = RunConfig.build(task="sigmoid-mlp", policy="constant: scale = 2^10")
    assert config.policy == "constant:1024"
    assert config.initial_policy == Constant(scale=1024)
    assert RunConfig.build(task="t", policy="dynamic").policy == "gradscaler"


def test_json_comes_back_equal() -> None:
    config = RunConfig.build(task="sigmoid-mlp", policy="gradscaler:growth_interval=7", seed=MAX_SEED)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'; choose one of: fp16, bf16 or fp32"),
        ({"device": "tpu"}, "unknown device 'tpu'; choose one of: auto, cpu or cuda"),
        ({"steps": 0}, "steps: should be greater than or equal to 1, got 0"),
        ({"steps": MAX_STEPS + 1}, "steps: should be less than or equal to 1000000, got 1000001"),
        ({"steps": "many"}, "steps: should be a valid integer"),
        ({"seed": -1}, "seed: should be greater than or equal to 0, got -1"),
        ({"record_every": -1}, "record_every: should be greater than or equal to 0, got -1"),
        ({"reference_every": 1.5}, "reference_every: should be a valid integer"),
        ({"task": "../etc"}, "task: "),
        ({"speed": 3}, "unknown setting 'speed'; known are: task, policy"),
    ],
)
def test_what_can_not_be_is_one_clear_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig.build(**{"task": "sigmoid-mlp", **values})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_policy_keeps_its_own_message() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'foo'; choose one of"):
        RunConfig.build(task="sigmoid-mlp", policy="foo")


def test_a_missing_task_is_named() -> None:
    with pytest.raises(ConfigError, match="task is missing"):
        RunConfig.build(policy="none")
