"""Links between pages, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import streamlit as st

from lsviz.ui.text import plain

PAGES_FOLDER: Final = Path(__file__).parent / "pages"

_ICONS: Final = {
    "explore": ":material/insights:",
    "learn": ":material/school:",
    "launch": ":material/play_arrow:",
    "runs": ":material/table_rows:",
    "compare": ":material/compare:",
    "layers": ":material/view_list:",
    "whatif": ":material/tune:",
    "replay": ":material/replay:",
    "blame": ":material/crisis_alert:",
    "policies": ":material/stacked_line_chart:",
    "reproduce": ":material/science:",
    "updates": ":material/balance:",
}


def page_file(name: str) -> str:
    """Return the file of a page, as streamlit's links and switches take it."""
    return str(PAGES_FOLDER / f"{name}.py")


def page_icon(name: str) -> str:
    """Return the icon of a page."""
    return _ICONS[name]


def link_page(name: str, label: str, query: Mapping[str, str] | None = None) -> None:
    """Draw a link to a page, with URL state where given; its label is plain text."""
    st.page_link(page_file(name), label=plain(label), icon=page_icon(name), query_params=dict(query or {}))
