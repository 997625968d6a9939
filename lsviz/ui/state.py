"""What a session holds beside its widgets, and where runs lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from lsviz.charts.theme import Mode
from lsviz.runs.store import RunStore, default_root, samples_root
from lsviz.ui.keys import KEYS, PARTS

MAX_COMPARED: Final = 4
_WATCHED: Final = "watched_run"
_HIDDEN: Final = "hidden_controls"


def run_store() -> RunStore:
    """Return all runs a page can show: launched ones and samples."""
    return RunStore.at(default_root(), samples_root())


def colour_mode() -> Mode:
    """Return the theme that the browser shows."""
    return "dark" if st.context.theme.type == "dark" else "light"


def watched_run() -> str | None:
    """Return the run that Launch shows: from the URL, else the one last watched in this session."""
    run_id = st.query_params.get("run") or st.session_state.get(_WATCHED)
    watch(run_id)
    return run_id


def watch(run_id: str | None) -> None:
    """Make Launch show this run, or none, also when one comes back to the page."""
    st.session_state[_WATCHED] = run_id
    st.query_params.pop("runs", None)  # another page's
    if run_id:
        st.query_params["run"] = run_id
    else:
        st.query_params.pop("run", None)


def url_list(key: str, separator: str = ",") -> list[str]:
    """Return a separated URL value as a list, each part once."""
    parts = st.query_params.get(key, "").split(separator)
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def set_url_list(key: str, values: Sequence[str], separator: str = ",") -> None:
    """Write a list into the URL; an empty one removes the key."""
    if values:
        st.query_params[key] = separator.join(values)
    else:
        st.query_params.pop(key, None)


def take_default(key: str, default: str) -> None:
    """Let a link that asks for a widget's default have it; call it before the widget is drawn.

    Streamlit drops a default from the URL, and what the session remembers of another visit would win.
    """
    if st.query_params.get(key) == default:
        st.session_state.pop(key, None)
        st.query_params.pop(key, None)


def hidden() -> list[str]:
    """Return the controls to leave out: the URL's, which the session keeps from page to page."""
    if "hide" in st.query_params:
        st.session_state[_HIDDEN] = [name for name in url_list("hide") if name in KEYS or name in PARTS]
    return list(st.session_state.get(_HIDDEN, []))


def hide(names: Sequence[str]) -> None:
    """Leave these controls out, on this page and the next."""
    st.session_state[_HIDDEN] = list(names)
    set_url_list("hide", names)
