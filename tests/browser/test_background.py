"""Policies and Reproduce in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Server
from tests.browser.driving import keep_picture, open_context, watch_page, without_probing

pytestmark = pytest.mark.browser


def test_policies_follows_what_is_clicked(browser: Browser, dashboard: Server) -> None:
    page = open_context(browser, height=1400).new_page()
    complaints = watch_page(page, dashboard.url)
    page.goto(f"{dashboard.url}/policies?policies=gradscaler&pattern=........")
    figure = page.locator(".js-plotly-plot").first
    expect(page.get_by_role("heading", name="After 8 steps gradscaler has S = 1,024.")).to_be_visible()
    expect(figure.get_by_text("gradscaler", exact=True)).to_be_visible()
    for step in ("0", "1", "2"):
        page.get_by_role("button", name=step, exact=True).click()
        page.wait_for_url(f"**pattern={'O' * (int(step) + 1)}.**")
    expect(page.get_by_role("heading", name="After 8 steps gradscaler has S = 64.")).to_be_visible()
    page.get_by_role("textbox", name="Steps: O overflows, . is clean").fill("OO")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="After 2 steps gradscaler has S = 64.")).to_be_visible()
    keep_picture(page, "policies-clicked")
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []


def test_reproduce_shows_table_curves_and_pictures(browser: Browser, dashboard: Server) -> None:
    page = open_context(browser, height=3400).new_page()
    complaints = watch_page(page, dashboard.url)
    page.goto(f"{dashboard.url}/reproduce?experiment=sigmoid-mlp")
    expect(page.get_by_role("heading", name="experiments need no loss scaling")).to_be_visible()
    expect(page.get_by_role("cell", name="Multibox SSD").first).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    expect(
        page.get_by_role("heading", name="Without loss scaling FP16 is behind from the start")
    ).to_be_visible()
    page.get_by_role("radio", name="gradients over a training").click()
    page.wait_for_url("**picture=gradients**")
    expect(page.locator(".js-plotly-plot").nth(1).get_by_text("S = 8")).to_be_visible()
    page.get_by_role("radio", name="1024").click()
    page.wait_for_url("**rescue=1024**")
    expect(page.locator(".js-plotly-plot").nth(1).get_by_text("S = 1,024")).to_be_visible()
    expect(page.get_by_text("original", exact=True)).to_be_visible()
    expect(page.locator("[data-testid=stImage] img")).to_have_count(5)
    keep_picture(page, "reproduce")
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []
