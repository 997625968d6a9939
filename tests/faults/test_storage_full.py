"""A full disk ends the recording with one clear message; what was acknowledged stays, training goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsviz.runs.files import RunFolderError, write_json
from lsviz.runs.reader import Run, open_run
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import PATIENCE, REPOSITORY
from tests.faults.forking import writers
from tests.faults.rows import CONFIG, append_step, cells, read_tables, write_run
from tests.faults.writing import acknowledged

TRAIN = """
import json, resource, sys, torch, lsviz
path, limit = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.01)
rec = lsviz.record(model, path) if path else None
if rec:
    rec.start()
    rec._interval = 0.0  # a part at every step
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
losses = []
for step in range(60):
    loss = model(torch.full((8, 4), step / 60)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if rec:
        rec._interval = 0.0
        rec.step(loss)
if rec:
    rec.close()
print(json.dumps(losses))
"""


def train(path: str, limit: int) -> tuple[list[float], str]:
    """Train, recording where there is a path, and return the losses and what was said of errors."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, path, str(limit)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses: list[float] = json.loads(done.stdout)
    return losses, done.stderr


@pytest.fixture(scope="module")
def unrecorded() -> list[float]:
    return train("", 0)[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def check_ended(run: Run, said: str) -> None:
    """See that one message was said and noted, and that all is readable."""
    messages = [line for line in said.splitlines() if "lsviz stopped recording" in line]
    assert len(messages) == 1, said
    assert messages[0].endswith("Training goes on.")
    assert "is the disk full?" in messages[0]
    status = run.status
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.startswith("recording ended: can't write ")
    assert "\n" not in status.error
    assert {name: len(frame) for name, frame in read_tables(run).items()}["steps"] <= 60
    assert not run.problems
    assert not list(run.path.glob(".*"))


def test_a_limit_of_file_size_ends_the_recording(unrecorded: list[float], tmp_path: Path) -> None:
    losses, said = train(str(tmp_path / "run"), 3_000)
    assert losses == unrecorded
    check_ended(open_run(tmp_path / "run"), said)


def test_a_full_disk_ends_the_recording(unrecorded: list[float], small_disk: Path) -> None:
    losses, said = train(str(small_disk / "run"), 0)
    assert losses == unrecorded
    run = open_run(small_disk / "run")
    check_ended(run, said)
    assert len(run.steps()) > 5


def test_what_was_acknowledged_stays_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    with writers(tmp_path) as server:
        path = create_run(small_disk, CONFIG)
        server.start("write_steps", path, tmp_path / "told", 500, 1)
        assert server.ended() == 1
    run = open_run(path)
    count = acknowledged(tmp_path / "told")
    assert count > 10
    whole = read_tables(write_run(tmp_path, count + 1))
    for name, frame in read_tables(run).items():
        due = whole[name][whole[name]["step"] < count]
        assert set(cells(due)) <= set(cells(frame)) <= set(cells(whole[name]))
    assert (run.status.state, run.problems) == ("failed", [])
    (line,) = (tmp_path / "errors.txt").read_text().splitlines()
    assert line.startswith("RunFolderError: can't write ")
    assert "is the disk full? (No space left on device)" in line


def test_on_a_disk_too_full_to_put_parts_together_they_stay(small_disk: Path) -> None:
    with RunWriter(create_run(small_disk, CONFIG)) as writer:
        for step in range(20):
            append_step(writer, step)
            writer.flush()
        room = small_disk / "other"
        with pytest.raises(OSError, match="No space"):
            room.write_bytes(b"x" * 2_000_000)
    run = open_run(writer.path)
    assert run.status.state == "finished"
    assert len(run.exponents()) == 20 * 6
    assert len(run.steps()) == 20


def test_a_status_is_never_torn(small_disk: Path) -> None:
    path = small_disk / "status.json"
    write_json(path, {"number": 0})
    (small_disk / "other").write_bytes(b"x" * 900_000)
    number = 0
    failed = False
    while not failed:
        number += 1
        try:
            write_json(path, {"number": number, "text": "x" * number * 4096})
        except OSError:
            failed = True
    assert json.loads(path.read_text())["number"] == number - 1
    assert sorted(file.name for file in small_disk.iterdir()) == ["other", "status.json"]


def test_a_folder_on_a_full_disk_can_not_be_made(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "other").write_bytes(b"x" * 2_000_000)
    with pytest.raises(RunFolderError, match=r"can't write runs to .* \(No space left on device\)"):
        create_run(small_disk, CONFIG)
    assert [file.name for file in small_disk.iterdir()] == ["other"]
