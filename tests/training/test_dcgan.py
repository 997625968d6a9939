"""The adversarial task: two losses and two optimizers that do not meddle with each other."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lsviz.runs.config import RunConfig
from lsviz.training.catalog import TASKS
from lsviz.training.engine import Engine
from lsviz.training.loop import train
from lsviz.training.optimizers import build_optimizers
from lsviz.training.tasks.base import Drawing, build_task
from lsviz.training.tasks.dcgan import frechet_distance
from lsviz.training.update import WeightUpdate

TASK = build_task("dcgan")


def started() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return TASK.build_model(), next(TASK.batches(0))


def test_each_network_gets_the_gradient_of_its_own_loss_alone() -> None:
    model, (real, noise) = started()
    TASK.loss(model, (real, noise)).backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert all(p.requires_grad for p in model.parameters())

    # The textbook's two passes (Goodfellow et al., 2014, algorithm 1) on a second copy.
    other, _ = started()
    generator, discriminator = other.get_submodule("generator"), other.get_submodule("discriminator")
    ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
    fake = generator(noise)
    told = binary_cross_entropy_with_logits(discriminator(real), ones)
    told = told + binary_cross_entropy_with_logits(discriminator(fake.detach()), zeros)
    of_discriminator = torch.autograd.grad(told, list(discriminator.parameters()))
    fooled = binary_cross_entropy_with_logits(discriminator(fake), ones)
    of_generator = torch.autograd.grad(fooled, list(generator.parameters()))

    expected = {
        **{f"generator.{n}": g for (n, _), g in zip(generator.named_parameters(), of_generator, strict=True)},
        **{
            f"discriminator.{n}": g
            for (n, _), g in zip(discriminator.named_parameters(), of_discriminator, strict=True)
        },
    }
    assert set(together) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(together[name], gradient, rtol=1e-5, atol=1e-7)


def test_each_network_has_an_optimizer_of_its_own() -> None:
    model, _ = started()
    optimizers = build_optimizers(model, TASK.spec)
    parts = [sum(p.numel() for g in o.param_groups for p in g["params"]) for o in optimizers]
    assert parts == [
        sum(p.numel() for p in model.get_submodule(part).parameters()) for part in TASK.spec.parts
    ]
    assert [o.param_groups[0]["betas"] for o in optimizers] == [(0.5, 0.999)] * 2
    assert [type(o) for o in build_optimizers(model, TASK.spec, "sgd", 0.1)] == [torch.optim.SGD] * 2


def test_an_overflow_in_one_network_holds_both_back() -> None:
    model, batch = started()
    update = WeightUpdate(model, build_optimizers(model, TASK.spec))
    TASK.loss(model, batch).backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradient = next(model.get_submodule("generator").parameters()).grad
    assert gradient is not None
    gradient.view(-1)[0] = torch.inf
    assert update.apply(1.0).skipped
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_step_moves_both_networks() -> None:
    model, batch = started()
    update = WeightUpdate(model, build_optimizers(model, TASK.spec))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    TASK.loss(model, batch).backward()
    assert not update.apply(1.0).skipped
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_distance_is_that_of_two_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(400, 6, generator=generator) * torch.tensor([1.0, 2, 3, 0.5, 1, 1]) + 1
    b = torch.randn(300, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    x, y = a.double().numpy(), b.double().numpy()
    c, d = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c + d - 2 * scipy.linalg.sqrtm(c @ d).real)
    assert np.isclose(frechet_distance(a, b), expected, rtol=1e-6)
    assert abs(frechet_distance(a, a)) < 1e-9
    assert np.isnan(frechet_distance(a * torch.nan, b))


def test_generated_digits_come_closer_to_real_ones_in_fp16() -> None:
    config = RunConfig.build(task="dcgan", steps=120, record_every=0, reference_every=0)
    metrics = [r.step.metric for r in train(TASK, config, Engine.resolve("fp16", "cpu")) if r.step.metric]
    assert metrics[-1] < 0.5 * TASKS["dcgan"].untrained


def test_it_draws_what_it_has_learned() -> None:
    for name in ("dcgan", "image-fit"):
        task = build_task(name)
        assert isinstance(task, Drawing)
        config = RunConfig.build(task=name, steps=2, record_every=0, reference_every=0)
        results = list(train(task, config, Engine.resolve("fp16", "cpu")))
        pictures = [r.picture for r in results]
        assert pictures[-1] is not None
        assert pictures[-1].dtype == np.uint8
        assert pictures[-1].shape == tuple(task.original().shape)
        assert not np.array_equal(pictures[0], pictures[-1])
    assert not isinstance(build_task("digits-mlp"), Drawing)
    assert set(TASKS["dcgan"].parts) == {"generator", "discriminator"}
