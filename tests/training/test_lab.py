"""The lab's plan: every variant differs from the right one in its update alone."""

from __future__ import annotations

import pytest

from lsviz.errors import UserError
from lsviz.training.catalog import TASKS
from lsviz.training.lab import GROUPS, LabSettings, planned_variants


def test_every_variant_is_a_run_of_its_own_that_checks_its_update() -> None:
    plan = planned_variants(LabSettings())
    names = [variant.name for variant, _ in plan]
    assert len(set(names)) == len(names) == 14
    configs = [config for _, config in plan]
    assert len(set(configs)) == len(configs)
    assert all(config.check_update and config.record_every == 0 for config in configs)
    assert {config.policy for config in configs} == {"constant:1024"}
    assert list(dict.fromkeys(variant.group for variant, _ in plan)) == list(GROUPS)
    for variant, config in plan:
        assert all(getattr(config, key) == value for key, value in variant.settings.items())


def test_what_is_asked_for_is_taken() -> None:
    lab = LabSettings("char-gpt", "gradscaler", 7, 3, "momentum", 0.1, 2.0, 0.5)
    plan = planned_variants(lab)
    assert len(plan) == 11
    assert {(c.task, c.policy, c.seed, c.optimizer) for _, c in plan} == {
        ("char-gpt", "gradscaler", 3, "momentum")
    }
    assert {c.clip for _, c in plan} == {None, 2.0}
    assert {c.l2 for _, c in plan} == {0.0, 0.5}
    small = [(c.steps, c.lr) for v, c in plan if v.group == "weights"]
    assert small == [(35, 0.1 / 250), (35, 0.1 / 250)]
    assert {(c.steps, c.lr) for v, c in plan if v.group != "weights"} == {(7, 0.1)}


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("optimizer", [None, "sgd", "momentum", "adam", "adamw"])
def test_every_task_and_optimizer_has_a_lab(task: str, optimizer: str | None) -> None:
    plan = planned_variants(LabSettings(task, optimizer=optimizer))
    assert all(config.lr is None or config.lr < 0.01 for _, config in plan)


@pytest.mark.parametrize(
    ("lab", "message"),
    [
        (LabSettings(task="nothing"), "unknown task 'nothing'"),
        (LabSettings(policy="layerwise"), "undoes every layer's own S before the update"),
        (LabSettings(clip=-1.0), "clip: "),
        (LabSettings(steps=0), "steps: "),
        (LabSettings(steps=300_000), "steps: should be less than or equal to 1000000"),
    ],
)
def test_what_can_not_be_is_one_clear_line(lab: LabSettings, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        planned_variants(lab)
    assert "\n" not in str(error.value)
