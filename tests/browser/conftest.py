"""A real server and a real Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.driving import PATIENCE_MS
from tests.conftest import PATIENCE, REPOSITORY, clean_environment
from tests.serving import wait_until_served

expect.set_options(timeout=PATIENCE_MS)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Server:
    """A dashboard of its own, with the folder of its runs."""

    url: str
    runs: Path


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        reason = "no Chromium: install Debian's package chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The one browser of all tests, without a page left that would go on asking for a server that is gone."""
    yield chromium
    for context in chromium.contexts:
        context.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The dashboard with an empty folder of runs, which a test may fill."""
    with start_server(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard for tests that only read: one for all of them, with the sample runs alone."""
    with start_server(tmp_path_factory.mktemp("dashboard")) as started:
        yield started


@contextmanager
def start_server(folder: Path, **environment: str) -> Iterator[Server]:
    """Serve the dashboard as ``make app`` does, on a free port, with runs below a folder.

    Args:
        folder: Where runs and its log lie.
        environment: What it has beside this process's own environment.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "streamlit",
            "run",
            "app.py",
            "--server.headless",
            "true",
            "--server.port",
            str(port),
        ],
        cwd=REPOSITORY,
        env=clean_environment(LSVIZ_RUNS=str(folder / "runs"), **{"LSVIZ_SLOTS": "4", **environment}),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_served(process, url, folder / "server.log")
        yield Server(url, folder / "runs")
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)
        log.close()
