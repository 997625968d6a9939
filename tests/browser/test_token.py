"""A server with a token, in a real browser: given once, and nowhere to be read afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Server, start_server
from tests.browser.driving import go_to, keep_picture, open_context, settle, watch_page, without_probing

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SECRET = "a-token-of-some-length"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Server]:
    with start_server(tmp_path, LSVIZ_TOKEN=SECRET) as server:
        yield server


def test_a_token_is_given_once_and_told_nowhere(browser: Browser, closed: Server, tmp_path: Path) -> None:
    page = open_context(browser).new_page()
    complaints = watch_page(page, closed.url)
    page.goto(f"{closed.url}/runs")
    banner = page.locator(".st-key-view_only")
    expect(banner).to_contain_text("View only. Give this server's token to change things.")
    settle(page)
    keep_picture(page, "view-only")
    expect(page.get_by_role("button", name="Import")).to_be_disabled()
    page.get_by_role("button", name="Enter the token").click()
    field = page.get_by_label("Token", exact=True)
    assert field.get_attribute("type") == "password"
    field.fill("wrong")
    page.get_by_role("button", name="Change things").click()
    expect(page.get_by_text("That is not this server's token.")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(SECRET)
    page.get_by_role("button", name="Change things").click()
    expect(banner).to_have_count(0)
    settle(page)  # until its script is done, what the page had before stands beside what it has now
    expect(page.get_by_role("button", name="Import")).to_be_enabled()
    page.goto(f"{closed.url}/runs?token={SECRET}&search=digits")  # another session
    settle(page)
    expect(page.get_by_role("button", name="Import")).to_be_enabled()
    page.wait_for_url(lambda url: "search=digits" in url and "token" not in url)
    go_to(page, "Launch")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    settle(page)
    kept = page.evaluate(
        "JSON.stringify([document.documentElement.outerHTML, {...localStorage}, document.cookie])"
    )
    assert SECRET not in kept
    assert SECRET not in page.url
    page.context.close()
    assert SECRET not in (tmp_path / "server.log").read_text()
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []
