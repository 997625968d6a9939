"""Recording a Lightning ``Trainer``: ``Trainer(callbacks=[RecordCallback("runs/mine")])``.

Needs ``pip install lsviz[lightning]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lsviz.training.recording import Recording, record


class RecordCallback(Callback):
    """Records every optimizer step of ``Trainer.fit`` as `lsviz.record` does.

    Args:
        path: Folder of the run, as ``runs/mine``.
        every: Record gradients at every so many optimizer steps.
        metric: Name of a logged validation metric that goes into the run.
        modules: Only modules whose name matches one of these patterns.
        activations: Record the gradients at the modules' outputs.
        weights: Record the gradients of the weights.

    Attributes:
        recording: The recording of the last fit; None before it.
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
        self._done = 0
        self._measured: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._done, self._measured = trainer.global_step, None
        self.recording = record(pl_module, self._path, scaler=scaler, **self._settings).start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a step where the optimizer has had its turn, which accumulation puts off."""
        if self.recording is None or trainer.global_step == self._done:
            return
        self._done = trainer.global_step
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            loss = loss * trainer.accumulate_grad_batches  # Lightning hands out a batch's share
        self.recording.step(loss, metric=self._measured)
        self._measured = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the metric for the next step."""
        found = trainer.callback_metrics.get(self._metric) if self._metric else None
        self._measured = None if found is None or trainer.sanity_checking else float(found)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run."""
        if self.recording is not None:
            self.recording.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the run as failed, or as cancelled by Ctrl+C."""
        if self.recording is None:
            return
        if isinstance(exception, KeyboardInterrupt):
            self.recording.close("cancelled")
        else:
            self.recording.close("failed", f"{type(exception).__name__}: {exception}")
