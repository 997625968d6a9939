"""What ``lsviz reproduce`` trains: the findings of Mixed Precision Training, each in small. No torch.

Every experiment is a task with honest settings; its variants differ in precision and policy alone. The
paper is arXiv 1710.03740; what stands beside ours is from its sections 3.1 and 4 with their tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from lsviz.policies import format_number
from lsviz.runs.config import RunConfig
from lsviz.training.catalog import find_task

Variant = Literal["fp32", "none", "constant", "gradscaler", "fp16-weights"]
VARIANTS: Final[tuple[Variant, ...]] = ("fp32", "none", "constant", "gradscaler", "fp16-weights")

SEEDS: Final = (0, 1, 2)
RECORDINGS: Final = 10
"""At how many steps of each run gradients and reference are recorded."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One finding and the runs behind it.

    Attributes:
        name: Short and unique.
        task: As in ``--task``.
        paper: What the paper reports, its FP32 first.
        scale: The constant S that recovers FP32, as a power of two.
        settings: Settings of `RunConfig` besides task, policy, precision, seed and recording.
        variants: What is trained, FP32 first.
        quick: Steps of ``--quick``; None leaves the experiment out of it.
    """

    name: str
    task: str
    paper: str
    scale: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Variant, ...] = VARIANTS[:-1]
    quick: int | None = None

    @property
    def policy(self) -> str:
        """The constant policy in its string form."""
        return f"constant:{format_number(self.scale)}"

    @property
    def steps(self) -> int:
        """Steps of the whole, which are the task's own unless it says otherwise."""
        return int(self.settings.get("steps", find_task(self.task).steps))

    def config(self, variant: Variant, seed: int, *, quick: bool = False) -> RunConfig:
        """Return the settings of one run."""
        steps = self.quick if quick and self.quick else self.steps
        policies = {"fp32": "none", "none": "none", "gradscaler": "gradscaler"}
        every = max(1, steps // RECORDINGS)
        return RunConfig.build(
            **{
                "task": self.task,
                **self.settings,
                "steps": steps,
                "seed": seed,
                "precision": "fp32" if variant == "fp32" else "fp16",
                "policy": policies.get(variant, self.policy),
                "master_weights": variant != "fp16-weights",
                "record_every": every,
                "reference_every": every,
            }
        )


EXPERIMENTS: Final = (
    Experiment(
        name="digits-cnn",
        task="digits-cnn",
        paper="ResNet-50, top-1 %: 75.92; S = 1: 76.04",
        scale=128,
        quick=400,
    ),
    Experiment(
        name="digits-mlp",
        task="digits-mlp",
        paper="other classifiers: as FP32 at S = 1",
        scale=128,
        quick=400,
    ),
    Experiment(
        name="dcgan",
        task="dcgan",
        paper="DCGAN: comparable images at S = 1",
        scale=128,
        quick=400,
    ),
    Experiment(
        name="char-gpt",
        task="char-gpt",
        paper="translation by LSTMs: slightly worse at S = 1; scaled: as FP32",
        scale=128,
        quick=60,
    ),
    Experiment(
        name="char-lstm",
        task="char-lstm",
        paper="bigLSTM: diverges late at S = 1; S = 128: as FP32",
        scale=128,
        quick=60,
    ),
    Experiment(
        name="sigmoid-mlp",
        task="sigmoid-mlp",
        paper="Multibox SSD, mAP: 76.9; S = 1: fails; S = 8: 77.1",
        scale=1024,
        variants=VARIANTS,
        quick=1000,
    ),
    Experiment(
        name="shapes-ssd",
        task="shapes-ssd",
        paper="Faster R-CNN, mAP: 69.1; S = 1: 68.6; scaled: 69.7",
        scale=256,
        quick=400,
    ),
    Experiment(
        name="shapes-ssd, loss x 2^-14",
        task="shapes-ssd",
        paper="Multibox SSD, mAP: 76.9; S = 1: fails; S = 8: 77.1",
        scale=2.0**18,
        settings={"loss_weight": 2.0**-14},
        quick=400,
    ),
    Experiment(
        name="image-fit",
        task="image-fit",
        paper="Faster R-CNN, mAP: 69.1; S = 1: 68.6; scaled: 69.7",
        scale=256,
        quick=250,
    ),
    Experiment(
        name="image-fit, loss x 2^-4",
        task="image-fit",
        paper="bigLSTM: diverges late at S = 1; S = 128: as FP32",
        scale=2.0**12,
        settings={"loss_weight": 2.0**-4},
        quick=500,
    ),
    Experiment(
        name="image-fit, loss x 2^-8",
        task="image-fit",
        paper="Multibox SSD, mAP: 76.9; S = 1: fails; S = 8: 77.1",
        scale=2.0**14,
        settings={"loss_weight": 2.0**-8},
        quick=250,
    ),
    Experiment(
        name="digits-mlp, small steps",
        task="digits-mlp",
        paper="Mandarin speech: FP16 weights lose 80 % of relative accuracy",
        scale=128,
        settings={"optimizer": "sgd", "lr": 2e-3, "steps": 20_000},
        variants=("fp32", "none", "fp16-weights"),
        quick=6000,
    ),
)
"""In the order of the table."""

CURVE_TASK: Final = "sigmoid-mlp"
CURVE_SCALES: Final = tuple(2.0**k for k in range(0, 33, 2))
"""The constant scales of the U-curve: from what FP16 flushes to what it overflows."""


def curve_configs() -> list[RunConfig]:
    """Return the runs of the U-curve: one task, seed 0, every constant S."""
    steps = find_task(CURVE_TASK).steps
    every = steps // RECORDINGS
    return [
        RunConfig.build(
            task=CURVE_TASK,
            policy=f"constant:{format_number(scale)}",
            steps=steps,
            record_every=every,
            reference_every=every,
        )
        for scale in CURVE_SCALES
    ]


def planned_runs(*, quick: bool = False) -> Iterator[tuple[Experiment, Variant, RunConfig]]:
    """Yield every run of the table, an experiment at a time, the seeds of a variant together."""
    seeds: Sequence[int] = SEEDS[:1] if quick else SEEDS
    for experiment in EXPERIMENTS:
        for variant in experiment.variants:
            for seed in seeds:
                yield experiment, variant, experiment.config(variant, seed, quick=quick)
