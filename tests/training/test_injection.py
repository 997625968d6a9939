"""Faults in real training: where they are put, what each pass of the step makes of them, and nothing else."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from lsviz.runs.config import RunConfig
from lsviz.runs.injection import HUGE, Injection
from lsviz.runs.series import AmaxRows
from lsviz.training.engine import Engine
from lsviz.training.injection import FaultError, FaultInjector
from lsviz.training.loop import StepResult, train
from lsviz.training.recorder import GradientRecorder
from lsviz.training.tasks.base import build_task
from lsviz.training.update import ScaleVanishedError
from tests.training.test_recorder import OutputAndState

AT = 1
SMALL = "gradscaler:init_scale=2^10"
"""An S at which none of the tasks overflows by itself in its first steps."""


def run(**settings: object) -> list[StepResult]:
    config = RunConfig.build(**{"steps": 3, "record_every": 1, "reference_every": 1, **settings})
    task = build_task(config.task)
    task.evaluate = lambda model, device: 0.0  # type: ignore[method-assign]  # at every step: the slowest part
    return list(train(task, config, Engine.resolve(config.precision, "cpu")))


@cache
def clean_run(task: str, policy: str) -> list[StepResult]:
    return run(task=task, policy=policy, steps=AT + 1)


def spoilt(rows: AmaxRows) -> list[tuple[str, str]]:
    """The gradients with Inf or NaN, in backward order."""
    return [
        (name.tensor, name.kind)
        for name, inf, nan in zip(rows.names, rows.inf, rows.nan, strict=True)
        if inf or nan
    ]


LAYERS = [
    ("sigmoid-mlp", "layer3"),
    ("digits-cnn", "conv1"),
    ("char-gpt", "block2.widen"),
    ("char-gpt", "block3"),  # FP32: what is added to the residual stream
    ("char-lstm", "lstm1"),  # gives a tuple
    ("shapes-ssd", "conv3"),
    ("dcgan", "discriminator.conv1"),  # called three times
]


@pytest.mark.parametrize(("kind", "policy"), [("inf", SMALL), ("nan", "layerwise:init_scale=2^10")])
@pytest.mark.parametrize(("task", "layer"), LAYERS)
def test_the_first_gradient_that_is_not_finite_is_the_layers_and_no_s_cures_it(
    task: str, layer: str, kind: str, policy: str
) -> None:
    before, at, after = run(task=task, policy=policy, inject=f"{AT}:{layer}:{kind}")
    clean = clean_run(task, policy)
    assert not before.step.skipped
    assert not clean[AT].step.skipped
    recorded, reference = at.amax
    assert (recorded.reference, reference.reference) == (False, True)
    assert spoilt(recorded)[0] == spoilt(reference)[0] == (layer, "activation_grad")
    assert any(kind_ == "weight_grad" for _, kind_ in spoilt(recorded))
    counted = {
        row.reference: row.histogram
        for row in at.exponents
        if (row.tensor, row.kind) == (layer, "activation_grad")
    }
    calls = 3 if task == "dcgan" else 1
    assert all(getattr(histogram, kind) == calls for histogram in counted.values())
    assert sorted(counted) == [False, True]
    assert at.step.skipped
    (told,) = at.outcomes
    assert (told.finite, told.curable) == (False, False)
    if told.layers is None:
        assert after.step.loss_scale == at.step.loss_scale / 2
    assert not spoilt(after.amax[0])
    # Forward knows nothing of it, and up to there everything is as it would have been.
    assert [r.step.loss for r in (before, at)] == [r.step.loss for r in clean]
    assert_same(before, clean[0])


def assert_same(one: StepResult, other: StepResult) -> None:
    def untimed(result: StepResult) -> tuple[object, ...]:
        return dataclasses.replace(result.step, ms=0.0, ms_recording=0.0, metric=None), result.outcomes

    assert untimed(one) == untimed(other)
    for a, b in zip(one.amax, other.amax, strict=True):
        assert a.names == b.names
        assert (a.amax == b.amax).all()
    assert len(one.exponents) == len(other.exponents)
    for row, twin in zip(one.exponents, other.exponents, strict=True):
        assert (row.tensor, row.reference) == (twin.tensor, twin.reference)
        assert (row.histogram.counts == twin.histogram.counts).all()


@pytest.mark.parametrize(
    ("task", "layer", "policy"),
    [
        ("sigmoid-mlp", "output", "constant:2^14"),
        ("digits-cnn", "conv1", "constant:2^12"),
        ("char-gpt", "block2.attention", "constant:2^14"),
        ("char-lstm", "lstm1", "constant:2^16"),
        ("shapes-ssd", "conv3", "constant:2^12"),
        ("digits-cnn", "conv1", "layerwise:init_scale=2^12"),
    ],
)
def test_huge_overflows_in_that_layer_at_a_large_s_and_is_curable(task: str, layer: str, policy: str) -> None:
    _, at, after = run(task=task, policy=policy, inject=f"{AT}:{layer}:huge")
    recorded, reference = at.amax
    assert spoilt(recorded)[0][0].startswith(layer)  # a child that returned the same tensor has it too
    assert (layer, "activation_grad") in spoilt(recorded)
    assert spoilt(reference) == []
    assert at.step.skipped
    assert at.outcomes[-1].curable is True
    assert not after.step.skipped
    clean = clean_run(task, policy)[AT]
    largest = {
        row.tensor: row.histogram.amax
        for row in clean.exponents
        if row.reference and row.kind == "activation_grad"
    }
    place = [(name.tensor, name.kind) for name in reference.names].index((layer, "activation_grad"))
    assert reference.amax[place] == largest[layer] * HUGE


def test_only_the_faulty_layers_scale_falls_under_layerwise() -> None:
    *_, at, after = run(task="sigmoid-mlp", policy="layerwise:init_scale=2^10", inject=f"{AT}:layer3:inf")
    finite = {told.layer: told.finite for told in at.outcomes[0].layers or ()}
    assert finite == {
        **dict.fromkeys(("layer1", "layer2"), None),
        "layer3": False,
        **dict.fromkeys(("layer4", "layer5", "layer6", "output"), True),
    }
    scales = [{told.layer: told.scale for told in r.outcomes[0].layers or ()} for r in (at, after)]
    fell = {layer for layer in scales[0] if scales[1][layer] < scales[0][layer]}
    assert fell == {"layer3"}


def test_a_retried_batch_has_its_fault_at_every_try() -> None:
    settings = {"task": "digits-cnn", "policy": "gradscaler:init_scale=2^16", "on_overflow": "retry"}
    _, at, _ = run(**settings, inject=f"{AT}:conv1:huge")
    scales = [told.loss_scale for told in at.outcomes]
    assert len(scales) > 2
    assert scales == [2.0 ** (16 - i) for i in range(len(scales))]
    assert [told.finite for told in at.outcomes] == [False] * (len(scales) - 1) + [True]
    assert not at.step.skipped
    assert not at.step.finite


def test_retrying_what_no_s_cures_ends_at_the_policys_floor_or_with_the_run() -> None:
    settings = {"task": "digits-cnn", "on_overflow": "retry", "inject": f"{AT}:conv1:inf"}
    _, at, after = run(**settings, policy="jmp:init_scale=2^4")
    assert [told.loss_scale for told in at.outcomes] == [16, 8, 4, 2, 1]
    assert [told.curable for told in at.outcomes] == [None] * 4 + [False]
    assert at.step.skipped
    assert not after.step.skipped
    with pytest.raises(ScaleVanishedError, match="Inf or NaN at every scale"):
        run(**settings, policy="gradscaler")


def test_a_huge_zero_is_zero_and_the_hooks_change_nothing_else() -> None:
    """layer1 loses all its gradients in FP16: the fault finds nothing but zeros there."""
    settings = {"task": "sigmoid-mlp", "policy": "none", "steps": 4, "reference_every": 0}
    clean, faulty = run(**settings), run(**settings, inject=f"{AT}:layer1:huge")
    assert {
        row.histogram.numel - row.histogram.zero for row in clean[AT].exponents if row.tensor == "layer1"
    } == {0}
    for one, other in zip(clean, faulty, strict=True):
        assert_same(one, other)


def test_without_recording_the_same_fault_has_the_same_end() -> None:
    settings = {
        "task": "digits-cnn",
        "policy": "gradscaler",
        "steps": 5,
        "inject": "1:conv2:nan,3:conv1:huge",
    }
    recorded, plain = run(**settings), run(**settings, record_every=0, reference_every=0)
    assert [r.step.loss for r in recorded] == [r.step.loss for r in plain]
    assert [r.step.skipped for r in recorded] == [r.step.skipped for r in plain]
    assert plain[1].step.skipped


@pytest.mark.parametrize(("precision", "policy"), [("bf16", "none"), ("fp32", "gradscaler")])
def test_faults_work_in_other_precisions(precision: str, policy: str) -> None:
    _, at, _ = run(task="sigmoid-mlp", precision=precision, policy=policy, inject=f"{AT}:layer3:inf")
    assert spoilt(at.amax[0])[0] == ("layer3", "activation_grad")
    assert at.step.skipped


def test_a_layer_that_is_not_there_is_refused_before_the_first_step() -> None:
    with pytest.raises(FaultError) as error:
        run(task="sigmoid-mlp", inject="1:layer9:inf")
    assert str(error.value) == (
        "inject: no layer 'layer9' in this model; "
        "there are layer1, layer2, layer3, layer4, layer5, layer6, output"
    )
    with pytest.raises(FaultError, match=r"there are characters, places, .*block1.norm2 and 28 more$"):
        run(task="char-gpt", inject="1:block9:inf")


def backward(model: nn.Module, injection: Injection, x: Tensor | None = None) -> dict[str, tuple[int, int]]:
    """One pass under the recorder: Inf and values of each module's output gradient."""
    recorder, injector = GradientRecorder(model), FaultInjector(model, [injection])
    with injector.at(injection.step), recorder.recording():
        model(torch.randn(4, 8) if x is None else x).pow(2).sum().backward()
    return {
        row.tensor: (row.histogram.inf, row.histogram.numel)
        for row in recorder.rows(0, 1.0)
        if row.kind == "activation_grad"
    }


def test_a_layer_without_a_gradient_at_that_step_is_told() -> None:
    model = nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 4))
    with pytest.raises(FaultError, match="inject: layer '0' had no gradient at step 2 that could be changed"):
        backward(model, Injection(2, "0", "inf"))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_a_module_that_returns_its_input_or_changes_it_in_place_has_the_fault_where_it_was_asked(
    layer: str,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Identity(), nn.ReLU(inplace=True), nn.Linear(8, 4))
    inf = {name: count for name, (count, _) in backward(model, Injection(0, layer, "inf")).items()}
    if layer in ("0", "1"):  # one tensor, two names
        assert inf == {"0": 1, "1": 1, "2": 0, "3": 0}
    elif layer == "2":  # and from there through the ReLU
        assert inf == {"0": 1, "1": 1, "2": 1, "3": 0}
    else:
        assert inf["3"] == 1
    assert any(not bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("seed", range(8))
def test_an_inf_after_a_relu_passes_it(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    assert backward(model, Injection(0, "1", "inf"))["0"][0] == 1


def test_an_output_that_nothing_used_is_passed_over() -> None:
    model = OutputAndState()
    inf = {
        name: count
        for name, (count, _) in backward(model, Injection(0, "recurrent", "inf"), torch.ones(4, 4)).items()
    }
    assert inf["widen"] == inf["recurrent"] == 1


def test_leaves_that_a_module_gives_out_keep_no_hook() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.given = Given()

        def forward(self, x: Tensor) -> Tensor:
            return x * self.given(x)

    model = Model()
    backward(model, Injection(0, "given", "inf"))
    weight = model.given.weight
    assert weight.grad is not None
    assert int(weight.grad.isinf().sum()) == 1
    weight.grad = None
    model(torch.ones(8)).sum().backward()
    assert bool(weight.grad.isfinite().all())
