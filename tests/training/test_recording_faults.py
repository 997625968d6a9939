"""What goes wrong with a recording ends it with one warning, and leaves the training as it was."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lsviz
from lsviz.exponents import ExponentHistogram
from lsviz.training.recording import Recording
from tests.training.test_recording import STEPS, build, hooks_left, plain


def train_on(rec: Recording, model: nn.Module) -> list[float]:
    """Train to the end, with a single warning on the way."""
    with pytest.warns(RuntimeWarning, match="lsviz stopped recording") as told, rec:
        losses = plain(model, rec)
    assert len([w for w in told if "lsviz" in str(w.message)]) == 1
    assert "Training goes on." in str(told[0].message)
    return losses


def expected_losses() -> list[float]:
    model = build()
    torch.manual_seed(1)
    return plain(model, None)


def test_a_folder_that_can_not_be_written_leaves_training_going(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = build()
    torch.manual_seed(1)
    assert train_on(lsviz.record(model, tmp_path / "file" / "run"), model) == expected_losses()


@pytest.mark.parametrize("failing", ["write_parquet", "write_json", "compact"])
def test_a_full_disk_leaves_training_going(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    rec = lsviz.record(model, tmp_path / "run").start()
    rec._interval = 0.0  # write at every step

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"lsviz.runs.writer.{failing}", full)
    torch.manual_seed(1)
    if failing == "compact":  # which leaves the parts as they are: nothing is lost
        assert plain(model, rec) == expected_losses()
        rec.close()
        assert len(lsviz.open_run(rec.path).steps()) == STEPS
    else:
        assert train_on(rec, model) == expected_losses()


def test_a_crash_within_a_hook_leaves_training_going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    calls = 0

    def crash(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise ZeroDivisionError("a fault of ours")
        return ExponentHistogram.empty()

    monkeypatch.setattr("lsviz.training.recorder.tally_later", crash)
    torch.manual_seed(1)
    assert train_on(lsviz.record(model, tmp_path / "run"), model) == expected_losses()
    status = lsviz.open_run(tmp_path / "run").status
    assert (status.state, status.error) == (
        "failed",
        "recording ended: ZeroDivisionError: a fault of ours",
    )
    assert hooks_left(model) == 0


def test_where_warnings_are_errors_this_one_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    model = build()
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lsviz.record(model, tmp_path / "file" / "run") as rec:
            assert plain(model, rec) == expected_losses()
    assert "lsviz stopped recording" in capsys.readouterr().err
