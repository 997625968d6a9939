"""Every page in light and dark: no complaint, nothing cut off, and to be read by everyone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lsviz.ui.frame.main import PAGES, TITLES
from tests.browser.conftest import Server
from tests.browser.driving import (
    BARS,
    PATIENCE_MS,
    go_to,
    keep_picture,
    open_context,
    settle,
    watch_page,
    without_probing,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
HEADINGS = {
    "explore": "Without loss scaling, the lowest layer receives nothing",
    "learn": "Is “gradient overflow, skipping step” a fault?",
    "launch": "Launch a run",
    "runs": "runs of 8 tasks",
    "compare": "nearly all of the gradient survives",
    "layers": "lose more than half of their gradient",
    "whatif": "all layers of this run",
    "blame": "3 steps were skipped of 400",
    "replay": "The run skipped 3 steps; patent would skip 42",
    "policies": "After 24 steps megatron has",
    "updates": "ways to update the weights end where float64 does",
    "reproduce": "experiments need no loss scaling",
}
"""What a first visitor reads on each page, of the sample runs."""
TOLD = re.compile(r"(\S+\s+){3,}\S+")
TOLD_OF = {"figure": ".js-plotly-plot", "region": '[data-testid="stDataFrame"]', "img": ".stMain img"}
"""What a screen reader has a text for: its role, and what one sees."""
SCROLLS = """() => [document.documentElement, document.querySelector('[data-testid="stMain"]')]
  .filter((box) => box.scrollWidth > box.clientWidth)
  .map((box) => `${box.scrollWidth} > ${box.clientWidth}`)"""


def faults_of(page: Page) -> list[str]:
    """Return what is wrong with the page as it stands, a line each."""
    faults = [f"exception: {box.inner_text()}" for box in page.get_by_test_id("stException").all()]
    for role, seen in TOLD_OF.items():
        there, told = (
            page.locator(seen).locator("visible=true").count(),
            page.get_by_role(role, name=TOLD).count(),
        )
        if there != told:
            faults.append(f"{there} of {seen}, {told} with a text of four words or more")
    for words, ratio, colour, behind in page.evaluate(CONTRAST):
        faults.append(f"contrast {ratio} of {colour} on {behind}: {words}")
    return faults


def open_page(page: Page, name: str) -> None:
    """Go to a page by the menu and wait for what it tells."""
    go_to(page, TITLES[name])
    expect(page.get_by_role("heading", name=HEADINGS[name])).to_be_visible(timeout=PATIENCE_MS)
    if name == "learn":
        page.get_by_role("button", name="Just show me").click()
        expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=PATIENCE_MS)
    settle(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_whole_and_readable(scheme: str, browser: Browser, dashboard: Server) -> None:
    page = open_context(browser, scheme=scheme, height=1400).new_page()
    complaints = watch_page(page, dashboard.url)
    page.goto(dashboard.url)
    expect(page.get_by_role("heading", name=HEADINGS[PAGES[0]])).to_be_visible(timeout=PATIENCE_MS)
    faults: list[str] = []
    for name in PAGES:
        open_page(page, name)
        faults += [f"{name}: {fault}" for fault in faults_of(page)]
        keep_picture(page, f"{name}-{scheme}")
        page.set_viewport_size({"width": 800, "height": 1400})
        keep_picture(page, f"{name}-{scheme}-800")
        faults += [f"{name}: scrolls sideways at 800 px: {at}" for at in page.evaluate(SCROLLS)]
        page.set_viewport_size({"width": 1400, "height": 1400})
    page.context.close()
    assert not faults, "\n".join(faults)
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []


@pytest.mark.parametrize("width", [1400, 800])
def test_the_first_figure_fits_the_window(width: int, browser: Browser, dashboard: Server) -> None:
    page = open_context(browser, width=width, height=900).new_page()
    page.goto(dashboard.url)
    page.wait_for_selector(BARS, state="attached")
    figure = page.locator(".js-plotly-plot").first
    for word in (
        "no scaling",
        "constant:1024",
        "flushed to 0",
        "subnormal",
        "normal",
        "Inf",
        "layer1",
        "output",
    ):
        expect(figure.get_by_text(word, exact=True).first).to_be_visible()
    box = figure.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.context.close()
