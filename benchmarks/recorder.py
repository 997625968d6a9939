"""Recording every gradient tensor at every step of char-gpt, against the same loop unrecorded.

Beside it what wandb.watch and TensorBoard's add_histogram do with the same tensors. wandb's is its own
sequence of torch calls (wandb/integration/torch/wandb_torch.py, log_tensor_stats), so that it needs no
account; TensorBoard's is the real one, writing to a file. ``python -m benchmarks.recorder cuda`` measures the
same on a GPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import lsviz
from benchmarks.timing import median_seconds, report, save
from lsviz.training.engine import Engine
from lsviz.training.optimizers import build_optimizers
from lsviz.training.tasks.base import build_task
from lsviz.training.tensors import tensors_in

ENGINE = Engine.resolve("fp16", "cuda" if "cuda" in sys.argv[1:] else "cpu")
ON_GPU = ENGINE.device.type == "cuda"
ROUNDS = 5 if ON_GPU else 12
STEPS = 10
"""Steps at a time, as a loop takes them: a recording writes every half second, not at each."""


class Loop:
    """One training loop of char-gpt in FP16."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.task = build_task("char-gpt")
        self.model = self.task.build_model().to(ENGINE.device)
        self.batches = self.task.batches(0)
        self.optimizers = build_optimizers(self.model, self.task.spec)
        self.scaler = torch.amp.GradScaler(ENGINE.device.type)

    def step(self) -> Tensor:
        """Train one step; the kernels are in place."""
        batch = tuple(part.to(ENGINE.device) for part in next(self.batches))
        with ENGINE.autocast():
            loss = self.task.loss(self.model, batch)
        self.scaler.scale(loss).backward()
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            self.scaler.update()
            optimizer.zero_grad(set_to_none=True)
        return loss


@contextmanager
def watched(model: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Hand every module's output gradient and every weight's gradient to a function."""

    def seen_under(name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            see(name, gradient)

        return hook

    def weight_seen_under(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                see(name, parameter.grad)

        return hook

    def after_forward(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(seen_under(name))  # type: ignore[no-untyped-call]

        return hook

    handles = [m.register_forward_hook(after_forward(n)) for n, m in model.named_modules() if n]
    handles += [
        parameter.register_post_accumulate_grad_hook(weight_seen_under(name))  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def as_wandb(name: str, gradient: Tensor) -> object:
    """Bin one tensor as wandb.watch does."""
    flat = gradient.reshape(-1).float()
    flat = flat[~torch.isnan(flat)]
    flat = flat[~torch.isinf(flat)]
    low, high = flat.min().item(), flat.max().item()
    counts = torch.histc(flat, bins=64, min=low, max=high)
    return counts.cpu().clone().detach().tolist(), torch.linspace(low, high, steps=65).tolist()


def waited_for(way: Callable[[], object]) -> Callable[[], object]:
    """Return the same, ended only when the GPU is done with it too."""

    def run() -> None:
        way()
        if ON_GPU:
            torch.cuda.synchronize()

    return run


def main() -> None:
    """Measure and save the ratios."""
    threads = build_task("char-gpt").spec.threads
    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, ENGINE.active():
        bare, recorded, like_wandb = Loop(), Loop(), Loop()
        rec = lsviz.record(recorded.model, Path(folder) / "run", scaler=recorded.scaler).start()

        def train() -> None:
            for _ in range(STEPS):
                bare.step()

        def record() -> None:
            for _ in range(STEPS):
                rec.step(recorded.step())

        def wandb() -> None:
            with watched(like_wandb.model, as_wandb):
                for _ in range(STEPS):
                    like_wandb.step()

        ways: dict[str, Callable[[], object]] = {
            "not recorded": train,
            "lsviz.record, all tensors, written": record,
            "as wandb.watch, all tensors": wandb,
        }
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print("TensorBoard is not installed (pip install tensorboard): left out")
        else:
            in_tensorboard = Loop()
            writer = SummaryWriter(Path(folder) / "tensorboard")

            def tensorboard() -> None:
                with watched(in_tensorboard.model, lambda name, g: writer.add_histogram(name, g)):
                    for _ in range(STEPS):
                        in_tensorboard.step()

            ways["TensorBoard add_histogram, all tensors"] = tensorboard
        where = torch.cuda.get_device_name() if ON_GPU else f"{torch.get_num_threads()} threads"
        title = f"char-gpt, every step, {STEPS} steps at a time, {where}"
        ways = {name: waited_for(way) for name, way in ways.items()}
        table = report(title, "not recorded", median_seconds(ways, ROUNDS))
        rec.close()
    save("recorder_gpu" if ON_GPU else "recorder", {title: table})


if __name__ == "__main__":
    main()
