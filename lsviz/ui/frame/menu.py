"""What every page has at its top right: glossary, sharing with what to hide, and keys."""

from __future__ import annotations

import streamlit as st

from lsviz.ui.keys import hideable
from lsviz.ui.state import hidden, hide
from lsviz.ui.widgets import show_glossary

SHORTCUTS = {
    "Tab": "from one control to the next; all can be reached",
    "←  →": "in a slider that has the focus: one place back or on",
    "double click": "in a figure: back from a zoom",
    "R": "run the page again",
}


def show_menu(page: str) -> None:
    """Draw the menu in the header's right end."""
    with st.container(key="page_menu", horizontal=True, gap="small"):
        show_glossary()
        with st.popover("", icon=":material/share:", type="tertiary", help="Share, and hide controls"):
            _show_sharing(page)
        with st.popover("", icon=":material/keyboard:", type="tertiary", help="Keyboard"):
            for keys, words in SHORTCUTS.items():
                st.markdown(f"**{keys}** {words}")


def _show_sharing(page: str) -> None:
    st.markdown(
        "**The address bar holds this view**, with all that you chose: copy it, and whoever opens it on a "
        "server with the same runs sees the same."
    )
    names = hideable(page)
    chosen = st.multiselect(
        "Hide, for a class",
        list(names),
        [name for name in hidden() if name in names],
        key=f"hidden-{page}",
        format_func=lambda name: f"{name}: {names[name]}",
        placeholder="Controls to leave out",
        help="Hidden controls keep their values. The address then holds hide=…; open it without to see all.",
    )
    others = [name for name in hidden() if name not in names]
    hide([*others, *chosen])
