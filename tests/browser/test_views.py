"""The address holds the view: whatever a control changes, a copied link shows again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from lsviz.ui.frame.main import PAGES, TITLES
from tests.browser.conftest import Server
from tests.browser.driving import choose, go_to, open_context, settle

pytestmark = pytest.mark.browser


def click(role: str, name: str) -> Callable[[Page], None]:
    """Return the act of clicking a control."""
    return lambda page: page.get_by_role(role, name=name, exact=True).click()  # type: ignore[arg-type]


def fill(label: str, words: str) -> Callable[[Page], None]:
    """Return the act of typing into a field."""

    def act(page: Page) -> None:
        page.get_by_label(label, exact=True).fill(words)
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")

    return act


ACTS: dict[str, Callable[[Page], None]] = {
    "explore": click("radio", "FP32"),
    "learn": click("button", "4 Would you notice underflow?"),
    "launch": fill("Seed", "3"),
    "runs": fill("Search", "gradscaler finished"),
    "compare": lambda page: page.get_by_role("slider").press("ArrowRight"),
    "layers": click("radio", "weights"),
    "whatif": click("radio", "BF16"),
    "blame": choose("Run", "digits-mlp · constant:128"),
    "replay": choose("Run", "digits-cnn · constant:128"),
    "policies": lambda page: page.get_by_text("Same start for all").click(),
    "updates": choose("One of them, to try", "L2 before"),
    "reproduce": choose("Experiment", "sigmoid-mlp"),
}
"""What is done on each page, and must then stand in its address."""

# Words, figures' texts, and what every control holds.
VIEW = """() => {
  document.activeElement.blur();  // a field that has the focus counts its characters
  const main = document.querySelector('[data-testid="stMain"]');
  const held = (control) => [control.ariaLabel, control.ariaChecked, control.ariaPressed, control.checked,
    control.value].join('|');
  const all = (selector) => [...main.querySelectorAll(selector)];
  return [main.innerText, ...all('[role="figure"]').map((figure) => figure.ariaLabel),
    ...all('input, textarea, [role="radio"], [aria-pressed]').map(held)].join('\\n');
}"""
SHIFTS = """window.lsvizShifts = 0;
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) window.lsvizShifts += shift.value;
}).observe({ type: 'layout-shift', buffered: true });"""
STEADY = 0.1
"""The sum of layout shifts below which people see a page as steady (web.dev's Cumulative Layout Shift)."""


@pytest.fixture(scope="module")
def tabs(chromium: Browser, dashboard: Server) -> Iterator[tuple[Page, Page]]:
    """A visitor who acts, and one of a context of its own who only opens links."""
    contexts = [open_context(chromium, height=1400) for _ in range(2)]
    acting, linked = (context.new_page() for context in contexts)
    acting.add_init_script(SHIFTS)
    acting.goto(dashboard.url)
    yield acting, linked
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_copied_link_shows_the_same_and_nothing_jumps(name: str, tabs: tuple[Page, Page]) -> None:
    acting, linked = tabs
    go_to(acting, TITLES[name])
    acting.wait_for_url("**/" if name == PAGES[0] else f"**/{name}**")
    expect(acting.get_by_role("heading").first).to_be_visible()
    settle(acting)
    address, view = acting.url, acting.evaluate(VIEW)
    acting.evaluate("window.lsvizShifts = 0")
    ACTS[name](acting)
    acting.wait_for_function("address => location.href !== address", arg=address)
    settle(acting)
    shifts, chosen = acting.evaluate("window.lsvizShifts"), acting.evaluate(VIEW)
    assert chosen != view, "the control did nothing"
    linked.goto(acting.url)
    expect(linked.get_by_role("heading").first).to_be_visible()
    settle(linked)
    assert linked.evaluate(VIEW).splitlines() == chosen.splitlines()
    assert shifts < STEADY
