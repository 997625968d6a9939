"""Runs of other people's loops on the pages: no task of ours, no reference, perhaps no loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import lsviz
from lsviz.runs.incoming import import_path
from lsviz.runs.store import RunStore
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


@pytest.fixture
def imported(runs_root: Path, tmp_path: Path) -> list[str]:
    """A run made of an event file of weight gradients, and one of a JSON log without any."""
    writer = SummaryWriter(tmp_path / "log")
    for step in range(6):
        writer.add_scalar("loss", 1.0 / (step + 1), step)
        writer.add_scalar("amp/scale", 2.0 ** (10 - (step > 3)), step)
        for name in ("0.weight", "0.bias", "2.weight"):
            writer.add_histogram(f"grad/{name}", torch.randn(50) * 1e-4, step)
    writer.close()
    rows = [{"step": step, "scale": 2 ** (16 - step // 3), "found_inf": step % 3 == 2} for step in range(8)]
    (tmp_path / "amp.json").write_text(json.dumps(rows))
    store = RunStore.at(runs_root)
    return [import_path(tmp_path / name, store)[0][0].run_id for name in ("log", "amp.json")]


@pytest.mark.usefixtures("no_samples", "imported")
@pytest.mark.parametrize("page", PAGES)
def test_every_page_takes_imported_logs(page: str) -> None:
    assert not open_page(page).exception


@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize("page", ["explore", "whatif", "replay", "blame"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_page_of_one_run_takes_each(page: str, which: int, imported: list[str]) -> None:
    assert not open_page(page, seen=imported[which], runs=imported[which]).exception


@pytest.mark.usefixtures("no_samples")
def test_pages_say_what_an_imported_run_was_made_of(imported: list[str]) -> None:
    for app in (open_page("compare", runs=",".join(imported)), open_page("runs", marked=imported[0])):
        assert "Counts are approximate" in words(app)
    app = open_page("compare", runs=imported[0])
    assert "Gradients of each weight, step" in words(app)
    assert "Zero among the gradient values: 0 %" in words(app)
    assert "choose weights" in words(open_page("layers", runs=imported[0]))
    assert "choose" not in words(open_page("layers", runs=imported[0], kind="weights"))
    assert "Made of a JSON log" in words(open_page("compare", runs=",".join(imported)))


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
