"""The table of tasks: what each is, teaches and defaults to. No torch, so that pages can list them.

Adding a task: one row here, one file in ``lsviz/training/tasks`` with a ``build_task`` function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lsviz.errors import UserError


class TaskError(UserError):
    """No such task; the message lists the known ones."""


LEARNING_RATES: Final[dict[str, float]] = {"sgd": 0.5, "momentum": 0.05}
"""Where none is given and the task's is for another optimizer."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task's settings and its place in teaching.

    Attributes:
        name: As in ``--task``.
        module: Module that holds its ``build_task``.
        title: A few words for menus.
        teaches: A paragraph for a person who chooses.
        metric_name: What ``evaluate`` returns, e.g. ``accuracy``.
        steps: Default number of steps.
        batch_size: Examples a step.
        lr: Learning rate.
        optimizer: The task's optimizer, as ``--optimizer`` names it.
        threads: CPU threads of a run; 0 leaves it to torch. One where tensors are too small to share
            between cores: measured on two cores, two such runs at once take 10 s with one thread each
            and 22 s or more with two, while one alone gains a fifth from the second.
        betas: Of the task's own optimizer, where it is Adam or AdamW.
        parts: Submodules that have an optimizer of their own each; the empty name is the whole model.
        untrained: The metric of fresh weights, about: what learning nothing comes to.
        lower_is_better: Whether a lower metric is the better one.
        layers: The model's modules that own weights, in its order: where a fault can be injected.
    """

    name: str
    module: str
    title: str
    teaches: str
    metric_name: str
    steps: int
    batch_size: int
    lr: float
    threads: int = 0
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    parts: tuple[str, ...] = ("",)
    untrained: float = 0.0
    lower_is_better: bool = False
    layers: tuple[str, ...] = ()

    def usual_lr(self, optimizer: str) -> float:
        """Return the learning rate with an optimizer, where none is given."""
        return self.lr if optimizer == self.optimizer else LEARNING_RATES.get(optimizer, self.lr)


_BLOCK: Final = ("norm1", "attention.qkv", "attention.output", "norm2", "widen", "narrow")

_SPECS: Final = (
    TaskSpec(
        name="sigmoid-mlp",
        module="lsviz.training.tasks.sigmoid_mlp",
        title="Deep sigmoid net, digits",
        teaches=(
            "Six hidden sigmoid layers of 128 on handwritten digits. A sigmoid passes on at most a quarter "
            "of a gradient, so each layer further down receives smaller ones, until FP16 rounds them to "
            "zero: without loss scaling the lower layers receive nothing and the network stays at chance. S "
            "= 1024 brings it back."
        ),
        metric_name="accuracy",
        steps=1000,
        batch_size=256,
        lr=3e-3,
        threads=1,
        untrained=0.1,
        layers=(*(f"layer{i}" for i in range(1, 7)), "output"),
    ),
    TaskSpec(
        name="digits-mlp",
        module="lsviz.training.tasks.digits_mlp",
        title="Shallow ReLU net, digits",
        teaches=(
            "Two hidden ReLU layers of 128 on the same digits. Its gradients lie well inside FP16's range, "
            "so it trains as well in FP16 without loss scaling as in FP32: not every network needs a loss "
            "scale. With plain SGD and a learning rate of 0.002, weights kept in FP16 lose what FP32 master "
            "weights keep: an update smaller than half of a weight's last digit does nothing."
        ),
        metric_name="accuracy",
        steps=400,
        batch_size=128,
        lr=1e-3,
        threads=1,
        untrained=0.1,
        layers=("layer1", "layer2", "output"),
    ),
    TaskSpec(
        name="digits-cnn",
        module="lsviz.training.tasks.digits_cnn",
        title="Small convolutional net, digits",
        teaches=(
            "Two convolutions on the same digits. As most image classifiers do (the paper's ResNet-50 too), "
            "it trains as well in FP16 without loss scaling as in FP32."
        ),
        metric_name="accuracy",
        steps=400,
        batch_size=128,
        lr=1e-3,
        threads=1,
        untrained=0.1,
        layers=("conv1", "conv2", "output"),
    ),
    TaskSpec(
        name="shapes-ssd",
        module="lsviz.training.tasks.shapes_ssd",
        title="Multibox detector of shapes",
        teaches=(
            "A detector after SSD: anchors on two feature maps, hard negatives, boxes and classes of "
            "circles, squares and triangles. The paper's SSD does not train at S = 1; this small one "
            "does, hardly worse than in FP32. Its gradients have to be moved left first, as a small term "
            "of a sum of losses has them: with a loss weight of 2^-14 FP16 finds little without loss "
            "scaling, and S = 2^18 brings all of it back."
        ),
        metric_name="mAP",
        steps=400,
        batch_size=32,
        lr=2e-3,
        threads=1,
        layers=(
            *(f"conv{i}" for i in range(1, 6)),
            "boxes_fine",
            "classes_fine",
            "boxes_coarse",
            "classes_coarse",
        ),
    ),
    TaskSpec(
        name="char-gpt",
        module="lsviz.training.tasks.char_gpt",
        title="Transformer on characters",
        teaches=(
            "Four transformer blocks of width 64 predict the next character of Python's help texts. Its "
            "loss is a mean over 2,048 characters, so gradients are small, and a few percent are flushed "
            "without loss scaling, most in the attention; it learns as well as in FP32 all the same. Turn "
            "the loss weight down to see where that ends."
        ),
        metric_name="bits per character",
        lower_is_better=True,
        steps=600,
        batch_size=32,
        lr=1e-3,
        threads=1,
        untrained=6.9,
        layers=(
            "characters",
            "places",
            *(f"block{i}.{part}" for i in range(1, 5) for part in _BLOCK),
            "norm",
            "output",
        ),
    ),
    TaskSpec(
        name="char-lstm",
        module="lsviz.training.tasks.char_lstm",
        title="Recurrent net on characters",
        teaches=(
            "Two LSTM layers of 128 predict the next character of Python's help texts, through 64 steps of "
            "recurrence. A percent or two of its gradients is flushed without loss scaling, and it learns "
            "as well as in FP32. Turn the loss weight down to see where that ends."
        ),
        metric_name="bits per character",
        lower_is_better=True,
        steps=600,
        batch_size=32,
        lr=2e-3,
        threads=1,
        untrained=6.7,
        layers=("characters", "lstm1", "lstm2", "output"),
    ),
    TaskSpec(
        name="dcgan",
        module="lsviz.training.tasks.dcgan",
        title="Generator against discriminator",
        teaches=(
            "Two convolutional networks: one makes handwritten digits out of noise, one learns to tell them "
            "from real ones, each with its own loss and optimizer, under one S. As the paper's DCGAN, it "
            "needs no loss scaling."
        ),
        metric_name="Frechet distance",
        steps=800,
        batch_size=64,
        lr=5e-4,
        threads=1,
        untrained=48.0,
        betas=(0.5, 0.999),
        parts=("generator", "discriminator"),
        lower_is_better=True,
        layers=(
            *(f"generator.{n}" for n in ("conv1", "norm1", "conv2", "norm2", "conv3")),
            *(f"discriminator.{n}" for n in ("conv1", "conv2", "norm2", "conv3")),
        ),
    ),
    TaskSpec(
        name="image-fit",
        module="lsviz.training.tasks.image_fit",
        title="A photograph learned pixel by pixel",
        teaches=(
            "A network learns one photograph, from a pixel's place to its colour. Its loss is a mean over "
            "12,288 numbers and shrinks as the picture comes: without loss scaling FP16 flushes nearly half "
            "of the lowest layer's gradient and still loses about a decibel only. Flushed is not the same "
            "as harmed. With a loss weight of 2^-4, as for an auxiliary loss, it keeps up with FP32 at "
            "first and falls behind as the loss shrinks; with 2^-8 it hardly learns at all. A constant S "
            "brings both back."
        ),
        metric_name="PSNR",
        steps=500,
        batch_size=4096,
        lr=5e-4,
        threads=1,
        untrained=8.4,
        layers=(*(f"layer{i}" for i in range(1, 5)), "output"),
    ),
)

TASKS: Final[dict[str, TaskSpec]] = {spec.name: spec for spec in _SPECS}
"""Every task by name, in the order of menus."""


def find_task(name: str) -> TaskSpec:
    """Return the task of that name.

    Raises:
        TaskError: There is none.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise TaskError(f"unknown task {name!r}; choose one of: {', '.join(TASKS)}") from None
