"""A Hugging Face Trainer, recorded: python examples/huggingface_trainer.py [FOLDER].

Needs lsviz[transformers]. The model is a small GPT-2 with fresh weights: nothing is downloaded.
"""

import sys
import tempfile

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from lsviz.integrations.transformers import RecordCallback

TEXT = "A gradient below 2^-25 becomes zero in FP16, and nobody is told. " * 60
LENGTH = 32


class Characters(Dataset[dict[str, Tensor]]):
    """Windows of a short text, a number a character."""

    def __init__(self) -> None:
        self.numbers = torch.tensor([min(ord(c), 127) for c in TEXT])

    def __len__(self) -> int:
        """Return how many windows there are."""
        return len(self.numbers) - LENGTH

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one window as input and as what is to be predicted."""
        window = self.numbers[index : index + LENGTH]
        return {"input_ids": window, "labels": window}


def main(folder: str = "runs/gpt2") -> None:
    """Train for 20 steps."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2))
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            max_steps=20,
            per_device_train_batch_size=16,
            fp16=torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        callbacks = [RecordCallback(folder, every=5)]
        Trainer(model=model, args=arguments, train_dataset=Characters(), callbacks=callbacks).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
