"""What a visitor sees who can only look: the reason, and a field for the token where there is one to give."""

from __future__ import annotations

import streamlit as st

from lsviz.ui.access import asks_for_token, give_token, was_refused, why_not
from lsviz.ui.text import plain

_FIELD = "token_given"


def show_view_only() -> None:
    """Say in one line that this visitor can't change anything, and why; nothing where they can."""
    reason = why_not()
    if reason is None:
        return
    with st.container(key="view_only", horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f":material/lock: **View only.** {plain(reason)}", width="content")
        if asks_for_token():
            with st.popover("Enter the token", type="tertiary", key="token_popover"):
                _ask_for_token()


def _ask_for_token() -> None:
    # Emptied once it is sent: the session keeps only that the right one was given.
    with st.form("token_form", border=False, clear_on_submit=True):
        st.text_input("Token", type="password", key=_FIELD, autocomplete="off", max_chars=500)
        st.form_submit_button("Change things", type="primary", key="token_send", on_click=_take)
    if was_refused():
        st.error("That is not this server's token.", icon=":material/lock:")


def _take() -> None:
    give_token(st.session_state[_FIELD])
    st.session_state[_FIELD] = ""
