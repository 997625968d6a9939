"""Every task learns; what the text and image tasks measure is what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from lsviz.runs.config import RunConfig
from lsviz.training.catalog import TASKS
from lsviz.training.engine import Engine
from lsviz.training.loop import train, with_gain
from lsviz.training.tasks.base import build_task
from lsviz.training.tasks.boxes import (
    average_precision,
    decoded,
    encoded,
    intersection_over_union,
    kept_detections,
    matched_anchors,
    square_anchors,
)
from lsviz.training.tasks.image_fit import SIDE
from lsviz.training.tasks.shapes import SIDE as SHAPE_SIDE
from lsviz.training.tasks.shapes import draw_pictures
from lsviz.training.tasks.shapes_ssd import ShapesSSDTask
from lsviz.training.tasks.text import CONTEXT

STEPS = {
    "sigmoid-mlp": 120,
    "digits-mlp": 30,
    "digits-cnn": 30,
    "shapes-ssd": 25,
    "char-gpt": 15,
    "char-lstm": 15,
    "image-fit": 15,
}


def losses(task: str, **settings: object) -> list[float]:
    config = RunConfig.build(
        **{
            "task": task,
            "steps": 12,
            "record_every": 0,
            "reference_every": 0,
            "policy": "constant:256",
            **settings,
        }
    )
    engine = Engine.resolve(config.precision, config.device)
    return [result.step.loss for result in train(build_task(task), config, engine)]


@pytest.mark.parametrize("name", STEPS)
def test_every_task_learns_in_fp16(name: str) -> None:
    curve = losses(name, steps=STEPS[name])
    assert np.mean(curve[-3:]) < 0.9 * curve[0]


def test_every_task_is_tested_for_learning() -> None:
    assert set(STEPS) | {"dcgan"} == set(TASKS)  # two losses against each other need not fall: test_dcgan.py


@pytest.mark.parametrize("name", TASKS)
def test_every_task_tells_what_it_teaches(name: str) -> None:
    spec = TASKS[name]
    assert len(spec.teaches) > 100
    assert spec.title
    assert spec.metric_name


@pytest.mark.parametrize("name", TASKS)
def test_layerwise_follows_every_task(name: str) -> None:
    plain = losses(name, steps=4, precision="fp32", policy="none")
    assert losses(name, steps=4, precision="fp32", policy="layerwise") == plain


class Uniform(nn.Module):
    """The same logit for every character."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*characters.shape, self.vocabulary)


@pytest.mark.parametrize("name", ["char-gpt", "char-lstm"])
def test_bits_per_character_of_a_blind_guess_is_log2_of_the_vocabulary(name: str) -> None:
    task = build_task(name)
    vocabulary = len(task.characters)  # type: ignore[attr-defined]
    bits = task.evaluate(Uniform(vocabulary), torch.device("cpu"))
    assert bits == pytest.approx(math.log2(vocabulary), rel=1e-5)


@pytest.mark.parametrize("name", ["char-gpt", "char-lstm"])
def test_the_next_character_is_asked_for_and_none_is_seen_before(name: str) -> None:
    task = build_task(name)
    characters, following = next(task.batches(0))
    assert characters.shape == following.shape == (TASKS[name].batch_size, CONTEXT)
    assert torch.equal(characters[:, 1:], following[:, :-1])
    model = task.build_model().eval()
    changed = characters.clone()
    changed[:, 40:] = 0
    with torch.no_grad():
        before, after = model(characters), model(changed)
    assert torch.allclose(before[:, :40], after[:, :40], atol=1e-6)
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_text_that_is_measured_is_not_trained_on() -> None:
    task = build_task("char-gpt")
    train_part, held_out = task._split  # type: ignore[attr-defined]
    assert len(train_part) + len(held_out) == len(task._text) > 300_000  # type: ignore[attr-defined]
    assert len(held_out) > 30_000


class Memory(nn.Module):
    """Answers with the given colours, whatever the places."""

    def __init__(self, colours: np.ndarray) -> None:
        super().__init__()
        self.colours = torch.tensor(colours, dtype=torch.float32)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        return self.colours


def photograph() -> np.ndarray:
    """The middle square of the flower, 64 x 64, each pixel the mean of those under it, by numpy."""
    photo = load_sample_image("flower.jpg").astype(float) / 255
    side = min(photo.shape[:2])
    left = (photo.shape[1] - side) // 2
    square = photo[:side, left : left + side]
    edges = [(math.floor(i * side / SIDE), math.ceil((i + 1) * side / SIDE)) for i in range(SIDE)]
    return np.array([[square[a:b, c:d].mean((0, 1)) for c, d in edges] for a, b in edges]).reshape(-1, 3)


def test_psnr_is_that_of_numpy() -> None:
    task = build_task("image-fit")
    exact = photograph()
    noise = np.random.default_rng(0).normal(0, 0.1, exact.shape)
    expected = -10 * math.log10(np.mean(noise**2))
    assert task.evaluate(Memory(exact + noise), torch.device("cpu")) == pytest.approx(expected, abs=0.01)
    assert task.evaluate(Memory(exact), torch.device("cpu")) > 100


def test_loss_weight_moves_every_recorded_gradient_and_nothing_else() -> None:
    def rows(weight: float) -> tuple[float, dict[tuple[str, bool], tuple[float, float]]]:
        config = RunConfig.build(
            task="digits-mlp",
            precision="fp32",
            steps=1,
            loss_weight=weight,
            record_every=1,
            reference_every=1,
        )
        (result,) = train(build_task("digits-mlp"), config, Engine.resolve("fp32", "cpu"))
        amax = {(r.tensor, r.reference): (r.histogram.amax, r.loss_scale) for r in result.exponents}
        return result.step.loss, amax

    plain_loss, plain = rows(1.0)
    small_loss, small = rows(2.0**-12)
    assert small_loss == plain_loss, "the loss is shown as the task has it"
    assert plain.keys() == small.keys()
    for key, (amax, scale) in plain.items():
        assert small[key] == (amax * 2.0**-12, scale)


def test_init_gain_multiplies_weights_and_not_biases() -> None:
    torch.manual_seed(0)
    plain = dict(build_task("digits-cnn").build_model().named_parameters())
    torch.manual_seed(0)
    gained = dict(with_gain(build_task("digits-cnn").build_model(), 4.0).named_parameters())
    for name, parameter in plain.items():
        factor = 1.0 if name.endswith("bias") else 4.0
        assert torch.equal(gained[name], parameter * factor), name


def test_a_small_loss_weight_starves_fp16_and_a_scale_brings_it_back() -> None:
    settings = {"steps": 60, "loss_weight": 2.0**-14}
    full = losses("digits-mlp", precision="fp32", policy="none", **settings)
    starved = losses("digits-mlp", policy="none", **settings)
    saved = losses("digits-mlp", policy="constant:2^14", **settings)
    assert starved[-1] > 1.5 * full[-1]
    assert saved[-1] == pytest.approx(full[-1], rel=0.1)


def overlap_of(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes on whole pixels, by counting them."""
    y, x = np.mgrid[0:100, 0:100]
    inside = [(x >= c[0]) & (x < c[2]) & (y >= c[1]) & (y < c[3]) for c in (a, b)]
    return float((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum())


def test_overlaps_are_those_of_counted_pixels() -> None:
    chance = np.random.default_rng(0)
    corners = chance.integers(0, 50, (12, 2))
    boxes = np.concatenate([corners, corners + chance.integers(1, 50, (12, 2))], axis=1)
    ours = intersection_over_union(torch.tensor(boxes[:6]).double(), torch.tensor(boxes[6:]).double())
    for i in range(6):
        for j in range(6):
            assert float(ours[i, j]) == pytest.approx(overlap_of(boxes[i], boxes[6 + j])), (i, j)


def test_offsets_lead_from_anchors_to_boxes() -> None:
    anchors = square_anchors(6, (0.2, 0.4))
    assert anchors.shape == (72, 4)
    assert torch.allclose(anchors[3], torch.tensor([0.25 - 0.2, 1 / 12 - 0.2, 0.25 + 0.2, 1 / 12 + 0.2]))
    boxes = anchors + torch.rand(72, 4) * 0.05
    assert torch.allclose(decoded(anchors, encoded(anchors, boxes)), boxes, atol=1e-6)


def test_every_object_has_an_anchor_and_background_is_far() -> None:
    task = build_task("shapes-ssd")
    pictures = draw_pictures(20, seed=5)
    for boxes, classes in zip(pictures.boxes, pictures.classes, strict=True):
        there = classes >= 0
        target, _ = matched_anchors(task.anchors, boxes[there], classes[there])  # type: ignore[attr-defined]
        overlap = intersection_over_union(task.anchors, boxes[there])  # type: ignore[attr-defined]
        assert set((target[target > 0] - 1).tolist()) == set(classes[there].tolist())
        assert overlap[target == 0].max() < 0.5
    empty, _ = matched_anchors(task.anchors, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))  # type: ignore[attr-defined]
    assert not empty.any()


def test_suppression_keeps_the_surest_of_boxes_that_overlap() -> None:
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3], [0, 0, 1, 0.3], [2, 2, 3, 2.9]])
    scores = torch.tensor([0.8, 0.9, 0.5, 0.1, 0.6])
    assert kept_detections(boxes, scores).tolist() == [1, 4, 3]


def test_average_precision_by_hand() -> None:
    right = np.array([True, False, True, False, True])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    # Precision at the three hits: 1, 2/3, 3/5; with a fourth object never found.
    assert average_precision(right, scores, 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert average_precision(right[:0], scores[:0], 3) == 0.0
    assert math.isnan(average_precision(right, scores, 0))


def test_drawn_shapes_fill_their_boxes_and_repeat() -> None:
    pictures, again = draw_pictures(30, seed=7), draw_pictures(30, seed=7)
    assert torch.equal(pictures.images, again.images)
    assert not torch.equal(pictures.images, draw_pictures(30, seed=8).images)
    assert set(pictures.classes.flatten().tolist()) == {-1, 0, 1, 2}
    for box in pictures.boxes[pictures.classes >= 0]:
        sides = (box[2:] - box[:2]) * SHAPE_SIDE
        assert 9.9 < sides.min() <= sides.max() < 26.1


class Oracle(nn.Module):
    """Answers with each anchor's own object, or with the opposite."""

    def __init__(self, task: ShapesSSDTask, *, wrong: bool) -> None:
        super().__init__()
        self.answers = []
        for boxes, classes in zip(task._held_out.boxes, task._held_out.classes, strict=True):
            there = classes >= 0
            self.answers.append(matched_anchors(task.anchors, boxes[there], classes[there]))
        self.wrong = wrong

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        targets = torch.stack([target for target, _ in self.answers])
        if self.wrong:
            targets = torch.where(targets > 0, targets % 3 + 1, 0)
        logits = 20.0 * nn.functional.one_hot(targets, 4).float()
        return torch.stack([offsets for _, offsets in self.answers]), logits


def test_map_is_1_for_an_oracle_and_near_0_for_a_liar() -> None:
    task = build_task("shapes-ssd")
    assert isinstance(task, ShapesSSDTask)
    assert task.evaluate(Oracle(task, wrong=False), torch.device("cpu")) > 0.99
    assert task.evaluate(Oracle(task, wrong=True), torch.device("cpu")) < 0.1


def test_three_hard_negatives_count_for_each_matched_anchor() -> None:
    task = build_task("shapes-ssd")
    images, targets, offsets = next(task.batches(0))
    model = task.build_model()
    with torch.no_grad():
        moved, logits = model(images)
        loss = float(task.loss(model, (images, targets, offsets)))
    total = 0.0
    for i in range(len(images)):
        matched = targets[i] > 0
        each = nn.functional.cross_entropy(logits[i], targets[i], reduction="none")
        negatives = each[~matched].sort(descending=True).values[: 3 * int(matched.sum())]
        difference = (moved[i][matched] - offsets[i][matched]).abs()
        smooth = torch.where(difference < 1, 0.5 * difference**2, difference - 0.5)
        total += float(each[matched].sum() + negatives.sum() + smooth.sum())
    assert loss == pytest.approx(total / int((targets > 0).sum()), rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_the_catalog_knows_the_layers(task: str) -> None:
    modules = build_task(task).build_model().named_modules()
    owners = tuple(name for name, module in modules if list(module.parameters(recurse=False)))
    assert TASKS[task].layers == owners
