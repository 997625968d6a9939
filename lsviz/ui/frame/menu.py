"""What every page has at its top right: glossary, sharing with what to hide, and keys."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import streamlit as st

from lsviz.ui.keys import hideable
from lsviz.ui.state import hidden, hide
from lsviz.ui.widgets import show_glossary

SHORTCUTS = {
    "Tab": "from one control to the next; all can be reached",
    "←  →": "outside a field: the recorded step before or after; in a slider that has the focus: a place",
    "Ctrl Enter": "on Launch: start",
    "double click": "in a figure: back from a zoom",
    "R": "run the page again",
}


def show_menu(page: str) -> None:
    """Draw the menu in the header's right end."""
    with st.container(key="page_menu", horizontal=True, gap="small"):
        show_glossary()
        # Opened, it makes the link anew: parts of a page change the address without the frame.
        with st.popover(
            "",
            icon=":material/share:",
            type="tertiary",
            help="Share, and hide controls",
            key="share",
            on_change="rerun",
        ):
            _show_sharing(page)
        with st.popover("", icon=":material/keyboard:", type="tertiary", help="Keyboard"):
            st.markdown("\n\n".join(f"**{keys}** {words}" for keys, words in SHORTCUTS.items()))


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
        help="Hidden controls keep their values. Only who opens the link misses them.",
    )
    if chosen:
        st.code(_link(chosen), language=None, wrap_lines=True)
        st.caption("Copy this link: it leaves them out, on every page that it leads to.")
    if hidden():
        hide(hidden())  # the address holds it on every page
        st.button("Show all controls again", key="show_all", on_click=_show_all, args=(page,))


def _link(names: Sequence[str]) -> str:
    """Return this view's address, with controls to leave out."""
    kept = {name: value for name, value in st.query_params.items() if name != "hide"}
    here = (st.context.url or "").partition("?")[0]
    return f"{here}?{urlencode({**kept, 'hide': ','.join(names)}, safe=',;:')}"


def _show_all(page: str) -> None:
    st.session_state[f"hidden-{page}"] = []
    hide([])
