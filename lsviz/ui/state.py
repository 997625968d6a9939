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
_PAGE: Final = "page_shown"
_LAST_RUN: Final = "last_run"
_HIDDEN: Final = "hidden_controls"


def arrive(page: str) -> None:
    """Note which page is shown; one that a link with values leads to forgets what was chosen there before.

    Otherwise a link to a launch under one policy would start another task that was chosen an hour ago.
    """
    before = st.session_state.get(_PAGE)
    st.session_state[_PAGE] = page
    asked = [name for name in st.query_params if name in KEYS and page in KEYS[name].pages]
    if before in (None, page) or not asked or asked == ["run"]:
        return
    chosen = [(name, *key.widgets) for name, key in KEYS.items() if page in key.pages and name != "run"]
    stems = tuple(stem for stems in chosen for stem in stems)
    for key in list(st.session_state):
        if isinstance(key, str) and (key in stems or key.startswith(tuple(f"{stem}." for stem in stems))):
            del st.session_state[key]


def run_store() -> RunStore:
    """Return all runs a page can show: launched ones and samples."""
    return RunStore.at(default_root(), samples_root())


def colour_mode() -> Mode:
    """Return the theme that the browser shows."""
    return "dark" if st.context.theme.type == "dark" else "light"


def remember_run(run_id: str) -> None:
    """Note which run a person is busy with; pages that ask one run begin with it."""
    st.session_state[_LAST_RUN] = run_id


def last_run() -> str | None:
    """Return the run last chosen or started in this session."""
    return st.session_state.get(_LAST_RUN)


def watched_runs() -> list[str]:
    """Return the runs that Launch shows: from the URL, else those last watched in this session."""
    run_ids = url_list("run") or list(st.session_state.get(_WATCHED, []))
    watch(run_ids)
    return run_ids[:MAX_COMPARED]


def watch(run_ids: Sequence[str]) -> None:
    """Make Launch show these runs, or none, also when one comes back to the page."""
    kept = list(dict.fromkeys(run_ids))[:MAX_COMPARED]
    st.session_state[_WATCHED] = kept
    st.query_params.pop("runs", None)  # another page's
    set_url_list("run", kept)


def unwatch(run_id: str) -> None:
    """Leave one run out of what Launch shows."""
    watch([other for other in watched_runs() if other != run_id])


def watch_instead(run_id: str, another: str) -> None:
    """Make Launch show another run in the place of one."""
    watch([another if watched == run_id else watched for watched in watched_runs()])


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


def hidden() -> list[str]:
    """Return the controls to leave out: the URL's, which the session keeps from page to page."""
    if "hide" in st.query_params:
        st.session_state[_HIDDEN] = [name for name in url_list("hide") if name in KEYS or name in PARTS]
    return list(st.session_state.get(_HIDDEN, []))


def hide(names: Sequence[str]) -> None:
    """Leave these controls out, on this page and the next."""
    st.session_state[_HIDDEN] = list(names)
    set_url_list("hide", names)
