"""Recording a Hugging Face ``Trainer``: ``Trainer(..., callbacks=[RecordCallback("runs/mine")])``.

Needs ``pip install lsviz[transformers]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lsviz.training.recording import Recording, record


class RecordCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Records every optimizer step of ``Trainer.train`` as `lsviz.record` does.

    The loss of a step is the mean of what the model returned as ``loss`` over its batches.

    Args:
        path: Folder of the run, as ``runs/mine``.
        every: Record gradients at every so many optimizer steps.
        metric: Name of an evaluation metric, as ``eval_accuracy``, that goes into the run.
        modules: Only modules whose name matches one of these patterns.
        activations: Record the gradients at the modules' outputs.
        weights: Record the gradients of the weights.

    Attributes:
        recording: The recording of the last training; None before it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: int = 1,
        metric: str | None = None,
        modules: Sequence[str] | None = None,
        activations: bool = True,
        weights: bool = True,
    ) -> None:
        self._path, self._metric = path, metric
        self._settings: dict[str, Any] = {
            "every": every,
            "modules": modules,
            "activations": activations,
            "weights": weights,
        }
        self.recording: Recording | None = None
        self._losses: list[Tensor] = []
        self._measured: float | None = None
        self._handle: RemovableHandle | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin; the scaler is the one that Accelerate has put beside the optimizer."""
        model: nn.Module = kwargs["model"]
        scaler = getattr(kwargs.get("optimizer"), "scaler", None)
        self._losses, self._measured = [], None
        self._handle = model.register_forward_hook(self._after_forward)
        self.recording = record(model, self._path, scaler=scaler, **self._settings).start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End a step: the optimizer has had its turn."""
        if self.recording is not None:
            loss = torch.stack(self._losses).mean() if self._losses else None
            self.recording.step(loss, metric=self._measured)
        self._losses, self._measured = [], None

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the metric for the next step."""
        found = (kwargs.get("metrics") or {}).get(self._metric) if self._metric else None
        self._measured = None if found is None else float(found)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run."""
        if self._handle is not None:
            self._handle.remove()
        if self.recording is not None:
            self.recording.close()

    def _after_forward(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled() and isinstance(output, Mapping):
            loss = output.get("loss")
            if isinstance(loss, Tensor):
                self._losses.append(loss.detach().float())
