"""From navigation to the picture, in Chromium: each page against an empty Streamlit page.

And Layers on a run of 10,000 steps x 100 tensors: until it opens, and from a key or click to the new picture.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.store import MadeUp, write
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
MAP = ".st-key-layers_map .js-plotly-plot"
HISTORY = ".st-key-layer_history .js-plotly-plot"
# From the key or button that goes down to the frame in which the figure is drawn otherwise.
WATCH = """selector => {
  const drawn = () => document.querySelector(selector + ' .cartesianlayer')?.innerHTML;
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


def seconds_to(browser: Browser, url: str, selector: str) -> float:
    """Return the seconds from navigation, with an empty cache, until an element is there."""
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(selector, timeout=60_000)
    taken = time.perf_counter() - started
    page.close()
    return taken


def layers_seconds(browser: Browser, folder: Path) -> dict[str, float]:
    """Return the seconds that Layers takes on a long run: to open, for a step on, and for a click on a row.

    Args:
        browser: Chromium.
        folder: Where the run is written; it takes half a minute.
    """
    path, _, _ = write(folder, MadeUp())
    with server(REPOSITORY / "app.py", folder) as url:
        address = f"{url}/layers?runs={path.name}"
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector(PICTURE)  # server and browser are warm, the run is not
        opened = []
        for _ in range(1 + ROUNDS):
            started = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_selector(f"{MAP} .bars path", state="attached")
            opened.append(time.perf_counter() - started)
        page.wait_for_selector(HISTORY)
        page.wait_for_timeout(1000)
        slider = page.get_by_role("slider")
        slider.focus()
        steps, clicks = [], []
        for turn in range(2 * ROUNDS):
            steps.append(_seconds_until(page, lambda: slider.press("ArrowRight"), "map"))
            box = page.locator(f"{MAP} .nsewdrag").first.bounding_box()
            assert box is not None
            y = box["y"] + 100 + 17 * turn
            page.mouse.move(box["x"] + 100, y)
            page.wait_for_timeout(200)
            clicks.append(
                _seconds_until(page, lambda x=box["x"], y=y: page.mouse.click(x + 100, y), "history")
            )
            slider.focus()
        context.close()
    return {
        "first time, seconds": opened[0],
        "again, seconds": statistics.median(opened[1:]),
        "a step on, seconds": statistics.median(steps),
        "click on a row, seconds": statistics.median(clicks),
    }


def _seconds_until(page: Page, act: Callable[[], None], figure: str) -> float:
    """Return the seconds from an act to the new picture of a figure, by the browser's own clock."""
    selector = MAP if figure == "map" else HISTORY
    page.evaluate(WATCH, selector)
    act()
    page.wait_for_function("window.lsvizDrawn")
    taken = page.evaluate("window.lsvizDrawn - window.lsvizActed") / 1000
    page.wait_for_timeout(700)
    return float(taken)


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
        tables["Layers, 10,000 steps x 100 tensors"] = layers = layers_seconds(browser, Path(folder) / "runs")
        print("Layers, 10,000 steps x 100 tensors: " + ", ".join(f"{k} {v:.2f}" for k, v in layers.items()))
        browser.close()
    save("pages", tables)


if __name__ == "__main__":
    main()
