"""Jobs under load and under random kills, for minutes on end: `make soak`.

LSVIZ_SOAK_SECONDS tells how long the random kills go on; 1,200 by default.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from lsviz.jobs.manager import cancel_run, live_status, submit_run
from lsviz.jobs.queue import start_due
from lsviz.runs.process import is_alive, send_signal
from tests.faults.jobs import (
    all_runs,
    assert_settled,
    end_all,
    start_server,
    stop_server,
    tiny,
    training,
    wait_until,
)

SECONDS = float(os.environ.get("LSVIZ_SOAK_SECONDS", "1200"))
SLOTS = 2

pytestmark = pytest.mark.soak


@pytest.mark.timeout(3600)
def test_a_hundred_runs_from_ten_threads_share_two_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSVIZ_SLOTS", str(SLOTS))

    def submit(thread: int) -> None:
        for number in range(10):
            submit_run(tmp_path, tiny(10 * thread + number), owner=f"owner-{thread % 5}")

    threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked = all_runs(tmp_path)
    assert len(asked) == 100
    places = [run.record.queued for run in asked]
    assert len(set(places)) == 100

    most, begun = 0, dict.fromkeys((run.run_id for run in asked if run.status.state != "queued"), 0)
    while any(live_status(run).live for run in asked):  # nobody else looks: workers alone keep it going
        states = {run.run_id: run.status for run in asked}
        at_once = [status for status in states.values() if status.live and status.pid is not None]
        most = max(most, len(at_once))
        for run_id, status in states.items():
            if status.pid is not None or not status.live:
                begun.setdefault(run_id, len(begun))
        time.sleep(0.05)
    assert most == SLOTS
    assert {run.status.state for run in asked} == {"finished"}
    assert all(run.log_tail(1000).count("6 steps") == 1 for run in asked), "each was trained once"
    for owner in {run.record.owner for run in asked}:
        mine = [begun[run.run_id] for run in asked if run.record.owner == owner]
        # Two that begin between two looks are seen in no order.
        assert all(later > earlier - SLOTS for earlier, later in pairwise(mine))
    owners = [run.record.owner for run in sorted(asked, key=lambda run: begun[run.run_id])]
    for at in range(10, 90, 5):  # once all have come, nobody waits longer than the others' turn
        assert set(owners[at : at + 5 + SLOTS]) == {f"owner-{number}" for number in range(5)}
    assert_settled(tmp_path)


@pytest.mark.timeout(SECONDS + 1800)
def test_random_kills_lose_no_block_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSVIZ_SLOTS", str(SLOTS))
    seed = int(os.environ.get("LSVIZ_SOAK_SEED", time.time_ns() % 10**6))
    print(f"LSVIZ_SOAK_SEED={seed}")
    chance = random.Random(seed)
    kept: dict[str, int] = {}
    killed = {"worker": 0, "starting": 0, "server": 0, "cancelled": 0}
    most = number = 0
    server = start_server(tmp_path)
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.1, 3.0))
            runs = [run for run in all_runs(tmp_path) if run.status.live]
            for run in runs:
                kept[run.run_id] = max(kept.get(run.run_id, 0), run.status.step)
            alive = [run for run in runs if run.status.pid is not None and is_alive(run.status)]
            most = max(most, len(alive))
            if len(runs) < 6:
                number += 1
                steps = chance.choice([40, 400, 4000, 20_000])
                config = tiny(number, steps=steps, record_every=chance.choice([0, 1, 10]))
                submit_run(tmp_path, config, owner=chance.choice("ABC"))
            act = chance.random()
            if act < 0.35 and alive:
                run = chance.choice(alive)
                status = run.status
                seen = len(run.steps())
                if send_signal(status, signal.SIGKILL):
                    killed["worker" if status.state == "running" else "starting"] += 1
                    kept[run.run_id] = max(kept.get(run.run_id, 0), seen, status.step)
            elif act < 0.45:
                stop_server(server, chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                killed["server"] += 1
                server = start_server(tmp_path, tiny(10_000 + number, steps=200), owner="D")
            elif act < 0.6 and runs:
                killed["cancelled"] += cancel_run(chance.choice(runs), patience=5)
        for run in all_runs(tmp_path):
            cancel_run(run, patience=5)
        stop_server(server)

        def is_over() -> bool:
            start_due(tmp_path)
            return not any(live_status(run).live for run in all_runs(tmp_path))

        wait_until(is_over, 600)
    except BaseException:
        stop_server(server)
        end_all(tmp_path)
        raise
    runs = all_runs(tmp_path)
    ends = Counter(run.status.state for run in runs)
    print(f"{len(runs)} runs: {dict(ends)}; {killed}; at most {most} at once")
    assert most <= SLOTS
    assert not training(tmp_path)
    for run in runs:
        assert len(run.steps()) >= kept.get(run.run_id, 0), f"{run.run_id} lost what it had told"
        if run.status.state == "finished":
            assert len(run.steps()) == run.config.steps
    assert_settled(tmp_path)
