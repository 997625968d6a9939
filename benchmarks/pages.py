"""From navigation to the picture, in Chromium: each page against an empty Streamlit page."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.timing import save

REPOSITORY = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PICTURE = ".js-plotly-plot .main-svg"
PAGES = {
    "Explore": ("", PICTURE),
    "Compare": ("compare", PICTURE),
    "Policies": ("policies", PICTURE),
    "Reproduce": ("reproduce", PICTURE),
}
ROUNDS = 3


@contextmanager
def server(script: Path) -> Iterator[str]:
    """Serve a Streamlit script and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    process = subprocess.Popen(
        [*command, "--server.headless", "true", "--server.port", str(port)],
        cwd=REPOSITORY,
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


def seconds_to(browser: Browser, url: str, selector: str) -> float:
    """Return the seconds from navigation, with an empty cache, until an element is there."""
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(selector, timeout=60_000)
    taken = time.perf_counter() - started
    page.close()
    return taken


def main() -> None:
    """Measure cold (a server just started, for each page) and warm, and save."""
    if CHROMIUM is None:
        print("no Chromium: install Debian's package chromium")
        return
    tables: dict[str, dict[str, float]] = {}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        blank = Path(folder) / "blank.py"
        blank.write_text("import streamlit as st\nst.header('empty')\n")
        with server(blank) as url:
            cold = seconds_to(browser, url, "h2")
            warm = statistics.median(seconds_to(browser, url, "h2") for _ in range(ROUNDS))
        print(f"{'an empty Streamlit page':26s} cold {cold:6.2f} s         warm {warm:6.2f} s")
        for name, (path, selector) in PAGES.items():
            with server(REPOSITORY / "app.py") as url:
                first = seconds_to(browser, f"{url}/{path}", selector)
                later = statistics.median(
                    seconds_to(browser, f"{url}/{path}", selector) for _ in range(ROUNDS)
                )
            ratios = f"{first / cold:5.2f} x   warm {later:6.2f} s {later / warm:5.2f} x"
            print(f"{name:26s} cold {first:6.2f} s {ratios}")
            tables[name] = {
                "cold, seconds": first,
                "cold / empty page": first / cold,
                "warm, seconds": later,
                "warm / empty page": later / warm,
            }
        browser.close()
    save("pages", tables)


if __name__ == "__main__":
    main()
