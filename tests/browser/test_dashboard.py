"""The main job in a real browser: see the finding, start a run, watch it, find it on Compare."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from lsviz.runs.store import RunStore
from tests.browser.conftest import Server
from tests.browser.driving import BARS, go_to, keep_picture, watch_page, without_probing

pytestmark = pytest.mark.browser


def test_a_run_is_started_watched_and_found_on_compare(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    complaints = watch_page(page, server.url)
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Without loss scaling, the lowest")).to_be_visible(timeout=30_000)
    page.wait_for_selector(BARS, state="attached")

    go_to(page, "Launch")
    expect(page.get_by_role("heading", name="Launch a run")).to_be_visible()
    steps = page.get_by_role("spinbutton", name="Steps")
    steps.fill("1500")
    steps.press("Enter")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("of 1,500").first).to_be_visible(timeout=60_000)
    page.wait_for_selector(".js-plotly-plot .scatterlayer path.js-line", state="attached", timeout=60_000)
    assert "run=" in page.url

    page.reload()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=30_000)
    (run,) = RunStore.at(server.runs).list_runs()
    assert run.status.live, "it goes on while the browser reloads"

    expect(page.get_by_text("Finished with accuracy")).to_be_visible(timeout=90_000)
    keep_picture(page, "launch-finished")
    assert run.status.state == "finished"
    assert run.status.step == 1500
    page.get_by_role("link", name="See it on Compare").click()
    expect(page.get_by_role("heading", name="What differs")).to_be_visible(timeout=30_000)
    page.wait_for_selector(BARS, state="attached")
    assert run.run_id in page.url
    expect(page.locator(".js-plotly-plot").first.get_by_text("constant:1024").first).to_be_visible()
    keep_picture(page, "compare-after-launch")
    assert not complaints.strangers
    assert without_probing(complaints.errors) == []


def test_cancel_stops_a_run(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{server.url}/launch?steps=100000&policy=none&precision=bf16")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("of 100,000").first).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    expect(
        page.get_by_text(
            re.compile(r"Cancelled at step [\d,]+ of 100,000. What was recorded so far is kept.")
        )
    ).to_be_visible(timeout=30_000)
    (run,) = RunStore.at(server.runs).list_runs()
    assert run.status.state == "cancelled"
    assert run.config.steps == 100_000
    assert run.config.policy == "none"
    assert run.config.precision == "bf16", "the address holds the words of the command line"


@pytest.mark.skipif(not os.environ.get("CI"), reason="only where a browser must be there")
def test_ci_has_a_browser() -> None:
    from tests.browser.conftest import CHROMIUM

    assert CHROMIUM
    assert Path(CHROMIUM).exists()
