from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lsviz


@pytest.mark.parametrize(
    ("scaler", "policy", "scale"),
    [
        (None, "none", 1.0),
        (1024, "constant:1024", 1024.0),
        (torch.amp.GradScaler("cpu", enabled=False), "none", 1.0),
        (torch.amp.GradScaler("cpu", backoff_factor=0.25), "gradscaler:backoff_factor=0.25", 65536.0),
        (lambda: 32.0, "gradscaler", 32.0),
    ],
)
def test_whatever_scales_the_loss_is_told(scaler: Any, policy: str, scale: float, tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    with lsviz.record(layer, tmp_path / "run", scaler=scaler) as rec:
        layer(torch.randn(3, 2)).sum().backward()
        rec.step(1.0)
    run = lsviz.open_run(rec.path)
    assert run.config.policy == policy
    assert run.steps()["loss_scale"].tolist() == [scale]
