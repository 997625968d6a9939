"""Names, tags, errors and results that would act as markup: in a real browser they are only read."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from lsviz.report import report_html
from lsviz.runs.reader import open_run
from tests.browser.conftest import Server, start_server
from tests.browser.driving import Complaints, open_context, settle, watch_page, without_probing
from tests.hostile import (
    BOLD,
    COLOUR,
    FORMULA,
    IMAGE,
    LINK,
    MARK,
    PICTURE,
    SCRIPT,
    HostileRuns,
    write_hostile_runs,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# Elements that nothing but a name can have made. Links into the dashboard hold ids, which are names too.
MADE_OF_NAMES = """mark => [...document.querySelectorAll('*')].filter((e) => {
  const link = e.getAttribute('href') ?? e.getAttribute('xlink:href') ?? '';
  const source = e.getAttribute('src') ?? '';
  const outside = /^[a-z]+:/i.test(link) && !link.startsWith(location.origin);
  return e.hasAttribute('onerror') || /^(javascript|mailto):/i.test(link) || (outside && link.includes(mark))
    || source === 'x' || source.includes(`${mark}.test`)
    || (e.tagName === 'SCRIPT' && e.textContent === `alert('${mark}')`)
    || e.matches('.katex, mjx-container, [aria-label="home icon"]')
    || (['STRONG', 'EM'].includes(e.tagName) && e.textContent === mark);
}).map((e) => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, HostileRuns]]:
    folder = tmp_path_factory.mktemp("hostile")
    runs = write_hostile_runs(folder / "runs")
    with start_server(folder, LSVIZ_SAMPLES=str(folder / "none")) as server:
        yield server, runs


def watched(browser: Browser, url: str) -> tuple[Page, Complaints, list[str]]:
    page = open_context(browser, height=1600).new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    return page, watch_page(page, url), dialogs


def shown_text(page: Page) -> str:
    """Return all text of the page, also of fields and figures, without the marks that keep it literal."""
    text = page.evaluate(
        "document.body.innerText + '\\n' + [...document.querySelectorAll('svg text, input')]"
        ".map((e) => e.value ?? e.textContent).join('\\n')"
    )
    return str(text).replace("\u2060", "")


def test_no_name_acts_on_any_page(browser: Browser, hostile: tuple[Server, HostileRuns]) -> None:
    server, runs = hostile
    unscaled, scaled, failed = runs.ids
    page, complaints, dialogs = watched(browser, server.url)
    visited = [
        ("launch", {"run": failed}, (IMAGE, PICTURE, FORMULA)),
        ("launch", {"task": LINK, "precision": COLOUR, "run": PICTURE}, (LINK, COLOUR, PICTURE)),
        ("runs", {"marked": unscaled, "search": MARK}, (IMAGE, LINK)),
        ("compare", {"runs": f"{scaled},{failed},{SCRIPT}"}, (IMAGE, SCRIPT)),
        ("layers", {"runs": f"{unscaled},{scaled}", "layer": LINK}, (LINK,)),
        ("whatif", {"seen": unscaled}, (IMAGE,)),
        ("replay", {"seen": scaled, "replayed": f"{IMAGE};gradscaler"}, (IMAGE,)),
        ("reproduce", {}, (IMAGE, LINK, PICTURE)),
        ("updates", {}, (IMAGE, LINK, PICTURE, FORMULA)),
    ]
    for path, query, texts in visited:
        page.goto(f"{server.url}/{path}?{urllib.parse.urlencode(query)}")
        settle(page)
        where = f"{path}?{query}"
        assert page.get_by_test_id("stException").count() == 0, where
        assert page.evaluate(MADE_OF_NAMES, MARK) == [], where
        shown = shown_text(page)
        assert "\u202e" not in shown, where
        assert "😄" not in shown, where
        for text in texts:
            assert text in shown, f"{text} on {where}"
    assert dialogs == []
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []
    page.context.close()


def test_no_name_acts_in_a_hover_or_a_dialog(browser: Browser, hostile: tuple[Server, HostileRuns]) -> None:
    server, runs = hostile
    page, complaints, dialogs = watched(browser, server.url)
    page.goto(f"{server.url}/blame?seen={runs.ids[1]}")
    settle(page)
    area = page.locator(".st-key-headroom .nsewdrag").first.bounding_box()
    assert area is not None
    rows = 5
    for row in range(rows):
        page.mouse.move(area["x"] + area["width"] / 3, area["y"] + area["height"] * (row + 0.5) / rows)
        page.wait_for_selector(".st-key-headroom .hoverlayer .hovertext")
        assert page.evaluate(MADE_OF_NAMES, MARK) == []
    page.goto(f"{server.url}/runs?marked={urllib.parse.quote(runs.ids[0])}")
    settle(page)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_text(IMAGE).wait_for()
    assert page.evaluate(MADE_OF_NAMES, MARK) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as caught:
        page.get_by_role("button", name="Its tables, as CSV").click()
    name = caught.value.suggested_filename
    assert name.endswith("-csv.zip")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert dialogs == []
    assert complaints.strangers == []
    page.context.close()


def test_no_name_acts_in_a_report(
    browser: Browser, hostile: tuple[Server, HostileRuns], tmp_path: Path
) -> None:
    _, runs = hostile
    file = tmp_path / "report.html"
    file.write_text(report_html([open_run(runs.root / run_id) for run_id in runs.ids]), encoding="utf-8")
    page, complaints, dialogs = watched(browser, file.as_uri())
    page.goto(file.as_uri())
    page.wait_for_selector(".main-svg")
    settle(page)
    assert page.evaluate(MADE_OF_NAMES, MARK) == []
    assert IMAGE in shown_text(page)
    assert BOLD in shown_text(page)  # as a row's name
    assert dialogs == []
    assert complaints.strangers == []
    assert complaints.errors == []
    page.context.close()
