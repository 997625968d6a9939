"""What starts beside a run: the same training under other policies, to be watched together."""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from lsviz.policies import POLICIES
from lsviz.ui.policy_form import canonical_policies
from lsviz.ui.state import MAX_COMPARED, set_url_list, url_list

FP32: Final = "fp32"
"""Stands beside the policies: the same training with nothing to scale."""
_KEY: Final = "launch_also"


def also_form() -> list[dict[str, Any]]:
    """Ask for policies to start beside the one chosen; the URL holds them.

    Returns:
        A run each: what differs from the one that the form describes.
    """
    if _KEY not in st.session_state:
        st.session_state[_KEY] = _known(url_list("also", ";"))
    options = list(dict.fromkeys([FP32, *POLICIES, *st.session_state[_KEY]]))
    chosen: list[str] = st.multiselect(
        "Beside it",
        options,
        key=_KEY,
        accept_new_options=True,
        max_selections=MAX_COMPARED - 1,
        format_func=_words,
        placeholder="Only the one above",
        help="The same training in FP32, or under other policies, started together and drawn in one figure. "
        "Typed policies may have settings: constant:2^10",
    )
    chosen = _known(chosen)
    set_url_list("also", chosen, ";")
    return [
        {"policy": "none", "precision": "fp32", "master_weights": True} if text == FP32 else {"policy": text}
        for text in chosen
    ]


def _known(texts: list[str]) -> list[str]:
    policies = canonical_policies([text for text in texts if text != FP32])
    return [*([FP32] if FP32 in texts else []), *policies][: MAX_COMPARED - 1]


def _words(text: str) -> str:
    if text == FP32:
        return "FP32"
    return "none: no scaling" if text == "none" else text
