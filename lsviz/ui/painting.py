"""What a page's first picture need not wait for.

A browser that opens the dashboard draws its first figure five times as slowly as later ones, and shows
nothing until all figures of the page are drawn. The first time in a session, the second figure's place is
therefore kept free until the first one is to be seen.
"""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

_FIRST: Final = "_is_first_picture"
_LATE: Final = "_late_figures"
_JS: Final = """
export default function({ setTriggerValue }) {
  const began = performance.now();
  let timer = setTimeout(look, 30);
  function look() {
    const drawn = document.querySelector('.js-plotly-plot .main-svg');
    if (!drawn && performance.now() - began < 10000) timer = setTimeout(look, 30);
    else requestAnimationFrame(() => { timer = setTimeout(() => setTriggerValue('painted', true), 0); });
  }
  return () => clearTimeout(timer);
}
"""


def begin_page() -> None:
    """Note that a page is about to be drawn for this visitor."""
    st.session_state[_FIRST] = _FIRST not in st.session_state


def is_first_picture() -> bool:
    """Tell whether the page that is being drawn is the first one that this visitor sees."""
    return bool(st.session_state.get(_FIRST, False))


def comes_later(key: str) -> bool:
    """Tell whether a figure waits for the first picture, or once did: drawn another way, it is drawn anew."""
    late: set[str] = st.session_state.setdefault(_LATE, set())
    if is_first_picture():
        late.add(key)
    return key in late


def keep_place(key: str, height: int) -> None:
    """Keep a figure's place free, and have this part of the page run again once another figure is drawn.

    Args:
        key: The figure's.
        height: Of the figure, in pixels.
    """
    with st.container(height=height, border=False, key=f"place-{key}"):
        _watcher()(key=f"watcher-{key}", on_painted_change=_end_first_picture)


def _end_first_picture() -> None:
    """Note that there is a picture: a part of a page that runs next begins none."""
    st.session_state[_FIRST] = False


@st.cache_resource(show_spinner=False)
def _watcher() -> Any:
    """Register the component once a server."""
    return st.components.v2.component("lsviz_watcher", js=_JS)
