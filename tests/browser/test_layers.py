"""Layers in a real browser: what moves over its figures, clicks on its rows, and keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from lsviz.runs.store import RunStore
from tests.browser.conftest import Server, watch_page
from tests.conftest import SAMPLES

pytestmark = pytest.mark.browser


def test_a_click_shows_a_layers_history_and_arrow_keys_go_through_the_steps(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    run = next(r for r in RunStore.at(SAMPLES).list_runs() if r.config.task == "sigmoid-mlp")
    page = browser.new_page(viewport={"width": 1400, "height": 1350})
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/layers?runs={run.run_id}&step=45&layer=layer1")
    page.wait_for_selector(".st-key-layers_map .lsviz-marks path", state="attached", timeout=30_000)
    page.wait_for_selector(".st-key-layer_history .lsviz-marks path", state="attached")
    expect(page.get_by_text("Step 40. A row is a layer")).to_be_visible()

    plot = page.locator(".st-key-layer_history .js-plotly-plot").element_handle()
    line = page.locator(".st-key-layer_history .lsviz-marks path").first
    before = line.get_attribute("d") or ""
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**step=80**")
    expect(page.get_by_text("Step 80. A row is a layer")).to_be_visible()
    expect(line).not_to_have_attribute("d", before)
    assert plot.evaluate("plot => plot.isConnected"), "only the line moved"

    box = page.locator(".st-key-layers_map .nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.95, box["y"] + box["height"] * 1.5 / 7)
    page.wait_for_url("**layer=layer6**")
    page.get_by_role("textbox", name="Only layers named like").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Step 80. A row is a layer")).to_be_visible()

    page.wait_for_selector(".st-key-layer_history .lsviz-marks path", state="attached")
    with page.expect_download() as download:
        page.locator(".st-key-save-layer_history").get_by_role("button", name="SVG").click()
    download.value.save_as(tmp_path / "history.svg")
    assert "stroke-dasharray: 9px, 9px" in (tmp_path / "history.svg").read_text(), "the line is saved too"
    assert complaints.strangers == []
    assert [error for error in complaints.errors if "404 (Not Found)" not in error] == []
