"""Blame against overflows that a test made, in real training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import lsviz
from lsviz.analysis.blame import (
    all_zero_finding,
    blame_finding,
    blame_frame,
    blame_headline,
    bottleneck,
    bottleneck_finding,
    headroom_frame,
    largest_scale,
    layers_headroom_frame,
)
from lsviz.analysis.series import GradientSeries, load_series
from lsviz.formats import FP16
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import open_run
from lsviz.runs.schema import StepRow, steps_table
from lsviz.runs.series import AMAX_SCHEMA, OUTCOMES_SCHEMA, amax_table, outcomes_table
from lsviz.training.engine import Engine
from lsviz.training.loop import StepResult, train
from lsviz.training.tasks.base import build_task
from tests.analysis.test_limits import sample

AT = 2
"""The step that overflows."""

Change = Callable[[Tensor], Tensor]


class Spoiling:
    """A task whose model spoils one gradient at one step: of a module's output, or of a parameter."""

    def __init__(self, name: str, where: str, change: Change) -> None:
        self._task = build_task(name)
        self.spec = self._task.spec
        self._where, self._change = where, change
        self._step = -1

    def build_model(self) -> nn.Module:
        model = self._task.build_model()
        parameters = dict(model.named_parameters())
        if self._where in parameters:
            parameters[self._where].register_hook(lambda g: self._change(g) if self._step == AT else g)
        else:
            dict(model.named_modules())[self._where].register_forward_hook(self._hook)
        return model

    def _hook(self, module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = output if isinstance(output, Tensor) else output[0]
        if self._step == AT and tensor.requires_grad:
            tensor.register_hook(self._change)

    def batches(self, seed: int) -> Iterator[Any]:
        for step, batch in enumerate(self._task.batches(seed)):
            self._step = step
            yield batch

    def evaluate(self, model: nn.Module, device: torch.device) -> float:
        """Measure nothing: what the model learned in three steps is not asked."""
        return 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def trained(task: str, where: str, change: Change, policy: str) -> list[StepResult]:
    settings = {"steps": AT + 2, "record_every": 100, "reference_every": 0, "device": "cpu"}
    config = RunConfig.build(task=task, policy=policy, **settings)
    return list(train(Spoiling(task, where, change), config, Engine.resolve(config.precision, "cpu")))


def blamed(task: str, where: str, change: Change, policy: str = "constant:64") -> pd.DataFrame:
    """Train a few steps and return who is blamed for the skipped ones."""
    results = trained(task, where, change, policy)
    return blame_frame(
        steps_table([r.step for r in results]).to_pandas(),
        outcomes_table([o for r in results for o in r.outcomes]).to_pandas(),
        amax_table([a for r in results for a in r.amax]).to_pandas(),
        precision="fp16",
    )


def one_inf(gradient: Tensor) -> Tensor:
    spoilt = gradient.clone()
    spoilt.view(-1)[0] = math.inf
    return spoilt


def one_nan(gradient: Tensor) -> Tensor:
    spoilt = gradient.clone()
    spoilt.view(-1)[-1] = math.nan
    return spoilt


ARCHITECTURES = [
    ("sigmoid-mlp", "layer3"),
    ("digits-cnn", "conv2"),
    ("char-gpt", "block2.narrow"),
    ("char-lstm", "lstm2"),
    ("shapes-ssd", "conv3"),
]


@pytest.mark.parametrize(
    ("task", "layer", "change", "word"),
    [
        *((*architecture, one_inf, "Inf") for architecture in ARCHITECTURES),
        *((*architecture, one_nan, "NaN") for architecture in ARCHITECTURES[:2]),
    ],
)
def test_the_layer_that_a_test_spoils_is_named(task: str, layer: str, change: Change, word: str) -> None:
    (row,) = blamed(task, layer, change).to_dict("records")
    assert (row["step"], row["layer"], row["tensor"], row["kind"]) == (AT, layer, layer, "activation_grad")
    assert (row["found"], row["curable"], row["cause"]) == (word, False, "reference")


@pytest.mark.parametrize(("task", "layer"), ARCHITECTURES)
def test_what_overflows_by_its_size_is_named_and_curable(task: str, layer: str) -> None:
    policy = "constant:4096"
    clean = amax_table(trained(task, layer, lambda g: g, policy)[AT].amax).to_pandas()
    usual = float(clean.loc[clean["tensor"] == layer, "amax"].iloc[0]) / 4096
    # 2^6 at S = 1, where it is well inside FP16; 2^18 at S = 2^12.
    (row,) = blamed(task, layer, lambda g: g * (2.0**6 / usual), policy).to_dict("records")
    assert (row["step"], row["layer"], row["tensor"], row["found"]) == (AT, layer, layer, "Inf")
    assert (row["curable"], row["cause"]) == (True, "scale")
    assert row["largest"] == pytest.approx(2.0**6, rel=0.1)
    assert row["fits"] in (512, 1024)


@pytest.mark.parametrize(("task", "weight"), [("sigmoid-mlp", "layer3.weight"), ("digits-cnn", "conv1.bias")])
def test_a_weight_that_overflows_alone_is_named(task: str, weight: str) -> None:
    (row,) = blamed(task, weight, one_inf).to_dict("records")
    assert (row["tensor"], row["kind"], row["layer"]) == (weight, "weight_grad", weight.rpartition(".")[0])


def test_under_a_scale_per_layer_the_layer_is_named_with_its_own_s() -> None:
    (row,) = blamed("sigmoid-mlp", "layer2", one_inf, policy="layerwise:init_scale=2^12").to_dict("records")
    assert (row["layer"], row["loss_scale"]) == ("layer2", 2.0**12)


def test_a_loss_without_end_is_not_curable() -> None:
    class Endless(Spoiling):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            loss = self._task.loss(model, batch)
            return loss * math.inf if self._step == AT else loss

    config = RunConfig.build(task="digits-mlp", policy="gradscaler", steps=AT + 2, device="cpu")
    results = list(train(Endless("digits-mlp", "layer1", one_inf), config, Engine.resolve("fp16", "cpu")))
    outcome = results[AT].outcomes[-1]
    assert (outcome.finite, outcome.curable) == (False, False)
    assert all(not rows.reference for rows in results[AT].amax)


def test_looking_at_a_skipped_step_changes_no_training() -> None:
    def losses(record_every: int) -> list[float | None]:
        config = RunConfig.build(
            task="shapes-ssd",
            policy="gradscaler:init_scale=2^19",
            steps=8,
            record_every=record_every,
            reference_every=0,
            device="cpu",
        )
        results = list(train(build_task("shapes-ssd"), config, Engine.resolve("fp16", "cpu")))
        skipped = sum(r.step.skipped for r in results)
        assert 3 <= skipped <= 6, "weights that never move would hide a difference"
        return [r.step.loss for r in results]

    assert losses(3) == losses(0)


def test_without_gradients_a_skipped_step_stands_without_a_name() -> None:
    steps = steps_table([StepRow(0, 1.0, None, 8.0, False, True, 0.1, None, 1.0, 0.0)]).to_pandas()
    found = blame_frame(
        steps,
        OUTCOMES_SCHEMA.empty_table().to_pandas(),
        AMAX_SCHEMA.empty_table().to_pandas(),
        precision="fp16",
    )
    (row,) = found.to_dict("records")
    assert (row["tensor"], row["layer"], row["found"], row["curable"]) == (None, None, None, None)
    assert blame_finding(found, 1) == "1 step was skipped of 1; no gradient was seen to overflow"


@pytest.mark.parametrize("largest", [2.0**-20, 0.1, 1.0, 1.9996, 65503.0, 65519.0, 65520.0, 3e5])
def test_the_largest_scale_is_the_last_that_torch_casts_to_a_number(largest: float) -> None:
    fits = largest_scale(largest, FP16)
    assert math.isfinite(float(torch.tensor(largest * fits, dtype=torch.float64).half()))
    assert math.isinf(float(torch.tensor(2 * largest * fits, dtype=torch.float64).half()))


def test_headroom_is_what_its_definition_says(unscaled_run: Any, scaled_run: Any) -> None:
    for run, scale in ((unscaled_run, 1.0), (scaled_run, 1024.0)):
        amax = run.amax()
        found = headroom_frame(amax, precision="fp16")
        assert set(found["layer"].astype(str)) <= {*(f"layer{i}" for i in range(1, 7)), "output"}
        for row in found[found["step"] == 20].to_dict("records"):
            layer = row["layer"]
            names = [layer, f"{layer}.weight", f"{layer}.bias"]
            here = amax[(amax["step"] == 20) & amax["tensor"].isin(names)]
            largest = float(here["amax"].max())
            assert row["headroom"] == 15 - math.floor(math.log2(largest))
            assert row["largest"] == largest / scale
            assert row["unscaled_headroom"] == 15 - math.floor(math.log2(largest / scale))


def test_the_bottleneck_bounds_the_global_s(scaled_run: Any) -> None:
    found = headroom_frame(scaled_run.amax(), precision="fp16")
    limit = bottleneck(found, precision="fp16")
    assert limit is not None
    assert limit.layer == "output"
    largest = float(found["largest"].max())
    assert limit.largest == largest
    assert not FP16.overflows(np.array(largest * limit.allows))
    assert FP16.overflows(np.array(largest * limit.allows * 2))
    assert "output is the bottleneck" in bottleneck_finding(limit)
    table = layers_headroom_frame(found)
    assert table["layer"].iloc[0] == "output"
    assert table["least"].min() == table.loc[table["layer"] == "output", "least"].iloc[0]


def test_values_that_no_half_format_holds_do_not_limit_s() -> None:
    """A layer norm's own weights are summed in FP32, so 10^6 in their gradient is no overflow."""
    config = RunConfig.build(task="char-gpt", policy="constant:64", steps=1, record_every=1, device="cpu")
    (result,) = train(build_task("char-gpt"), config, Engine.resolve("fp16", "cpu"))
    frame = amax_table(result.amax).to_pandas()
    before = bottleneck(headroom_frame(frame, precision="fp16"), precision="fp16")
    grown = frame["tensor"] == "block1.norm1.weight"
    assert grown.any()
    frame.loc[grown, "amax"] = 1e6
    assert bottleneck(headroom_frame(frame, precision="fp16"), precision="fp16") == before


def loop_blamed(
    model: nn.Module, inputs: Tensor, root: Path, scale: float
) -> tuple[pd.DataFrame, GradientSeries]:
    """Record one step of a loop of one's own and return who is blamed."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with lsviz.record(model, root / "mine", scaler=scaler) as rec:
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(inputs).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        rec.step(loss)
    run = open_run(rec.path)
    found = blame_frame(run.steps(), run.outcomes(), run.amax(), precision="fp16")
    return found, load_series(run)


class SharedReLU(nn.Module):
    """Three layers with one ReLU between them, called twice; the lowest layer's gradient overflows."""

    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.l1(x) + 1)
        x = self.l2(x) + 1
        x.register_hook(one_inf)
        return self.l3(self.act(x))


def test_a_module_called_twice_is_not_blamed_for_what_another_began(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found, _ = loop_blamed(SharedReLU(), torch.randn(4, 8), tmp_path, 8.0)
    assert found["tensor"].tolist() == ["l2"]


class Tied(nn.Module):
    """An embedding whose weight the head shares, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.body = nn.Embedding(16, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.emb(x))) * 64


def test_a_tied_weight_is_limited_by_what_the_head_makes_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied()
    inputs = torch.randint(0, 16, (4, 32))
    first = next(
        scale
        for scale in (2.0**k for k in range(40))
        if len(loop_blamed(copy.deepcopy(model), inputs, tmp_path / f"{scale:.0f}", scale)[0])
    )
    _, series = loop_blamed(copy.deepcopy(model), inputs, tmp_path / "one", 1.0)
    predicted = next(s for s in (2.0**k for k in range(40)) if FP16.overflows(series.top[0] * s))
    assert predicted == first


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "None of 9 steps was skipped"),
        ([("a", "scale")], "1 step was skipped of 9; it began in a"),
        ([("a", "scale"), ("a", None)], "2 steps were skipped of 9; all began in a"),
        (
            [("a", "scale"), ("a", "forward"), ("b", "format")],
            "3 steps were skipped of 9; most (2) began in a, and no S cures 1 of them, and 1 of them "
            "overflow at S = 1 too",
        ),
        ([("a", "reference")], "1 step was skipped of 9; it began in a, and no S cures it"),
        ([("a", "format")], "1 step was skipped of 9; it began in a, and it overflows at S = 1 too"),
    ],
)
def test_the_finding_names_the_layer(rows: list[tuple[str, str | None]], words: str) -> None:
    cause = pd.Series([cause for _, cause in rows], dtype=object)
    frame = pd.DataFrame({"layer": [name for name, _ in rows], "cause": cause})
    assert blame_finding(frame, 9) == words


@pytest.mark.parametrize(
    ("causes", "first", "then"),
    [
        ([], "S must be at most 8", "None of 9 steps was skipped."),
        (["scale"], "1 step was skipped of 9", "S was too large."),
        (["scale", "scale"], "2 steps were skipped of 9", "S was too large each time."),
        ([None, None], "2 steps were skipped of 9", "Nothing tells why."),
        (
            ["scale", "format", "scale"],
            "3 steps",
            "Why: S was too large (2), too large at S = 1 too (1).",
        ),
        (
            ["injected"],
            "1 step was skipped of 9, on purpose (3:a:inf); it began in a",
            "A fault was injected",
        ),
        (
            ["injected", "scale"],
            "2 steps were skipped of 9; all began in a, and 1 of them on purpose (3:a:inf)",
            "Why: injected on purpose (1), S was too large (1).",
        ),
    ],
)
def test_a_page_opens_with_the_skips_or_else_with_the_limits_of_s(
    causes: list[str | None], first: str, then: str
) -> None:
    frame = pd.DataFrame({"layer": ["a"] * len(causes), "cause": pd.Series(causes, dtype=object)})
    frame["injected"] = ["3:a:inf" if cause == "injected" else None for cause in causes]
    headline, below = blame_headline(frame, 9, "S must be at most 8")
    assert headline.startswith(first)
    assert below.startswith(then)
    assert blame_headline(frame.head(0), 9, "") == ("None of 9 steps was skipped", "")


def test_an_empty_run_has_no_bottleneck() -> None:
    nothing = headroom_frame(AMAX_SCHEMA.empty_table().to_pandas(), precision="fp16")
    assert bottleneck(nothing, precision="fp16") is None
    assert layers_headroom_frame(nothing).empty


@pytest.mark.parametrize("task", ["sigmoid-mlp", "char-gpt"])
def test_layers_with_zeros_alone_are_named(task: str) -> None:
    amax = sample(task=task, policy="none", precision="fp16").amax()
    own = amax[~amax["reference"] & amax["half"]]  # an embedding's gradient is not held in half
    sums = own.groupby(own["tensor"].astype(str))["amax"].max()
    zero = {name for name, largest in sums.items() if largest == 0}
    found = all_zero_finding(headroom_frame(amax, precision="fp16"))
    if task == "char-gpt":
        assert (zero, found) == (set(), "")
    else:
        assert zero == {"layer1", "layer1.weight", "layer1.bias"}
        assert found == "layer1 received zeros alone, at every step."
