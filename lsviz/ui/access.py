"""Who may change things. One place decides, and every act that writes goes through it (`lsviz.ui.acting`).

Reading and downloading are open to whoever reaches the page. Changing is not where the server is told to be
read-only, where it can be reached from elsewhere without a token, and where it has one that the visitor
has not given.
"""

from __future__ import annotations

import hmac
import os
from ipaddress import ip_address
from typing import Any, Final

import streamlit as st

from lsviz.errors import UserError

READ_ONLY: Final = "LSVIZ_READ_ONLY"
"""Set to 1, it makes the server one that only shows, whoever asks."""
TOKEN: Final = "LSVIZ_TOKEN"
"""What a visitor must give to change things, where it is set."""
MIN_TOKEN: Final = 16
"""Characters that a token has at least: a shorter one can be guessed."""

_GRANTED: Final = "access_granted"
_REFUSED: Final = "access_refused"


class AccessError(UserError):
    """This visitor may not change anything; the message says why."""


def may_change() -> bool:
    """Return whether this visitor may launch, cancel, name, import and delete."""
    return why_not() is None


def require_change() -> None:
    """Let the visitor go on who may change things.

    Raises:
        AccessError: This one may not.
    """
    reason = why_not()
    if reason is not None:
        raise AccessError(reason)


def changing(words: str | None = None) -> dict[str, Any]:
    """Return what a control that changes things is drawn with: its help, or disabled and the reason.

    Args:
        words: The control's help where it can be used.
    """
    reason = why_not()
    return {"help": words} if reason is None else {"disabled": True, "help": f"View only. {reason}"}


def why_not() -> str | None:
    """Return in a sentence or two why this visitor can't change anything; None where they can."""
    return "Give this server's token to change things." if asks_for_token() else server_reason()


def server_reason() -> str | None:
    """Return why nobody can change anything here; None where they can, be it with the token."""
    if _read_only():
        return "This server only shows runs."
    token, reached = _token(), reachable_by()
    if token:
        return None if len(token) >= MIN_TOKEN else f"{TOKEN} has fewer than {MIN_TOKEN} characters."
    if reached:
        return f"Others can reach this server ({'; '.join(reached)}), and it has no {TOKEN}."
    return None


def asks_for_token() -> bool:
    """Return whether this visitor could change things by giving the token."""
    return bool(_token()) and server_reason() is None and not st.session_state.get(_GRANTED, False)


def give_token(given: str) -> bool:
    """Take what a visitor gave for the token, for this session alone; return whether it is the one."""
    token = _token()
    # Bytes: compare_digest takes no other text than ASCII.
    right = bool(token) and hmac.compare_digest(
        given.encode("utf-8", "replace"), token.encode("utf-8", "surrogateescape")
    )
    if right:
        st.session_state[_GRANTED] = True
    st.session_state[_REFUSED] = not right
    return right


def take_token_from_address() -> None:
    """Take a token out of the address before anything is drawn, so that no link or bookmark holds it."""
    given = st.query_params.pop("token", None)
    if given is not None and _token():
        give_token(given)


def was_refused() -> bool:
    """Return whether the token that this visitor gave last was not the one."""
    return bool(st.session_state.get(_REFUSED, False))


def reachable_by() -> list[str]:
    """Return the options in force by which others than this machine's user could change things."""
    found = []
    if not _loopback(st.get_option("server.address")):
        found.append(_told("server.address"))
    hosts = st.get_option("server.allowedHosts")
    if not hosts or not all(_loopback(host) for host in hosts):
        found.append(_told("server.allowedHosts"))
    if st.get_option("server.corsAllowedOrigins"):
        found.append(_told("server.corsAllowedOrigins"))
    found += [
        _told(name)
        for name in ("server.enableCORS", "server.enableXsrfProtection")
        if not st.get_option(name)
    ]
    return [*found, *([_told("server.enableAgentApi")] if st.get_option("server.enableAgentApi") else [])]


def loosened() -> list[str]:
    """Return the other options in force that give away more than the shipped ones do, or slow the server."""
    shipped = {
        "client.showErrorDetails": "none",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
    }
    return [_told(name) for name, value in shipped.items() if st.get_option(name) != value]


def start_line() -> str | None:
    """Return what the server says as it starts; None where all is as shipped and changing is free."""
    options, reason = [*reachable_by(), *loosened()], server_reason()
    parts = [f"weaker than the shipped settings: {'; '.join(options)}"] if options else []
    if _read_only():
        parts.append(f"view only, as {READ_ONLY} says")
    elif reason is not None and _token():
        parts.append(f"view only: {reason.rstrip('.')}")
    elif reason is not None:
        parts.append(f"view only, since {TOKEN} is not set")
    elif _token():
        parts.append(f"who gives {TOKEN} may change things, others only look")
    return f"lsviz: {'; '.join(parts)}" if parts else None


def _told(name: str) -> str:
    value = st.get_option(name)
    if isinstance(value, list):
        return f"{name} = {', '.join(map(str, value)) or 'any'}"
    words = str(value).lower() if isinstance(value, bool) else "all of them" if value is None else value
    return f"{name} = {words}"


def _read_only() -> bool:
    return os.environ.get(READ_ONLY, "").strip().lower() not in ("", "0", "false", "no", "off")


def _token() -> str:
    return os.environ.get(TOKEN, "").strip()


def _loopback(address: str | None) -> bool:
    """Whether an address or host is this machine's own and no other; what can't be told is not."""
    if not isinstance(address, str):
        return False
    if address.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
