"""Exported W&B runs, read back from the file that ``wandb sync`` sends."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

from lsviz.analysis.shares import flushed_frame
from lsviz.runs.eventfiles import MissingPackageError
from lsviz.runs.wandbfiles import save_wandb
from tests.runs.test_eventfiles import sample

BLOCK = 32 * 1024


def records(folder: Path) -> list[Any]:
    """Return the records of an offline run: its file is a log as LevelDB has them, after 7 bytes of W&B's."""
    (file,) = folder.glob("*.wandb")
    data = file.read_bytes()
    assert data.startswith(b":W&B")
    at, part, found = 7, b"", []
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < 7:  # too little for a header: the block's end is padding
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            found.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return found


def test_an_offline_run_holds_numbers_histograms_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")  # a person's own setting does not send it anywhere
    run = sample("sigmoid-mlp", "constant:1024")
    folder = save_wandb(run, flushed_frame(run.exponents()), tmp_path)
    assert folder.parent == tmp_path / "wandb"
    assert folder.name.startswith("offline-run-")
    found = records(folder)
    (about,) = [record.run for record in found if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert (config["policy"], config["task"]) == ("constant:1024", "sigmoid-mlp")
    assert "floor(log2 |g|)" in about.notes
    assert about.host == "lsviz"
    told = [
        {tuple(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    steps = run.steps()
    assert [row["loss",] for row in told] == pytest.approx(steps["loss"].tolist())
    assert [row["_step",] for row in told] == steps["step"].tolist()
    exponents = run.exponents(kind="activation_grad", reference=False)
    for row in exponents.itertuples():
        tag, here = f"exponent/{row.kind}/{row.tensor}", told[row.step]
        assert here[tag, "_type"] == "histogram"
        edges, counts = here[tag, "bins"], here[tag, "values"]
        assert len(edges) == len(counts) + 1
        counted = {x: n for x, n in zip(edges, counts, strict=False) if n}
        assert counted == {i - 80: int(n) for i, n in enumerate(row.counts) if n}
    assert len(exponents) > 20
    sent = b"".join(file.read_bytes() for file in [*folder.glob("*.wandb"), *folder.glob("files/*")])
    assert str(tmp_path).encode() not in sent


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = sample("sigmoid-mlp", "constant:1024")
    with pytest.raises(MissingPackageError, match=r"pip install 'lsviz\[wandb\]'"):
        save_wandb(run, flushed_frame(run.exponents()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
