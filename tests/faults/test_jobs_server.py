"""A dashboard's server that dies in three ways leaves its jobs running, and the next one takes them on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from lsviz.jobs.manager import live_status
from tests.conftest import PATIENCE, REPOSITORY, clean_environment
from tests.faults.jobs import all_runs, assert_settled, end_all, tiny, wait_until
from tests.ui.opening import open_page

SERVER = """
import os, runpy, sys
from pathlib import Path
from lsviz.jobs.manager import submit_run
from lsviz.runs.config import RunConfig
for text in sys.argv[2:]:
    submit_run(Path(os.environ["LSVIZ_RUNS"]), RunConfig.model_validate_json(text))
del sys.argv[2:]
runpy.run_module("lsviz.ui.serving", run_name="__main__")
"""
"""The real server, which launches two runs before it answers."""


def serve(root: Path, port: int) -> subprocess.Popen[bytes]:
    settings = {"server.port": port, "server.address": "127.0.0.1", "server.headless": True}
    configs = [tiny(seed, steps=200_000, record_every=100).model_dump_json() for seed in (1, 2)]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(settings), *configs],
        cwd=REPOSITORY,
        env=clean_environment(LSVIZ_SLOTS="2", LSVIZ_RUNS=str(root)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: answers(port))
    return server


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def press(app: AppTest, key: str) -> None:
    app.button(key=key).click()
    app.run()
    assert not app.exception, app.exception


@pytest.mark.soak
@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_jobs_outlive_their_server_and_the_next_one_takes_them_on(
    number: signal.Signals, runs_root: Path
) -> None:
    server = serve(runs_root, free_port())
    try:
        runs = all_runs(runs_root)
        wait_until(lambda: all(run.status.step for run in runs))
        server.send_signal(number)
        server.wait(PATIENCE)
        before = {run.run_id: run.status.step for run in runs}
        wait_until(lambda: all(run.status.step > before[run.run_id] for run in runs))
        processes = [psutil.Process(run.status.pid) for run in runs]

        # The dashboard in another process, which never heard of them: it has their folders alone.
        app = open_page("launch", run=",".join(run.run_id for run in runs))
        for run in runs:
            press(app, f"cancel-{run.run_id}")
        wait_until(lambda: all(not live_status(run).live for run in runs))
        assert {run.status.state for run in runs} == {"cancelled"}
        assert not psutil.wait_procs(processes, timeout=30)[1], "not even as zombies"
        assert_settled(runs_root)
    finally:
        server.kill()
        server.wait()
        end_all(runs_root)
