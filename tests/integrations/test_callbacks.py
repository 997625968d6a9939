"""Recording inside Lightning's and Hugging Face's trainers, driven for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import lsviz
from lsviz.integrations import lightning as for_lightning
from lsviz.integrations import transformers as for_transformers

pytestmark = pytest.mark.filterwarnings("default")  # the trainers' own


class Small(lightning.LightningModule):
    """Logs its loss as it goes, which the run must repeat."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.losses: list[float] = []
        self.fail_at = fail_at

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        if self.fail_at is not None and len(self.losses) == self.fail_at:
            raise RuntimeError("boom")
        loss = self.net(batch).pow(2).mean()
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.log("val", self.net(batch).pow(2).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def lightning_data() -> DataLoader[Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(4, generator=generator) for _ in range(24)]
    return DataLoader(rows, batch_size=4)  # type: ignore[arg-type]


def fit(module: Small, callback: Any, folder: Path, **settings: Any) -> None:
    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[callback] if callback is not None else [],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, lightning_data(), lightning_data())


def test_lightning_records_every_step_and_changes_none(tmp_path: Path) -> None:
    bare, module = Small(), Small()
    fit(bare, None, tmp_path)
    callback = for_lightning.RecordCallback(tmp_path / "run", every=4, metric="val")
    fit(module, callback, tmp_path)
    assert module.losses == bare.losses
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), bare.parameters(), strict=True))
    run = lsviz.open_run(tmp_path / "run")
    steps = run.steps()
    assert steps["loss"].tolist() == pytest.approx(module.losses)
    assert set(steps["lr"]) == {0.05}
    assert not steps["skipped"].any()
    assert run.recorded_steps() == [0, 4, 8]
    assert steps["metric"].notna().tolist() == [False] * 6 + [True] + [False] * 5  # after the first epoch
    assert (run.status.state, run.config.task) == ("finished", "small")
    assert {"net", "net.0", "net.1", "net.2", "net.0.weight"} <= set(run.exponents()["tensor"])


def test_lightning_accumulates(tmp_path: Path) -> None:
    module = Small()
    fit(module, for_lightning.RecordCallback(tmp_path / "run"), tmp_path, accumulate_grad_batches=3)
    run = lsviz.open_run(tmp_path / "run")
    assert len(module.losses) == 12
    assert run.steps()["loss"].tolist() == pytest.approx(module.losses[2::3])
    inner = run.exponents(tensor="net.0", kind="activation_grad")
    assert inner["numel"].tolist() == [3 * 4 * 8] * 4  # three batches add up


def test_lightning_failing_marks_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        fit(Small(fail_at=3), for_lightning.RecordCallback(tmp_path / "run"), tmp_path)
    status = lsviz.open_run(tmp_path / "run").status
    assert (status.state, status.error, status.step) == ("failed", "RuntimeError: boom", 3)


class Words(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        words = torch.randint(64, (8,), generator=generator)
        return {"input_ids": words, "labels": words}


def train(callbacks: list[Any], folder: Path, **settings: Any) -> tuple[Trainer, nn.Module]:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=5,
        per_device_train_batch_size=4,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **settings,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=Words(), eval_dataset=Words(), callbacks=callbacks
    )
    trainer.train()
    return trainer, model


def test_hugging_face_records_every_step_and_changes_none(tmp_path: Path) -> None:
    bare, expected = train([], tmp_path)
    callback = for_transformers.RecordCallback(tmp_path / "run", every=2)
    trainer, model = train([callback], tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    run = lsviz.open_run(tmp_path / "run")
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps = run.steps()
    assert len(steps) == 5
    assert steps["loss"].tolist() == pytest.approx([float(entry["loss"]) for entry in logged], abs=1e-3)
    assert steps["lr"].notna().all()
    assert run.recorded_steps() == [0, 2, 4]
    assert run.status.state == "finished"
    assert "transformer.h.0.attn.c_attn" in set(run.exponents()["tensor"])
    assert not model._forward_hooks
    del bare


def test_hugging_face_accumulates_and_evaluates(tmp_path: Path) -> None:
    callback = for_transformers.RecordCallback(tmp_path / "run", metric="eval_loss")
    train([callback], tmp_path, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=2, bf16=True)
    run = lsviz.open_run(tmp_path / "run")
    assert run.config.precision == "bf16"
    steps = run.steps()
    assert len(steps) == 5
    assert steps["metric"].notna().tolist() == [False, False, True, False, True]
    head = run.exponents(tensor="lm_head", kind="activation_grad")
    assert head["numel"].tolist() == [2 * 4 * 8 * 64] * 5
