"""A training step in FP16 on the CPU: the engine against FP32 and against torch's own CPU half."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import median_seconds, report, save
from lsviz.training.engine import Engine
from lsviz.training.tasks.base import build_task

FP16 = Engine("fp16", torch.device("cpu"))
FP32 = Engine("fp32", torch.device("cpu"))
STEPS = 5


class ConvNet(nn.Module):
    """Three convolutions on 28 x 28 images and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(64 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1, 28, 28) to logits."""
        result: Tensor = self.head(self.body(x))
        return result


def transformer() -> nn.Module:
    """Four layers of width 64, four heads, the size of a small character model."""
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), nn.Linear(64, 64))


def training_step(model: nn.Module, x: Tensor, y: Tensor, engine: Engine) -> Callable[[], None]:
    """Return one step: forward, cross-entropy, backward from loss x 1024, Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with engine.autocast():
            loss = nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())
        (loss * 1024.0).backward()  # type: ignore[no-untyped-call]
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1 / 1024)
        optimizer.step()

    return step


def repeated(step: Callable[[], None]) -> Callable[[], None]:
    """Return STEPS steps as one: a run puts the engine's kernels in place once, not at every step."""

    def steps() -> None:
        for _ in range(STEPS):
            step()

    return steps


def main() -> None:
    """Measure three models and save the ratios."""
    torch.manual_seed(0)
    images, labels = next(build_task("sigmoid-mlp").batches(0))
    cases = {
        "sigmoid-mlp": (build_task("sigmoid-mlp").build_model(), images, labels, 25),
        "conv net": (ConvNet(), torch.randn(64, 1, 28, 28), torch.randint(10, (64,)), 9),
        "transformer": (transformer(), torch.randn(16, 64, 64), torch.randint(64, (16, 64)), 9),
    }
    tables = {}
    for name, (model, x, y, rounds) in cases.items():
        engine_steps = repeated(training_step(model, x, y, FP16))

        def with_engine(steps: Callable[[], None] = engine_steps) -> None:
            with FP16.active():
                steps()

        ways: dict[str, Callable[[], object]] = {
            "FP32": repeated(training_step(model, x, y, FP32)),
            "FP16, this engine": with_engine,
            "FP16, torch's own CPU half": repeated(training_step(model, x, y, FP16)),
        }
        tables[name] = report(f"{name}, {STEPS} steps", "FP32", median_seconds(ways, rounds))
    save("engine", tables)


if __name__ == "__main__":
    main()
