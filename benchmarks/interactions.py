"""What one does on each page, as a benchmark does it, and what tells that the page has answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from playwright.sync_api import Page

PICTURE: Final = ".js-plotly-plot .main-svg"
FIGURE: Final = ".js-plotly-plot .cartesianlayer"
TITLE: Final = "h2"
MAP: Final = ".st-key-layers_map .cartesianlayer"
HISTORY: Final = ".st-key-layer_history .cartesianlayer"
MAP_CELLS: Final = ".st-key-layers_map .heatmaplayer image"
FORM: Final = '[data-testid="stMain"]'
MARKED: Final = (
    "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))?.innerText"
)
"""What Enter would choose in an open list."""
AT_REST: Final = 500
"""Milliseconds after which a page scrolls no more."""
MOST_PRESSES: Final = 3

TABLE: Final = '[data-testid="stDataFrame"] canvas'

FIRST_PICTURES: Final = {
    "explore": ("", PICTURE),
    "learn": ("learn", "h2"),
    "launch": ("launch", '[data-testid="stBaseButton-primary"]'),
    "runs": ("runs", TABLE),
    "compare": ("compare", PICTURE),
    "layers": ("layers", PICTURE),
    "whatif": ("whatif", PICTURE),
    "replay": ("replay", PICTURE),
    "blame": ("blame", PICTURE),
    "policies": ("policies", PICTURE),
    "updates": ("updates", PICTURE),
    "reproduce": ("reproduce", PICTURE),
}
"""Of each page its address and what must be there to call it open."""

Act = Callable[[], object]


@dataclass(frozen=True)
class Interaction:
    """Something one does, again and again.

    Attributes:
        name: In words.
        address: Of the page, with a query where needed.
        acts: Yields what to do, each time something that changes the page.
        changed: What is drawn otherwise then.
        limit: Seconds.
    """

    name: str
    address: str
    acts: Callable[[Page], Iterator[Act]]
    changed: str
    limit: float = 0.3


def on_slider(page: Page) -> Iterator[Act]:
    """Go one place on in the page's slider."""
    slider = page.get_by_role("slider").first
    while True:
        slider.focus()
        yield lambda: slider.press("ArrowRight")


def by_key(page: Page) -> Iterator[Act]:
    """Go one recorded step on, outside any field."""
    while True:
        page.evaluate("document.activeElement.blur()")
        yield lambda: page.keyboard.press("ArrowRight")


def on_rows(page: Page) -> Iterator[Act]:
    """Click one row of the map after the other."""
    box = page.locator(".st-key-layers_map .nsewdrag").first.bounding_box()
    assert box is not None
    turn = 0
    while True:
        y = box["y"] + min(box["height"] - 5, 10 + 34 * turn)
        page.mouse.move(box["x"] + 100, y)
        page.wait_for_timeout(200)
        yield lambda y=y: page.mouse.click(box["x"] + 100, y)
        turn += 1


def choosing(*names: str) -> Callable[[Page], Iterator[Act]]:
    """Click buttons by their names in turn."""

    def acts(page: Page) -> Iterator[Act]:
        while True:
            for name in names:
                button = page.get_by_role("radio", name=name, exact=True)
                yield lambda button=button: button.click()

    return acts


def on_rail(page: Page) -> Iterator[Act]:
    """Press on What-if's slider left and right of its middle."""
    rail = page.locator(".slider-rail-touch-rect").first
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    assert box is not None
    while True:
        for share in (0.3, 0.7):
            x = box["x"] + share * box["width"]
            yield lambda x=x: page.mouse.click(x, box["y"] + box["height"] / 2)


def on_pattern(page: Page) -> Iterator[Act]:
    """Make one step after the other an overflow."""
    step = 0
    while True:
        button = page.get_by_role("button", name=str(step), exact=True)
        yield lambda button=button: button.click()
        step += 1


def on_lessons(page: Page) -> Iterator[Act]:
    """Go to the next lesson, and the one after it."""
    while True:
        button = page.locator(".st-key-learn_next button").first
        yield lambda button=button: button.click()


def searching(page: Page) -> Iterator[Act]:
    """Search for one word after the other: typed before, sent by Enter."""
    field = page.get_by_role("searchbox", name="Search")
    while True:
        for word in ("constant", "digits", "none"):
            field.fill(word)
            yield lambda: field.press("Enter")


def in_list(label: str, key: str = "ArrowDown") -> Callable[[Page], Iterator[Act]]:
    """Choose the next in a list: opened and found before, chosen by Enter."""

    def acts(page: Page) -> Iterator[Act]:
        field = page.get_by_role("combobox", name=label)
        field.scroll_into_view_if_needed()
        page.wait_for_timeout(AT_REST)  # a list that opens while its page still scrolls closes again
        while True:
            field.click()
            page.get_by_role("option").first.wait_for()
            for _ in range(MOST_PRESSES):
                field.press(key)
                if page.evaluate(MARKED) not in (None, field.input_value()):
                    break
            else:
                raise AssertionError(f"{label}: nothing else to choose than {field.input_value()!r}")
            yield lambda: field.press("Enter")

    return acts


INTERACTIONS: Final = (
    Interaction("Explore: a step on", "", on_slider, FIGURE),
    Interaction("Explore: another task", "", in_list("What is trained"), FIGURE),
    Interaction("Learn: the next lesson", "learn", on_lessons, TITLE),
    Interaction("Launch: another task", "launch", in_list("Task"), FORM),
    Interaction("Launch: another policy", "launch", in_list("Loss-scaling policy"), FORM),
    Interaction("Compare: a step on", "compare", on_slider, ".st-key-compare_spectra .cartesianlayer"),
    Interaction("Layers: a step on", "layers", on_slider, MAP),
    Interaction("Layers: a click on a row", "layers", on_rows, HISTORY),
    Interaction("What-if: the slider", "whatif", on_rail, ".st-key-window .infolayer", 0.1),
    Interaction("What-if: another format", "whatif", choosing("BF16", "FP16"), ".st-key-window .infolayer"),
    Interaction("Blame: another run", "blame", in_list("Run"), FIGURE),
    Interaction("Replay: another run", "replay", in_list("Run"), FIGURE),
    Interaction("Policies: a step overflows", "policies", on_pattern, FIGURE),
    Interaction("Updates: another rule", "updates", in_list("One of them, to try"), ".st-key-rule_told"),
    Interaction("Reproduce: another experiment", "reproduce", in_list("Experiment", "ArrowUp"), FIGURE),
    Interaction("Runs: a search", "runs", searching, TITLE),
)
"""What is done on the shipped sample runs."""
