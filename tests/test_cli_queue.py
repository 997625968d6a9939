"""Commands and the queue: `lsviz run` waits for its turn; `lsviz list` tells places, and starts runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lsviz.jobs.manager import live_status
from lsviz.jobs.queue import enqueue
from lsviz.runs.reader import open_run
from lsviz.runs.writer import RunWriter, create_run
from tests.commands import forked
from tests.conftest import PATIENCE, clean_environment
from tests.faults.jobs import all_runs, tiny, wait_until


def start_command(folder: Path) -> subprocess.Popen[str]:
    arguments = ["run", "--task", "digits-mlp", "--steps", "6", "--record-every", "0", "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "lsviz", *arguments],
        cwd=folder,
        env=clean_environment(LSVIZ_SLOTS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_in_a_terminal_waits_for_its_turn(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with RunWriter(create_run(root, tiny(), queued=1.0)):
        command = start_command(tmp_path)
        assert command.stderr is not None
        line = command.stderr.readline()
        assert line == "lsviz: queued, 1st: it begins when its turn comes; Ctrl-C leaves the queue\n"
        listed = json.loads(forked("list", "--json", cwd=tmp_path, torch=False, LSVIZ_SLOTS="1").stdout)
        assert [(row["state"], row["place"]) for row in listed] == [("queued", 1), ("running", None)]
        shown = forked("list", cwd=tmp_path, torch=False, LSVIZ_SLOTS="1", COLUMNS="200").stdout
        assert "queued, 1st" in shown
    out, error = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, error
    assert open_run(root / json.loads(out)["run_id"]).status.state == "finished"


def test_ctrl_c_leaves_the_queue(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with RunWriter(create_run(root, tiny(), queued=1.0)):
        command = start_command(tmp_path)
        assert command.stderr is not None
        command.stderr.readline()
        command.send_signal(signal.SIGINT)
        _, error = command.communicate(timeout=PATIENCE)
        assert (command.returncode, error) == (130, "lsviz: cancelled while it waited for its turn\n")
    assert sorted(run.status.state for run in all_runs(root)) == ["cancelled", "finished"]


def test_listing_starts_what_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSVIZ_SLOTS", "1")
    root = tmp_path / "runs"
    with RunWriter(create_run(root, tiny(), queued=1.0)):
        run = enqueue(root, tiny())
    assert run.status.pid is None, "nobody looked when the slot got free"
    assert forked("list", cwd=tmp_path, torch=False).returncode == 0
    assert run.status.pid is not None or not run.status.live
    wait_until(lambda: not live_status(run).live)
    assert run.status.state == "finished"
