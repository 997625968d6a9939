"""The finding itself, over seeds: FP16 without loss scaling starves sigmoid-mlp; S = 1024 rescues it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsviz.analysis.compare import summarize
from tests.conftest import train_run


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loss_scaling_rescues_sigmoid_mlp(seed: int, tmp_path: Path) -> None:
    def summary(**settings: object) -> dict[str, object]:
        run = train_run(
            tmp_path, task="sigmoid-mlp", seed=seed, record_every=50, reference_every=50, **settings
        )
        return summarize(run.record, run.status, run.steps(), run.exponents())

    full = summary(precision="fp32", policy="none")
    unscaled = summary(policy="none")
    scaled = summary(policy="constant:1024")
    assert isinstance(full["metric"], float)
    assert isinstance(unscaled["metric"], float)
    assert isinstance(scaled["metric"], float)
    assert full["metric"] > 0.85
    assert scaled["metric"] > 0.85
    assert scaled["metric"] > full["metric"] - 0.05
    assert unscaled["metric"] < 0.15  # chance is 0.1
    flushed = unscaled["flushed"]
    assert isinstance(flushed, dict)
    for tensor in ("layer1", "layer2", "layer1.weight", "layer2.weight", "layer1.bias"):
        assert flushed[tensor] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["none", "constant:1024"])
def test_digits_mlp_needs_no_scaling(policy: str, tmp_path: Path) -> None:
    half = train_run(tmp_path, task="digits-mlp", policy=policy, steps=400, record_every=0, reference_every=0)
    full = train_run(
        tmp_path,
        task="digits-mlp",
        policy="none",
        precision="fp32",
        steps=400,
        record_every=0,
        reference_every=0,
    )
    assert half.status.metric is not None
    assert full.status.metric is not None
    assert abs(half.status.metric - full.status.metric) < 0.02
    assert full.status.metric > 0.93
