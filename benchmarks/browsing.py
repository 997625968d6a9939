"""Chromium at the dashboard: serving it, opening a page, and timing from a key or click to what changes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright

REPOSITORY = Path(__file__).parents[1]
APP = REPOSITORY / "app.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # A Chromium that is driven looks up where in a script it is, for which V8 parses Plotly's 4.7 MB anew:
    # half a second. With places known from the start a page takes as long as in one that nobody drives.
    "--js-flags=--no-enable-lazy-source-positions",
]
# From the key or button that goes down to the frame in which an element is drawn otherwise.
WATCH = """selector => {
  const drawn = () => document.querySelector(selector)?.innerHTML;
  const before = drawn();
  window.lsvizActed = window.lsvizDrawn = 0;
  const acted = () => { window.lsvizActed ||= performance.now(); };
  for (const kind of ['keydown', 'mousedown']) addEventListener(kind, acted, { capture: true, once: true });
  const look = () => {
    const now = drawn();
    if (window.lsvizActed && now && now !== before) window.lsvizDrawn = performance.now();
    else requestAnimationFrame(look);
  };
  look();
}"""
SETTLED = 700
"""Milliseconds after which a page has come to rest."""


@contextmanager
def server(script: Path, runs: Path | None = None) -> Iterator[str]:
    """Serve a Streamlit script, on a folder of runs of its own where given, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    process = subprocess.Popen(
        [*command, "--server.headless", "true", "--server.port", str(port)],
        cwd=REPOSITORY,
        env=os.environ if runs is None else {**os.environ, "LSVIZ_RUNS": str(runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def launched(playwright: Playwright) -> Browser:
    """Return Chromium without a window."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


def new_page(browser: Browser) -> Page:
    """Return a page with a cache of its own, of the size of a teacher's screen."""
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.set_default_timeout(60_000)
    return page


def seconds_to_open(page: Page, url: str, selector: str) -> float:
    """Return the seconds from navigation to the frame in which an element is there, by the browser's clock.

    Playwright's own wait for an element looks only every half second after a while.
    """
    page.goto(url, wait_until="commit")
    there = "selector => document.querySelector(selector) && performance.now()"
    taken: float = page.wait_for_function(there, arg=selector, polling="raf").json_value()
    return taken / 1000


def seconds_until(page: Page, act: Callable[[], object], selector: str) -> float:
    """Return the seconds from an act to the frame that draws an element otherwise, by the browser's clock."""
    page.evaluate(WATCH, selector)
    act()
    page.wait_for_function("window.lsvizDrawn")
    taken = page.evaluate("window.lsvizDrawn - window.lsvizActed") / 1000
    page.wait_for_timeout(SETTLED)
    return float(taken)
