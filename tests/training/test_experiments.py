from __future__ import annotations

from collections import Counter

from lsviz.training.catalog import TASKS
from lsviz.training.experiments import (
    CURVE_SCALES,
    CURVE_TASK,
    EXPERIMENTS,
    SEEDS,
    VARIANTS,
    curve_configs,
    planned_runs,
)


def test_every_task_is_in_the_table() -> None:
    assert {e.task for e in EXPERIMENTS} == set(TASKS)
    assert len({e.name for e in EXPERIMENTS}) == len(EXPERIMENTS)
    for experiment in EXPERIMENTS:
        assert set(experiment.variants) <= set(VARIANTS)
        assert {"fp32", "none"} <= set(experiment.variants)
        assert experiment.quick is not None
        assert experiment.quick <= experiment.steps
        assert experiment.scale == 2.0 ** round(experiment.scale).bit_length() / 2


def test_variants_differ_in_precision_policy_and_weights_alone() -> None:
    for experiment in EXPERIMENTS:
        base = experiment.config("none", 1).model_dump()
        for variant in experiment.variants:
            mine = experiment.config(variant, 1).model_dump()
            differing = {key for key in mine if mine[key] != base[key]}
            assert differing <= {"precision", "policy", "master_weights"}, (experiment.name, variant)


def test_all_seeds_of_all_variants_are_trained_once() -> None:
    whole = [config for _, _, config in planned_runs()]
    assert len(set(whole)) == len(whole) == len(SEEDS) * sum(len(e.variants) for e in EXPERIMENTS)
    assert Counter(config.seed for config in whole) == dict.fromkeys(SEEDS, len(whole) // len(SEEDS))
    quick = [config for _, _, config in planned_runs(quick=True)]
    assert {config.seed for config in quick} == {SEEDS[0]}
    assert sum(config.steps for config in quick) < sum(config.steps for config in whole) / len(SEEDS)


def test_the_u_curve_is_one_run_for_every_scale() -> None:
    configs = curve_configs()
    assert [c.initial_policy.loss_scale for c in configs] == list(CURVE_SCALES)
    assert {(c.task, c.seed, c.precision) for c in configs} == {(CURVE_TASK, 0, "fp16")}
