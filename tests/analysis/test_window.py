"""The window over fixed gradients, against casts of the values themselves."""

from __future__ import annotations

import pytest
import torch

from lsviz.analysis.shares import layer_names
from lsviz.analysis.whatif import Histograms, load_histograms
from lsviz.analysis.window import (
    ALL,
    WINDOW_SCALES,
    layer_outputs,
    nearest_scale,
    unscaled_frame,
    window_finding,
    window_frame,
)
from lsviz.formats import FP16
from lsviz.runs.store import RunStore
from tests.analysis.test_recommend import rows_of
from tests.conftest import SAMPLES

LAYERS = ["low", "high"]


def tensors() -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    low = torch.randn(4000, generator=generator) * 2.0**-24
    low[:1000] = 0
    return {"low": [low], "high": [torch.randn(500, generator=generator) * 2.0**-3]}


@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**10, 2.0**18, 2.0**40])
def test_shares_are_those_of_a_cast(scale: float) -> None:
    values = tensors()
    outputs = layer_outputs(rows_of(values, "activation_grad"), LAYERS)
    frame = window_frame(outputs, LAYERS, FP16)
    assert len(frame) == len(WINDOW_SCALES) * 3
    lost = at_risk = 0
    for layer, (x,) in values.items():
        half = (x.double() * scale).to(torch.float16)
        flushed, kept = int(((half == 0) & (x != 0)).sum()), int((x != 0).sum())
        row = frame[(frame["layer"] == layer) & (frame["scale"] == scale)].iloc[0]
        assert row["flushed"] == pytest.approx(flushed / kept)
        assert row["overflow"] == pytest.approx(float(half.isinf().double().mean()))
        lost, at_risk = lost + flushed, at_risk + kept
    together = frame[(frame["layer"] == ALL) & (frame["scale"] == scale)].iloc[0]
    assert together["flushed"] == pytest.approx(lost / at_risk)


def test_the_histogram_is_of_unscaled_values() -> None:
    values = tensors()
    frame = unscaled_frame(layer_outputs(rows_of(values, "activation_grad"), LAYERS), LAYERS)
    for layer, (x,) in values.items():
        nonzero = x[x != 0]
        exponents = torch.frexp(nonzero)[1] - 1
        own = frame[frame["layer"] == layer].set_index("exponent")["share"]
        assert own.sum() == pytest.approx(1)
        for exponent in exponents.unique().tolist():
            assert own[exponent] == pytest.approx(float((exponents == exponent).double().mean()))


def test_a_run_s_gradients_lie_where_its_fp32_twin_s_do() -> None:
    """Censored histograms are scaled: S is taken out again."""
    run = next(r for r in RunStore.at(SAMPLES).list_runs() if r.config.policy == "constant:1024")
    exponents = run.exponents()
    layers = layer_names(exponents)
    recorded = Histograms.of(exponents[~exponents["reference"]])
    assert recorded.censored
    mine = unscaled_frame(layer_outputs(recorded.pooled(), layers), layers)
    whole = unscaled_frame(layer_outputs(load_histograms(run).pooled(), layers), layers)
    for layer in layers:  # what lies high is the same; what lies low was flushed in one of them
        ends = [f[f["layer"] == layer]["exponent"].max() for f in (mine, whole)]
        assert abs(ends[0] - ends[1]) <= 1, "FP16 rounds, S = 1024 would be ten"


def test_the_finding_says_what_is_lost() -> None:
    frame = window_frame(layer_outputs(rows_of(tensors(), "activation_grad"), LAYERS), LAYERS, FP16)
    assert window_finding(frame, 1.0, FP16).startswith("FP16 at S = 1 flushes ")
    assert "overflow to Inf" in window_finding(frame, 2.0**30, FP16)
    assert nearest_scale(1000.0) == 1024
    assert nearest_scale(2.0**60) == 2.0**40
