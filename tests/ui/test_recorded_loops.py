"""Runs of other people's loops on the pages: no task of ours, no reference, perhaps no loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import lsviz
from tests.ui.opening import PAGES, open_page, words


@pytest.fixture
def recorded(runs_root: Path) -> list[str]:
    """A run in FP16 with GradScaler, and one in FP32 that tells no loss."""
    torch.manual_seed(0)
    ids = []
    for name, scaler in (("mine", torch.amp.GradScaler("cpu")), ("bare", None)):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        with lsviz.record(model, runs_root / name, scaler=scaler, every=2) as rec:
            for _ in range(4):
                with torch.autocast("cpu", dtype=torch.float16, enabled=scaler is not None):
                    loss = model(torch.randn(16, 4)).float().pow(2).mean()
                (scaler.scale(loss) if scaler else loss).backward()
                rec.step(loss if scaler else None)
        ids.append(rec.path.name)
    return ids


@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize("page", PAGES)
def test_every_page_takes_them(page: str, recorded: list[str]) -> None:
    at = open_page(page)
    assert not at.exception


def test_compare_says_what_can_not_be_told(recorded: list[str]) -> None:
    at = open_page("compare", runs=",".join(recorded))
    assert not at.exception
    text = words(at)
    assert "Zero among the gradient values" in text
    assert "nobody can tell which FP16 lost" in text
    assert "Recording takes" in text


def test_a_recorded_loop_can_be_watched(recorded: list[str]) -> None:
    at = open_page("launch", run=recorded[1])
    assert not at.exception
    assert "Finished." in words(at)
