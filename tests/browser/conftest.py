"""A real server and a real Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import PATIENCE, REPOSITORY, clean_environment

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
expect.set_options(timeout=90_000)  # not Playwright's 5 seconds: a busy machine takes its time


@dataclass
class Server:
    """A dashboard of its own, with the folder of its runs."""

    url: str
    runs: Path


@dataclass
class Complaints:
    """What a page did that it should not: console errors and requests to other hosts."""

    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


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
    """The dashboard as ``make app`` starts it, on a free port, with an empty folder of runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("wb")
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
        env=clean_environment(LSVIZ_RUNS=str(tmp_path / "runs")),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=10).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.1)
        yield Server(url, tmp_path / "runs")
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)
        log.close()


def watch_page(page: Page, url: str) -> Complaints:
    """Collect the page's console errors and requests that leave the server."""
    complaints = Complaints()
    page.on("console", lambda m: complaints.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.errors.append(str(error)))
    page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith((url, "ws" + url[4:], "data:", "blob:"))
            else complaints.strangers.append(r.url)
        ),
    )
    return complaints
