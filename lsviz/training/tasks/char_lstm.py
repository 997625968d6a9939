"""char-lstm: a recurrent network on characters."""

from __future__ import annotations

from torch import Tensor, nn

from lsviz.training.catalog import TaskSpec
from lsviz.training.tasks.text import TextTask

WIDTH, HIDDEN, LAYERS = 64, 128, 2


class CharLSTM(nn.Module):
    """An embedding, two LSTM layers of 128 and a linear layer."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, WIDTH)
        self.lstm1 = nn.LSTM(WIDTH, HIDDEN, batch_first=True)
        self.lstm2 = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, vocabulary)

    def forward(self, characters: Tensor) -> Tensor:
        """Map (batch, length) character numbers to (batch, length, vocabulary) logits."""
        x, _ = self.lstm1(self.characters(characters))
        x, _ = self.lstm2(x)
        logits: Tensor = self.output(x)
        return logits


class CharLSTMTask(TextTask):
    """Characters with `CharLSTM`."""

    def build_model(self) -> nn.Module:
        """Return a fresh `CharLSTM`."""
        return CharLSTM(len(self.characters))


def build_task(spec: TaskSpec) -> CharLSTMTask:
    """Return the task."""
    return CharLSTMTask(spec)
