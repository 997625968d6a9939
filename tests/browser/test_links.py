"""Links into the dashboard: what they show, and what they leave out."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Server
from tests.browser.driving import BARS, open_context, settle, watch_page, without_probing

pytestmark = pytest.mark.browser


def test_the_address_bar_holds_the_view(browser: Browser, dashboard: Server) -> None:
    page = open_context(browser).new_page()
    page.goto(f"{dashboard.url}/?step=400&beside=gradscaler")
    page.wait_for_selector(BARS, state="attached")
    expect(page.get_by_text("step 400 of 1,000")).to_be_visible()
    expect(page.locator(".js-plotly-plot").first.get_by_text("gradscaler", exact=True)).to_be_visible()
    page.get_by_role("slider").press("ArrowRight")
    expect(page.get_by_text("step 440 of 1,000")).to_be_visible()
    page.wait_for_url("**step=440**")


def test_a_link_can_leave_controls_out(browser: Browser, dashboard: Server) -> None:
    page = open_context(browser).new_page()
    page.goto(f"{dashboard.url}/?hide=step,navigation,nonsense&step=400")
    page.wait_for_selector(BARS, state="attached")
    expect(page.get_by_text("step 400 of 1,000")).to_be_visible()
    expect(page.get_by_role("slider")).to_be_hidden()
    expect(page.get_by_test_id("stTopNavLink").first).to_be_hidden()
    expect(page.get_by_text("Beside no scaling")).to_be_visible()
    page.get_by_role("link", name="Compare runs").click()
    page.wait_for_url("**/compare?**hide=step**")
    page.wait_for_selector(BARS, state="attached")
    expect(page.get_by_role("slider")).to_be_hidden()
    page.get_by_role("button", name="share").click()
    page.get_by_role("button", name="Show all controls again").click()
    expect(page.get_by_role("slider")).to_be_visible()
    page.wait_for_function("!location.search.includes('hide')")


def test_the_link_to_share_is_of_the_view_that_stands(browser: Browser, dashboard: Server) -> None:
    page = open_context(browser).new_page()
    page.goto(f"{dashboard.url}/?step=400")
    page.wait_for_selector(BARS, state="attached")
    page.get_by_role("button", name="share").click()
    page.get_by_role("combobox", name="Hide, for a class").click()
    page.get_by_role("option").first.click()
    link = page.locator('[data-testid="stPopoverBody"] code')
    expect(link).to_contain_text("step=400")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(link).to_have_count(0)
    page.get_by_role("slider").press("ArrowRight")
    page.wait_for_url("**step=440**")
    settle(page)
    page.get_by_role("button", name="share").click()
    expect(link).to_contain_text("step=440")


@pytest.mark.parametrize("path", ["launch?task=digits-mlp&seed=3", "compare"])
def test_a_link_into_a_page_opens_without_a_complaint(path: str, browser: Browser, dashboard: Server) -> None:
    page = open_context(browser).new_page()
    complaints = watch_page(page, dashboard.url)
    page.goto(f"{dashboard.url}/{path}")
    if path.startswith("launch"):
        expect(page.get_by_text("Shallow ReLU net, digits.")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("3")
    else:
        page.wait_for_selector(BARS, state="attached")
    # The server's first visitor gets the whole dashboard too, not the bare page.
    expect(page.get_by_test_id("stTopNavLink").get_by_text("Explore", exact=True)).to_be_visible()
    assert page.get_by_role("link", name="main", exact=True).count() == 0
    assert without_probing(complaints.errors) == []
    assert complaints.strangers == []
