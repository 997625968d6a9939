"""A run has one writer: a second one is refused at once, and a child of the first is none."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lsviz
from lsviz.runs.config import RunConfig
from lsviz.runs.files import RunFolderError
from lsviz.runs.locking import LOCK, RunBusyError, is_being_written
from lsviz.runs.reader import Run, open_run
from lsviz.runs.writer import RunExistsError, RunWriter, create_run
from tests.conftest import PATIENCE, REPOSITORY
from tests.faults.forking import Writers, wait_until, writers
from tests.faults.rows import CONFIG, append_step, read_tables
from tests.faults.writing import acknowledged

RECORD = """
import sys, time, torch, lsviz
model = torch.nn.Linear(2, 1)
with lsviz.record(model, sys.argv[1]) as rec:
    print(rec.path, rec.active, flush=True)
    sys.stdin.readline()
    for step in range(20):
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        rec.step(loss)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Writers]:
    with writers(tmp_path) as started:
        yield started


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.suffix in (".json", ".parquet")}


def test_a_second_writer_is_refused_and_changes_nothing(server: Writers, tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    with RunWriter(path) as writer:
        append_step(writer, 0)
        writer.flush()
        before = content(path)
        assert is_being_written(path)
        server.start("write_steps", path, tmp_path / "told", 3, 1)
        assert server.ended() == 1
        assert (tmp_path / "errors.txt").read_text() == (
            f"RunBusyError: {path.name} is being written by process {os.getpid()}: a run has one writer\n"
        )
        with pytest.raises(RunBusyError, match="by this process already"):
            RunWriter(path).__enter__()
        assert content(path) == before
        server.start("write_steps", path, tmp_path / "told", 3, 1)  # the refused one freed nothing
        assert server.ended() == 1
    assert not is_being_written(path)
    assert not (path / LOCK).exists()
    assert open_run(path).status.state == "finished"


def test_a_run_that_has_begun_is_not_begun_again(server: Writers, tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    process = server.start("write_steps", path, tmp_path / "told", 5_000, 1)
    wait_until(lambda: acknowledged(tmp_path / "told") > 0)
    assert is_being_written(path)
    os.kill(process, signal.SIGKILL)
    server.ended()
    assert not is_being_written(path)
    before = content(path)
    with pytest.raises(RunBusyError, match=r"has begun already \(running\): a run is written once"):
        RunWriter(path).__enter__()
    assert content(path) == before


def test_a_worker_started_twice_is_refused_in_one_line(tmp_path: Path) -> None:
    path = create_run(tmp_path, RunConfig.build(task="sigmoid-mlp", steps=100_000))
    command = [sys.executable, "-m", "lsviz.jobs.worker", str(path)]
    first = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(Run(path).steps()) > 0)
        second = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert second.returncode == 2
        assert second.stderr == (
            f"error: {path.name} is being written by process {first.pid}: a run has one writer\n"
        )
        status = open_run(path).status
        assert (status.state, status.pid, status.error) == ("running", first.pid, None)
    finally:
        first.kill()
        first.wait()


def test_two_recordings_of_one_path_are_two_runs(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, str(tmp_path / "mine")],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = {process.stdout.readline() for process in processes if process.stdout}
    assert told == {f"{tmp_path / name} True\n" for name in ("mine", "mine-2")}
    for process in processes:
        process.communicate("\n", timeout=PATIENCE)
        assert process.returncode == 0
    for name in ("mine", "mine-2"):
        run = lsviz.open_run(tmp_path / name)
        assert run.status.state == "finished"
        assert run.steps()["step"].tolist() == list(range(20))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine-2"]


def in_a_fork(act: Callable[[], None]) -> int:
    """Fork a child that acts, and return its exit code."""
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            act()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_neither_writes_nor_frees_its_parents_run(server: Writers, tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    with RunWriter(path) as writer:
        append_step(writer, 0)
        writer.flush()
        before = content(path)

        def act() -> None:
            os.closerange(3, 256)  # whatever it inherited

        assert in_a_fork(act) == 0
        assert in_a_fork(lambda: writer.__exit__(None, None, None)) == 0
        for wrong in (writer.flush, lambda: writer.end("finished")):
            assert in_a_fork(lambda wrong=wrong: _refused(wrong)) == 0
        assert content(path) == before
        server.start("write_steps", path, tmp_path / "told", 3, 1)
        assert server.ended() == 1


def _refused(act: Callable[[], None]) -> None:
    with pytest.raises(RunFolderError, match="written by the process that this one was forked from"):
        act()


def test_a_child_that_outlives_the_writer_does_not_keep_the_run(server: Writers, tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    process = server.start("write_with_a_child", path, tmp_path / "told")
    wait_until(lambda: (tmp_path / "told").exists() and bool((tmp_path / "told").read_text()))
    child = int((tmp_path / "told").read_text())
    try:
        assert is_being_written(path)
        os.kill(process, signal.SIGKILL)
        server.ended()
        os.kill(child, 0)
        assert not is_being_written(path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_name_that_is_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("")
    with pytest.raises(RunExistsError, match=r"there is something called .*taken"):
        create_run(tmp_path, CONFIG, "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_killed_creation_does_not_block_its_name(tmp_path: Path) -> None:
    (tmp_path / ".mine.tmp").mkdir()
    (tmp_path / ".mine.0123abcd.tmp").mkdir()
    assert create_run(tmp_path, CONFIG, "mine") == tmp_path / "mine"


def test_reading_while_writing_never_fails_and_never_goes_back(server: Writers, tmp_path: Path) -> None:
    for turn in range(2):
        path = create_run(tmp_path, CONFIG)
        told = tmp_path / f"told{turn}"
        server.start("write_steps", path, told, 60, 1 + turn)
        most: dict[str, int] = {}
        looked = 0
        ended = False
        while not ended:
            ended = told.exists() and "ended" in told.read_text()
            run = Run(path)
            status = run.status
            rows = {name: len(frame) for name, frame in read_tables(run).items()}
            rows |= {"step": status.step, "recorded": len(run.recorded_steps())}
            assert not run.problems
            assert all(rows[name] >= before for name, before in most.items()), (most, rows)
            most = rows
            looked += 1
        assert server.ended() == 0
        assert most["steps"] == most["step"] == most["recorded"] == 60
        assert looked > 3


@pytest.mark.parametrize("hours", [-5.0, 7.0])
def test_a_clock_that_jumps_changes_nothing_but_times(hours: float, server: Writers, tmp_path: Path) -> None:
    paths = [create_run(tmp_path / "runs", CONFIG) for _ in range(2)]
    for path, name in zip(paths, ("write_steps", "write_with_jumps"), strict=True):
        extra = (3, 1) if name == "write_steps" else (3, 1, hours)
        server.start(name, path, tmp_path / f"{path.name}.told", *extra)
        assert server.ended() == 0
    calm, jumpy = (Run(path) for path in paths)
    assert all(frame.equals(read_tables(calm)[name]) for name, frame in read_tables(jumpy).items())
    assert jumpy.status.state == calm.status.state == "finished"
    assert jumpy.status.updated != calm.status.updated
    made = json.loads((tmp_path / f"{jumpy.run_id}.told.ids").read_text())
    assert len(set(made)) == len(made) == 20
