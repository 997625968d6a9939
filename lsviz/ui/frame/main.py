"""The dashboard's frame: title, navigation, and the page asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

from lsviz.ui.links import page_file, page_icon

PAGES: Final = (
    *("explore", "launch", "compare", "whatif", "replay", "blame", "policies", "updates", "reproduce"),
)
TITLES: Final = {name: name.capitalize() for name in PAGES} | {"whatif": "What-if"}
ICON: Final = Path(__file__).parents[1] / "icon.png"
STYLE: Final = "<style>.stMainBlockContainer {padding-top: 3.6rem; padding-bottom: 3rem}</style>"


def main() -> None:
    """Draw the page that the URL names."""
    st.set_page_config(page_title="lsviz: see loss scaling", page_icon=ICON, layout="wide")
    st.html(STYLE)
    pages = [
        st.Page(
            page_file(name),
            title=TITLES.get(name, name.capitalize()),
            icon=page_icon(name),
            default=name == PAGES[0],
        )
        for name in PAGES
    ]
    st.navigation(pages, position="top").run()


if __name__ == "__main__":
    main()
