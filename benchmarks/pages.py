"""How soon the dashboard answers in Chromium, against limits: each page's first picture, and what one does.

And a list of 1,000 runs, and Layers on a run of 10,000 steps x 100 tensors. Beside them what Streamlit takes
itself, for a page without anything on it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.browsing import (
    APP,
    CHROMIUM,
    REPOSITORY,
    SETTLED,
    launched,
    new_page,
    seconds_to_open,
    seconds_until,
    server,
)
from benchmarks.interactions import (
    FIRST_PICTURES,
    HISTORY,
    INTERACTIONS,
    MAP,
    MAP_CELLS,
    PICTURE,
    TABLE,
    Interaction,
    by_key,
    on_rows,
    on_slider,
)
from benchmarks.store import MadeUp, write
from benchmarks.timing import save

ROUNDS = 5
COLD_ROUNDS = 3
LISTED = 1000
COLD, OPEN, LONG, ANSWER = 3.0, 1.0, 1.5, 0.3
"""Limits in seconds: a first picture, the list of runs, Layers on a long run, an interaction."""
BLANK = """import streamlit as st
st.header("empty")
st.text(st.slider("x", 0, 100))
"""
BLANK_STEP = Interaction("a slider on it", "", on_slider, '[data-testid="stText"]')

Tables = dict[str, dict[str, float]]


def tell(tables: Tables, kind: str, name: str, taken: Sequence[float], limit: float | None = None) -> None:
    """Print and keep the median and the least of some times, held against a limit."""
    median, least = statistics.median(taken), min(taken)
    verdict = "" if limit is None else f"  limit {limit:4.1f}  {'ok' if median <= limit else 'over'}"
    print(f"{name:42s} {median:6.2f} s  (least {least:5.2f}){verdict}", flush=True)
    tables.setdefault(kind, {}).update({name: median, f"{name}, least": least})


def times_of(page: Page, interaction: Interaction, rounds: int = ROUNDS) -> list[float]:
    """Return the seconds that an open page takes to answer; the first time does not count."""
    acts = islice(interaction.acts(page), 1 + rounds)
    return [seconds_until(page, act, interaction.changed) for act in acts][1:]


def measure_blank(browser: Browser, folder: Path, tables: Tables) -> None:
    """Measure what Streamlit takes itself."""
    script = folder / "blank.py"
    script.write_text(BLANK)
    kind = "an empty Streamlit page"
    with server(script) as url:
        page = new_page(browser)
        tell(tables, kind, "an empty Streamlit page, cold", [seconds_to_open(page, url, "h2")])
        again = [seconds_to_open(page, url, "h2") for _ in range(ROUNDS)]
        tell(tables, kind, "an empty Streamlit page, again", again)
        page.wait_for_timeout(SETTLED)
        tell(tables, kind, "a step on its slider", times_of(page, BLANK_STEP))
        page.context.close()


def measure_first_pictures(browser: Browser, tables: Tables) -> None:
    """Measure each page with a server just started and a browser without a cache, three times in turn."""
    taken: dict[str, list[float]] = {name: [] for name in FIRST_PICTURES}
    for _ in range(COLD_ROUNDS):
        for name, (path, selector) in FIRST_PICTURES.items():
            with server(APP) as url:
                page = new_page(browser)
                taken[name].append(seconds_to_open(page, f"{url}/{path}", selector))
                page.context.close()
    for name, times in taken.items():
        tell(tables, "first picture, cold", f"{name}, first picture, cold", times, COLD)


def measure_interactions(browser: Browser, tables: Tables) -> None:
    """Measure what one does on the sample runs."""
    with server(APP) as url:
        page = new_page(browser)
        for interaction in INTERACTIONS:
            ready = FIRST_PICTURES[interaction.address or "explore"][1]
            seconds_to_open(page, f"{url}/{interaction.address}", ready)
            page.wait_for_timeout(2 * SETTLED)
            tell(tables, "interactions", interaction.name, times_of(page, interaction), interaction.limit)
        page.context.close()


def measure_list(browser: Browser, folder: Path, tables: Tables) -> None:
    """Measure Runs with many runs: by its address, and from another page."""
    write_many(folder, LISTED)
    with server(APP, folder) as url:
        page = new_page(browser)
        by_address, by_link = [], []
        for _ in range(1 + ROUNDS):
            by_address.append(seconds_to_open(page, f"{url}/runs", TABLE))
            page.wait_for_timeout(SETTLED)
            seconds_to_open(page, f"{url}/learn", "h2")
            page.wait_for_timeout(SETTLED)
            page.get_by_test_id("stTopNavSection").get_by_text("Train", exact=True).click()
            link = page.get_by_test_id("stTopNavDropdownLink").get_by_text("Runs", exact=True)
            link.wait_for()
            by_link.append(seconds_until(page, link.click, f"div:has(> {TABLE})"))
        page.context.close()
    kind = f"{LISTED:,} runs"
    tell(tables, kind, f"{LISTED:,} runs listed, by address", by_address[1:], OPEN)
    tell(tables, kind, f"{LISTED:,} runs listed, from another page", by_link[1:], OPEN)


def measure_long_run(browser: Browser, folder: Path, tables: Tables) -> None:
    """Measure Layers on a long run with many tensors; writing it takes half a minute."""
    path, _, _ = write(folder, MadeUp())
    kind = "10,000 steps x 100 tensors"
    with server(APP, folder) as url:
        page = new_page(browser)
        seconds_to_open(page, url, PICTURE)  # server and browser are warm, the run is not
        address = f"{url}/layers?runs={path.name}"
        opened = [seconds_to_open(page, address, MAP_CELLS) for _ in range(1 + ROUNDS)]
        tell(tables, kind, "Layers, long run, first time", opened[:1], LONG)
        tell(tables, kind, "Layers, long run, again", opened[1:], LONG)
        page.wait_for_selector(HISTORY)
        page.wait_for_timeout(2 * SETTLED)
        for name, acts, changed in (
            ("a step on", on_slider, MAP),
            ("a step on, by key", by_key, MAP),
            ("a click on a row", on_rows, HISTORY),
        ):
            interaction = Interaction(f"Layers, long run: {name}", "", acts, changed)
            tell(tables, kind, interaction.name, times_of(page, interaction), ANSWER)
        page.context.close()


def write_many(folder: Path, number: int) -> None:
    """Write the small files of many runs, those of the samples over and over."""
    samples = sorted(path.parent for path in (REPOSITORY / "sample_runs").glob("*/run.json"))
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    for at in range(number):
        sample, created = samples[at % len(samples)], begun + timedelta(minutes=37 * at)
        path = folder / f"{created:%Y%m%d-%H%M%S}-{at:08x}"
        path.mkdir(parents=True)
        record = json.loads((sample / "run.json").read_text())
        record |= {"run_id": path.name, "created": created.isoformat(timespec="seconds")}
        record["config"]["seed"] = at
        (path / "run.json").write_text(json.dumps(record))
        (path / "status.json").write_text((sample / "status.json").read_text())


def main() -> None:
    """Measure all, print and save."""
    if CHROMIUM is None:
        print("no Chromium: install Debian's package chromium")
        return
    tables: Tables = {}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        browser, folder = launched(playwright), Path(name)
        measure_blank(browser, folder, tables)
        measure_first_pictures(browser, tables)
        measure_interactions(browser, tables)
        measure_list(browser, folder / "many", tables)
        measure_long_run(browser, folder / "long", tables)
        browser.close()
    save("pages", tables)


if __name__ == "__main__":
    main()
