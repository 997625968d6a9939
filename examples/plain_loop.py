"""A PyTorch loop with GradScaler, recorded: python examples/plain_loop.py [FOLDER]."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import lsviz


def main(folder: str = "runs/plain-loop") -> None:
    """Train a small network on digits for 100 steps."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels / 16.0, dtype=torch.float32, device=device)
    y = torch.tensor(labels, device=device)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(device)

    with lsviz.record(model, folder, scaler=scaler, every=10) as rec:
        for _ in range(100):
            batch = torch.randint(len(x), (128,), device=device)
            with torch.autocast(device, dtype=torch.float16):
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            rec.step(loss)
    print(f"recorded in {rec.path}; see it: lsviz dash")


if __name__ == "__main__":
    main(*sys.argv[1:])
