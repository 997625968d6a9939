"""What the browser tests share: opening pages, waiting until they stand, and keeping pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from playwright.sync_api import Browser, BrowserContext, Page, expect

from lsviz.ui.frame.main import SECTIONS, TITLES
from tests.conftest import REPOSITORY

PICTURES = REPOSITORY / ".artefacts"
BARS = ".js-plotly-plot .bars path"
PATIENCE_MS = 90_000
"""Milliseconds, for a machine that has other things to do."""

# Nothing is on its way for half a second: no script, no skeleton, no figure that is yet to be drawn.
# (A report is no app, and stands at once.)
_STANDS = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const waiting = '[data-testid="stSkeleton"], [data-testid="stSpinner"], [data-stale="true"], '
    + '[class*="st-key-place-"]';
  const figures = [...document.querySelectorAll('.stPlotlyChart')];
  const busy = (app && app.dataset.testScriptState !== 'notRunning') || document.querySelector(waiting)
    || figures.some((figure) => !figure.querySelector('.main-svg'));
  window.lsvizQuietSince = busy ? null : window.lsvizQuietSince ?? performance.now();
  return !busy && performance.now() - window.lsvizQuietSince > 500;
}"""


@dataclass
class Complaints:
    """What a page did that it should not: console errors and requests to other hosts."""

    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def open_context(
    browser: Browser, width: int = 1400, height: int = 1000, scheme: str = "light"
) -> BrowserContext:
    """Return a fresh context: nothing is remembered of others."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    context.set_default_timeout(PATIENCE_MS)
    return context


def watch_page(page: Page, url: str) -> Complaints:
    """Collect the page's console errors and requests that leave the server."""
    complaints = Complaints()
    page.on("console", lambda m: complaints.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.errors.append(str(error)))
    page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith((url, "ws" + url[4:], "data:", "blob:"))
            else complaints.strangers.append(r.url)
        ),
    )
    return complaints


def without_probing(errors: list[str]) -> list[str]:
    """Leave out what Streamlit 1.67's browser side logs of itself on a link into a page.

    It asks for its health under the page's own path first, gets a 404, and goes on to the right place.
    """
    return [error for error in errors if "404 (Not Found)" not in error]


def go_to(page: Page, title: str) -> None:
    """Click a page's name, which stands in the menu of its section."""
    name = next(name for name, words in TITLES.items() if words == title)
    section = next(section for section, names in SECTIONS.items() if name in names)
    if section:
        page.get_by_test_id("stTopNavSection").get_by_text(section, exact=True).click()
        page.get_by_test_id("stTopNavDropdownLink").get_by_text(title, exact=True).click()
    else:
        page.get_by_test_id("stTopNavLink").get_by_text(title, exact=True).click()


def settle(page: Page) -> None:
    """Wait until the page stands: its script is done and all figures are drawn."""
    page.evaluate("window.lsvizQuietSince = null")
    page.wait_for_function(_STANDS, timeout=PATIENCE_MS)


def keep_picture(page: Page, name: str) -> None:
    """Keep a screenshot for a person to look at."""
    PICTURES.mkdir(exist_ok=True)
    settle(page)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=False)


def choose(label: str, words: str) -> Callable[[Page], None]:
    """Return the act of choosing the one option of a list that holds these words, by the keyboard."""

    def act(page: Page) -> None:
        box, options = page.get_by_role("combobox", name=label), page.get_by_role("option")
        for _ in range(5):  # a page that is drawn anew meanwhile forgets what was typed
            box.fill("")
            box.fill(words)
            with suppress(AssertionError):
                expect(options).to_have_count(1, timeout=10_000)
                break
        expect(options).to_have_count(1)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")

    return act
