"""What ``lsviz lab`` trains: the ways to update weights from scaled gradients, side by side. No torch.

All variants of one lab have the task, the policy and the seed in common, and differ in their update alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lsviz.runs.config import RunConfig
from lsviz.training.catalog import find_task

Group = Literal["unscaling", "clipping", "L2 penalty", "weights"]
GROUPS: Final[tuple[Group, ...]] = ("unscaling", "clipping", "L2 penalty", "weights")

TASK: Final = "digits-mlp"
POLICY: Final = "constant:1024"
CLIP: Final = 0.5
"""Bites at most steps of digits-mlp, whose gradients have norms from 0.2 to 2."""
L2: Final = 1e-3

SMALL_STEPS: Final = 5
"""The two that differ in their weights take so many times the steps,"""
SMALL_RATE: Final = 250.0
"""at a learning rate so many times lower: updates that are small beside the weights, as late in training."""

OPTIMIZER_NAMES: Final = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam", "adamw": "AdamW"}

_ADAM: Final = frozenset({"adam", "adamw"})


@dataclass(frozen=True, slots=True)
class LabVariant:
    """One way to update the weights.

    Attributes:
        name: Short and unique within a lab.
        group: What it is compared with.
        shows: What it does to the gradients, in one sentence.
        settings: What sets its `RunConfig` apart from the others'.
    """

    name: str
    group: Group
    shows: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LabSettings:
    """What all variants of a lab have in common.

    Attributes:
        task: As in ``--task``.
        policy: In its string form.
        steps: Training steps; None: the task's own.
        seed: Of weights and batches.
        optimizer: Of all variants; None: plain SGD, and Adam beside it where 1/S is left out or folded, since
            the two differ there.
        lr: Learning rate of that optimizer, or of SGD; None: the usual one.
        clip: Threshold of the variants that clip.
        l2: Penalty of those that have one.
    """

    task: str = TASK
    policy: str = POLICY
    steps: int | None = None
    seed: int = 0
    optimizer: str | None = None
    lr: float | None = None
    clip: float = CLIP
    l2: float = L2


def planned_variants(lab: LabSettings) -> list[tuple[LabVariant, RunConfig]]:
    """Return every variant with the run that shows it, a group at a time, the right way first.

    Raises:
        UserError: There is no such task, or the settings can't be.
    """
    spec = find_task(lab.task)
    steps = spec.steps if lab.steps is None else lab.steps
    variants = [*_unscaling(lab), *_clipping(lab), *_penalties(lab), *_weights(lab, steps)]
    return [
        (
            variant,
            RunConfig.build(
                **{
                    "task": lab.task,
                    "policy": lab.policy,
                    "steps": steps,
                    "seed": lab.seed,
                    "check_update": True,
                    "record_every": 0,
                    "reference_every": 0,
                    **variant.settings,
                }
            ),
        )
        for variant in variants
    ]


def _main(lab: LabSettings) -> dict[str, Any]:
    """Return the settings of the optimizer that most variants have."""
    return {"optimizer": lab.optimizer or "sgd", **({} if lab.lr is None else {"lr": lab.lr})}


def _unscaling(lab: LabSettings) -> Iterator[LabVariant]:
    optimizers = [_main(lab), *([] if lab.optimizer else [{"optimizer": "adam"}])]
    for update in ("unscale", "fold-lr", "none"):
        for settings in optimizers:
            name = str(settings["optimizer"])
            yield LabVariant(
                name=f"{update} ({OPTIMIZER_NAMES.get(name, name)})",
                group="unscaling",
                shows=_unscaling_shows(update, name),
                settings={**settings, "update": update},
            )


def _unscaling_shows(update: str, optimizer: str) -> str:
    name = OPTIMIZER_NAMES.get(optimizer, optimizer)
    if update == "unscale":
        return "Every gradient is multiplied by 1/S before anything else: right for every optimizer."
    if update == "fold-lr":
        if optimizer in _ADAM:
            return f"The learning rate is divided by S, but {name}'s step never grew with S: it shrinks by S."
        if optimizer == "momentum":
            return "The learning rate is divided by S: right while S stays the same, wrong once it changes."
        return "The learning rate is divided by S, not the gradient: for plain SGD the product is the same."
    if optimizer in _ADAM:
        return (
            f"Nothing undoes S, but {name} divides by the gradients' size, S with it: only epsilon notices."
        )
    return "Nothing undoes S: every step is S times too large."


def _clipping(lab: LabSettings) -> Iterator[LabVariant]:
    shows = {
        "after": "Clipped after 1/S: the threshold means what it says.",
        "before": "Scaled gradients are held against the threshold as it is: it is S times too strict.",
        "scaled": "Scaled gradients are held against the threshold times S: right again.",
    }
    for order, words in shows.items():
        settings = {**_main(lab), "clip": lab.clip, "clip_order": order}
        yield LabVariant(f"clip {_WHEN[order]}", "clipping", words, settings)


def _penalties(lab: LabSettings) -> Iterator[LabVariant]:
    shows = {
        "after": "The penalty joins after 1/S: it weighs what it says.",
        "before": "The penalty joins scaled gradients as it is, and 1/S then makes it S times too weak.",
        "scaled": "The penalty times S joins scaled gradients: right again.",
    }
    for order, words in shows.items():
        settings = {**_main(lab), "l2": lab.l2, "l2_order": order}
        yield LabVariant(f"L2 {_WHEN[order]}", "L2 penalty", words, settings)


_WHEN: Final = {"after": "after", "before": "before", "scaled": "times S"}


def _weights(lab: LabSettings, steps: int) -> Iterator[LabVariant]:
    settings = _main(lab)
    lr = settings.get("lr") or find_task(lab.task).usual_lr(settings["optimizer"])
    small = {**settings, "lr": lr / SMALL_RATE, "steps": steps * SMALL_STEPS}
    yield LabVariant(
        "FP32 weights",
        "weights",
        "Small updates add up in FP32 master weights, each with 24 significant bits.",
        {**small, "master_weights": True},
    )
    yield LabVariant(
        "FP16 weights",
        "weights",
        "Weights are rounded to FP16 after every update: what is below half their last digit does nothing.",
        {**small, "master_weights": False},
    )
