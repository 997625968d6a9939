"""The dashboard's frame: title, navigation, and the page asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

from lsviz.ui.access import take_token_from_address
from lsviz.ui.frame.admitting import show_view_only
from lsviz.ui.frame.menu import show_menu
from lsviz.ui.keys import hiding_style
from lsviz.ui.links import page_file, page_icon
from lsviz.ui.painting import begin_page
from lsviz.ui.state import arrive, hidden

# The story, one's own runs, questions to a run, and what stands behind them. (Streamlit shows a bare string.)
SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "": ("explore", "learn"),
    "Train": ("launch", "runs"),
    "Look closer": ("compare", "layers", "whatif", "blame", "replay"),
    "Background": ("policies", "updates", "reproduce"),
}
PAGES: Final = tuple(name for names in SECTIONS.values() for name in names)
TITLES: Final = {name: name.capitalize() for name in PAGES} | {"whatif": "What-if"}
HELP: Final = {
    "runs": "Find, name, compare, export and delete runs",
    "learn": "Eleven questions, each with a figure to play with",
    "compare": "Two to four runs side by side",
    "layers": "Where each layer's gradients lie, and what it loses",
    "whatif": "Which S should I use? Would BF16 have helped?",
    "blame": "Which layer limits S? Why were steps skipped?",
    "replay": "What would other policies have done with this run?",
    "policies": "S over the steps, by every library's rule",
    "updates": "From scaled gradients to new weights, against float64",
    "reproduce": "The paper's findings in small",
}
ICON: Final = Path(__file__).parents[1] / "icon.png"
# Streamlit's own CSV of a table leaves formulas in it; ours does not (`csv_text`). The last three lines are
# for contrast: Streamlit's is below AA.
STYLE: Final = """
[class*="st-key-live_"] [data-stale="true"] {opacity: 1 !important; transition: none !important}
[data-testid="stLayoutWrapper"]:has(> .st-key-start_bar) {position: sticky; top: 4.2rem; z-index: 5;
  background: Canvas; box-shadow: 0 0 0 .5rem Canvas}
.stTable > div {background: linear-gradient(to left, Canvas 40%, transparent) right/3rem 100% no-repeat local,
  linear-gradient(to left, rgba(128,128,128,.45), transparent) right/1rem 100% no-repeat scroll}
.stMainBlockContainer {padding-top: 3.6rem; padding-bottom: 3rem}
.st-key-page_menu {position: fixed; top: .62rem; right: 1rem; width: auto; z-index: 999991}
.st-key-learn_contents button, .st-key-learn_contents button div {justify-content: start; text-align: left}
:is(.st-key-learn_overflows, .st-key-traced-clicked) [role="toolbar"] {flex-wrap: wrap; overflow: visible}
button[aria-label^="Download as CSV"] {display: none}
[data-testid="stCaptionContainer"] {opacity: .8}
[data-testid="stPopoverButton"][aria-expanded="true"] {color: inherit !important}
button kbd {color: inherit !important; opacity: 1 !important}
button[data-variant][data-selected="true"], [data-testid="stSliderThumbValue"] {color: inherit !important}
"""


# Room for words of any usual length, wide and narrow: a longer answer then moves nothing below it.
ROOM_REM: Final = {
    "heading_explore": (11.2, 17.5),
    "heading_whatif": (12.7, 15.7),
    "heading_blame": (11.7, 14.4),
    "task-about": (8.4, 12.6),
    "policy-rule": (10.7, 13.7),
}


def room_style() -> str:
    """Return the style that keeps that room; a shorter answer to a page stands at its lower end."""
    wide, narrow = (
        "".join(f".st-key-{key} {{min-height: {rem[width]}rem}}" for key, rem in ROOM_REM.items())
        for width in (0, 1)
    )
    ends = '[class*="st-key-heading_"] {justify-content: flex-end}'
    return f"{ends}{wide}@media (max-width: 1100px) {{{narrow}}}"


def main() -> None:
    """Draw the page that the URL names."""
    st.set_page_config(page_title="lsviz: see loss scaling", page_icon=ICON, layout="wide")
    take_token_from_address()
    pages = {
        section: [
            st.Page(
                page_file(name),
                title=TITLES.get(name, name.capitalize()),
                icon=page_icon(name),
                default=name == PAGES[0],
                help=HELP.get(name),
            )
            for name in names
        ]
        for section, names in SECTIONS.items()
    }
    chosen = st.navigation(pages, position="top")
    arrive(chosen.url_path or PAGES[0])
    show_menu(chosen.url_path or PAGES[0])
    st.html(f"<style>{STYLE}{room_style()}{hiding_style(hidden())}</style>")
    show_view_only()
    begin_page()
    chosen.run()


if __name__ == "__main__":
    main()
