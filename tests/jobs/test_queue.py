"""The queue: who is next, what is told, what is refused. Workers are real; most tests need none."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from lsviz.errors import UserError
from lsviz.jobs.manager import cancel_run, live_status, submit_run
from lsviz.jobs.queue import (
    LOCK,
    TURNS,
    QueueFullError,
    check_room,
    claim,
    default_owner,
    enqueue,
    live_jobs,
    places,
    start_due,
    wait_for_turn,
)
from lsviz.jobs.slots import cores, max_queued, slots
from lsviz.runs.files import RunFolderError, write_json
from lsviz.runs.limits import RunLimits
from lsviz.runs.process import NOBODY, own_mark
from lsviz.runs.reader import Run, open_run
from lsviz.runs.writer import RunWriter, create_run
from tests.faults.jobs import tiny, wait_until


@pytest.fixture(autouse=True)
def one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSVIZ_SLOTS", "1")


def put(root: Path, place: float, owner: str) -> Run:
    """A run that waits, as a process that died just after asking leaves it."""
    return open_run(create_run(root, tiny(), queued=place, owner=owner))


def occupy(root: Path) -> Run:
    """A run that trains in this process, so that the only slot is taken."""
    run = enqueue(root, tiny(), here=True)
    assert wait_for_turn(run, lambda: False, lambda place: None)
    return run


def test_owners_take_turns_each_in_the_order_of_asking(tmp_path: Path) -> None:
    asked = [(1, "a"), (2, "a"), (5, "a"), (3, "b"), (4, "b"), (6, "c")]
    names = {put(tmp_path, place, owner).run_id: f"{owner}{place}" for place, owner in asked}
    told = sorted(places(tmp_path).items(), key=lambda pair: pair[1])
    assert [names[run_id] for run_id, _ in told] == ["a1", "b3", "c6", "a2", "b4", "a5"]
    assert [place for _, place in told] == [1, 2, 3, 4, 5, 6]
    write_json(tmp_path / TURNS, {"turns": ["c", "b"]})  # b had the last turn, c the one before; a none yet
    told = sorted(places(tmp_path).items(), key=lambda pair: pair[1])
    assert [names[run_id] for run_id, _ in told][:3] == ["a1", "c6", "b3"]
    (tmp_path / TURNS).write_text("[[")  # lost: the turns begin anew, no run is
    assert len(places(tmp_path)) == 6


def test_a_run_waits_for_a_slot_and_starts_with_nobody_looking(tmp_path: Path) -> None:
    began = time.time()
    first, second = submit_run(tmp_path, tiny(1)), submit_run(tmp_path, tiny(2))
    assert first.status.pid is not None
    assert second.status.state == "queued"
    assert second.status.pid is None
    assert places(tmp_path) == {second.run_id: 1}
    assert first.record.owner == second.record.owner == default_owner()
    assert first.record.queued is not None
    assert began - 1 < first.record.queued < (second.record.queued or 0)
    # status.json alone is read: nobody here starts anything
    wait_until(lambda: second.status.state == "finished")
    assert live_status(first).state == "finished"
    assert not live_jobs(tmp_path)


def test_of_many_threads_submits_none_is_lost_and_none_starts_twice(tmp_path: Path) -> None:
    taken = occupy(tmp_path)
    threads = [
        threading.Thread(
            target=lambda at=at: [submit_run(tmp_path, tiny(at), owner=str(at)) for _ in "12345"]
        )
        for at in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    jobs = live_jobs(tmp_path)
    waiting = [job for job in jobs if job.waits]
    assert len({job.record.queued for job in waiting}) == 30
    assert [job.run.run_id for job in jobs if not job.waits] == [taken.run_id]
    first = sorted(places(tmp_path).items(), key=lambda pair: pair[1])[:6]
    assert len({open_run(tmp_path / run_id).record.owner for run_id, _ in first}) == 6


def test_a_full_queue_says_what_would_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSVIZ_MAX_QUEUED", "2")
    occupy(tmp_path)
    check_room(tmp_path, 2)
    submit_run(tmp_path, tiny(1))
    with pytest.raises(QueueFullError, match="no room for 2 more"):
        check_room(tmp_path, 2)
    submit_run(tmp_path, tiny(2))
    with pytest.raises(QueueFullError, match=r"2 runs wait in .* already, and 2 may .*wait until .*cancel"):
        submit_run(tmp_path, tiny(3))
    assert len(live_jobs(tmp_path)) == 3, "nothing is left of what was refused"


def test_a_waiting_run_is_cancelled_at_once(tmp_path: Path) -> None:
    occupy(tmp_path)
    run = submit_run(tmp_path, tiny())
    assert cancel_run(run)
    assert run.status.state == "cancelled"
    assert not claim(run), "a process that was started for it finds it gone"
    assert not cancel_run(run)


def test_a_command_waits_for_its_turn_and_can_leave(tmp_path: Path) -> None:
    first = occupy(tmp_path)
    second = enqueue(tmp_path, tiny(), here=True)
    assert second.status.waiting
    assert live_status(second).state == "queued"
    told: list[int] = []
    assert not wait_for_turn(second, lambda: bool(told), told.append)
    assert told == [1]
    assert second.status.state == "cancelled"

    third = enqueue(tmp_path, tiny(), here=True)
    with RunWriter(first.path):
        start_due(tmp_path)
        assert third.status.waiting
    start_due(tmp_path)
    assert wait_for_turn(third, lambda: False, told.append)
    assert third.status.pid == own_mark()["pid"]


def test_a_command_that_died_while_it_waited_gives_its_place_away(tmp_path: Path) -> None:
    occupy(tmp_path)
    run = enqueue(tmp_path, tiny(), here=True)
    dead = run.status.model_copy(update={"start_ticks": 1})
    write_json(run.path / "status.json", dead.model_dump())
    assert places(tmp_path) == {}
    assert live_status(run).state == "interrupted"
    assert "the command that waited" in (run.status.error or "")


def test_beside_a_sweep_the_queue_goes_on(tmp_path: Path) -> None:
    with (
        RunWriter(create_run(tmp_path, tiny())),
        RunWriter(create_run(tmp_path, tiny())),
    ):  # as its workers do
        first, second = (enqueue(tmp_path, tiny(), here=True) for _ in range(2))
        assert not first.status.waiting
        assert second.status.waiting


def test_a_run_without_a_place_is_nobody_elses_to_start(tmp_path: Path) -> None:
    run = open_run(create_run(tmp_path, tiny()))
    start_due(tmp_path)
    assert run.status.model_dump() | NOBODY == run.status.model_dump()
    assert places(tmp_path) == {}


def test_the_clock_may_be_set_back(tmp_path: Path) -> None:
    occupy(tmp_path)
    late = put(tmp_path, time.time() + 3600, default_owner())
    run = submit_run(tmp_path, tiny())
    assert places(tmp_path) == {late.run_id: 1, run.run_id: 2}


def test_settings_have_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert slots() == 1
    for text in ("0", "many", "-1", "99999"):
        monkeypatch.setenv("LSVIZ_SLOTS", text)
        with pytest.raises(UserError, match=r"LSVIZ_SLOTS: .* is no whole number from 1 to"):
            submit_run(tmp_path / "runs", tiny())
        assert not (tmp_path / "runs").exists()
    monkeypatch.delenv("LSVIZ_SLOTS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots() == cores()
    assert max_queued() == 200


def test_what_a_run_may_take_has_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LSVIZ_MAX_STEPS", "5")
    with pytest.raises(UserError, match="steps: 6 are more than the 5 that one run may have"):
        submit_run(tmp_path / "runs", tiny())
    monkeypatch.setenv("LSVIZ_MAX_HOURS", "0.5")
    assert RunLimits.build(memory_gib=2.0) == RunLimits(steps=5, hours=0.5, memory_gib=2.0)
    assert RunLimits.build(hours=2).hours == 2, "what is asked for goes before what is set"
    monkeypatch.setenv("LSVIZ_MAX_HOURS", "nan")
    with pytest.raises(UserError, match=r"LSVIZ_MAX_HOURS: .*got 'nan'"):
        RunLimits.build()
    with pytest.raises(UserError, match=r"hours: .*greater than 0, got -1"):
        RunLimits.build(hours=-1)


def test_a_root_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can't write runs to"):
        submit_run(tmp_path / "file", tiny())
    start_due(tmp_path / "file")  # a look never fails


def test_who_asks_waits_for_who_is_asking(tmp_path: Path) -> None:
    occupy(tmp_path)
    asking = threading.Thread(target=submit_run, args=(tmp_path, tiny()))
    with FileLock(tmp_path / LOCK):  # as another process holds it
        asking.start()
        time.sleep(0.5)
        assert not places(tmp_path)
    asking.join()
    assert len(places(tmp_path)) == 1
