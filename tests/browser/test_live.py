"""Watching runs in a real browser: several at once, a zoom that stays, pause, cancel."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from lsviz.jobs.manager import live_status
from lsviz.runs.store import RunStore
from tests.browser.conftest import Server
from tests.browser.driving import keep_picture, watch_page, without_probing

pytestmark = pytest.mark.browser

RANGE = """
() => {
  const plot = document.querySelector('.st-key-live_timeline .js-plotly-plot');
  return plot && plot.layout ? plot.layout.xaxis.range : null;
}
"""
LAST = """
() => {
  const plot = document.querySelector('.st-key-live_timeline .js-plotly-plot');
  const x = plot && plot._fullData ? plot._fullData[0].x : [];
  return x.length ? x[x.length - 1] : -1;
}
"""
COLUMNS = """
() => {
  const plot = document.querySelector('.st-key-live_layers .js-plotly-plot');
  return plot && plot._fullData ? plot._fullData[0].x.length : 0;
}
"""


def wait_until_still(page: Page) -> None:
    """Wait until what paused runs had still to tell is drawn: a figure can't be dragged as it is replaced."""
    last = None
    while (now := page.evaluate(LAST)) != last or now < 0:
        last = now
        page.wait_for_timeout(2500)
    expect(page.locator(".st-key-live_timeline .nsewdrag").first).to_be_visible(timeout=60_000)


def zoom(page: Page) -> list[float]:
    """Drag over the left half of the panel of the loss and return the steps that are then seen."""
    box = page.locator(".st-key-live_timeline .nsewdrag").first.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 20, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, y, steps=6)
    page.mouse.up()
    page.wait_for_function(f"() => {{ const r = ({RANGE})(); return r && r[1] < 6000 }}", timeout=30_000)
    seen: list[float] = page.evaluate(RANGE)
    return seen


def press_all(page: Page, label: str, times: int) -> None:
    """Press a button of every run; each is another one after that."""
    buttons = page.get_by_role("button", name=label)
    for left in range(times, 0, -1):
        expect(buttons).to_have_count(left, timeout=60_000)
        buttons.first.click()
    expect(buttons).to_have_count(0, timeout=60_000)


def test_a_zoom_stays_while_runs_go_on(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 2000})
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/launch?task=digits-mlp&steps=9000&policy=none&also=constant:1024")
    expect(page.get_by_role("button", name="Start 2 runs")).to_be_visible(timeout=60_000)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("of 9,000").nth(1)).to_be_visible(timeout=120_000)
    page.wait_for_function(f"() => ({LAST})() > 0", timeout=60_000)
    press_all(page, "Pause", 2)
    expect(page.get_by_text("Paused at step")).to_have_count(2, timeout=60_000)
    runs = RunStore.at(server.runs).list_runs()
    assert [live_status(run).paused for run in runs] == [True, True]
    page.wait_for_function(f"() => ({RANGE})()", timeout=60_000)
    assert page.evaluate(RANGE)[1] == 8999, "all steps, from the start on"
    wait_until_still(page)
    seen = zoom(page)
    since, columns = page.evaluate(LAST), page.evaluate(COLUMNS)
    press_all(page, "Resume", 2)
    page.wait_for_function(f"() => ({LAST})() > {since} + 100", timeout=120_000)
    page.wait_for_function(f"() => ({COLUMNS})() > {columns}", timeout=120_000)
    page.wait_for_function(f"() => ({RANGE})()", timeout=60_000)
    assert page.evaluate(RANGE) == pytest.approx(seen), "the same steps, with more in them"

    press_all(page, "Cancel", 2)
    expect(page.get_by_role("link", name="See them on Compare")).to_be_visible(timeout=60_000)
    assert {run.status.state for run in runs} == {"cancelled"}
    page.wait_for_function(f"() => ({LAST})() > {since}", timeout=60_000)
    page.wait_for_function(f"() => ({RANGE})()", timeout=60_000)
    assert page.evaluate(RANGE) == pytest.approx(seen), "also once they have ended"
    keep_picture(page, "launch-two-runs-zoomed")
    page.locator(".st-key-live_timeline .nsewdrag").first.dblclick()
    page.wait_for_function(f"() => (({RANGE})() || [0, 0])[1] > 8000", timeout=60_000)
    assert not complaints.strangers
    assert without_probing(complaints.errors) == []
