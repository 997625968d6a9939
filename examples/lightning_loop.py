"""A Lightning Trainer, recorded: python examples/lightning_loop.py [FOLDER]. Needs lsviz[lightning]."""

import sys

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lsviz.integrations.lightning import RecordCallback


class Digits(LightningModule):
    """A small network on digits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(folder: str = "runs/lightning") -> None:
    """Train for 40 steps."""
    seed_everything(0, verbose=False)
    pixels, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(pixels / 16.0, dtype=torch.float32), torch.tensor(labels))
    trainer = Trainer(
        max_steps=40,
        precision="16-mixed" if torch.cuda.is_available() else "bf16-mixed",
        callbacks=[RecordCallback(folder, every=5)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), DataLoader(data, batch_size=64, shuffle=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
