"""Starting the dashboard's server from the command line."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from lsviz.errors import UserError

START_SECONDS: Final = 60.0

SETTINGS: Final[dict[str, Any]] = {
    "server.address": "127.0.0.1",
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": False,
    "browser.gatherUsageStats": False,
    "global.disableWidgetStateDuplicationWarning": True,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.primaryColor": "#3d4f78",
    "theme.light.linkColor": "#24509e",
    "theme.dark.backgroundColor": "#0e1117",
    "theme.dark.secondaryBackgroundColor": "#1b212c",
    "theme.dark.primaryColor": "#5270c2",
    "theme.dark.linkColor": "#8fb0f0",
}
"""What ``.streamlit/config.toml`` says, for a server that is started elsewhere than beside that file."""


def serve_dashboard(
    port: int,
    *,
    open_browser: bool = True,
    address: str = SETTINGS["server.address"],
    hosts: Sequence[str] = (),
) -> NoReturn:
    """Become streamlit on the dashboard: the server is this very process, so that none is left behind.

    Args:
        port: Where it listens.
        open_browser: Open the page once the server answers, where there is a screen.
        address: Which of this machine's addresses it listens on; by default its loopback address alone.
        hosts: Names by which browsers reach it, beside localhost.

    Raises:
        UserError: The port is taken, or this machine has no such address.
    """
    _refuse_taken(address, port)
    url = f"http://{'localhost' if address == SETTINGS['server.address'] else _reached_at(address)}:{port}"
    print(f"lsviz: the dashboard is at {url} (Ctrl-C ends it)", flush=True)
    # Its own address is no name that somebody else's server could have taken; the wildcard is none at all.
    known = [*SETTINGS["server.allowedHosts"], *([] if _is_wildcard(address) else [address]), *hosts]
    settings = {
        **SETTINGS,
        "server.address": address,
        "server.allowedHosts": list(dict.fromkeys(known)),
        "server.port": port,
        "server.headless": True,
        # The welcome message goes, and with it an advertisement over the page.
        "logger.hideWelcomeMessage": True,
    }
    opened = [url] if open_browser and _has_screen() else []
    command = [sys.executable, "-m", "lsviz.ui.serving", json.dumps(settings), *opened]
    os.execv(sys.executable, command)


def open_when_it_answers(url: str) -> None:
    """Open a page in the browser as soon as its server answers, without waiting for that here."""
    threading.Thread(target=_open, args=(url,), daemon=True).start()


def _open(url: str) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if _answers(host.strip("[]"), int(port)):
            webbrowser.open(url)
            return
        time.sleep(0.1)


def _refuse_taken(address: str, port: int) -> None:
    try:
        family, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken; choose another with --port") from None
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't listen on {address!r}, port {port}: {reason}") from None


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((_reached_at(address).strip("[]"), port), timeout=1):
            return True
    except (OSError, UnicodeError):
        return False


def _is_wildcard(address: str) -> bool:
    return address in ("0.0.0.0", "::")


def _reached_at(address: str) -> str:
    """Return how this machine reaches a server that listens on an address, as a URL has it."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"[{here}]" if ":" in here else here


def _has_screen() -> bool:
    """Whether a browser could show anything: on Linux that takes a display."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
