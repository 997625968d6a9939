"""Starting the dashboard's server from the command line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from typing import Any, Final

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


def serve_dashboard(port: int, *, open_browser: bool = True) -> int:
    """Run streamlit on the dashboard, on this machine's loopback address alone, until it ends.

    Args:
        port: Where it listens.
        open_browser: Open the page once the server answers, where there is a screen.

    Returns:
        Streamlit's exit code.

    Raises:
        UserError: The port is taken.
    """
    if _answers(port):
        raise UserError(f"port {port} is taken; choose another with --port")
    url = f"http://localhost:{port}"
    print(f"lsviz: the dashboard is at {url} (Ctrl-C ends it)", flush=True)
    # The welcome message goes, and with it an advertisement over the page.
    settings = {**SETTINGS, "server.port": port, "logger.hideWelcomeMessage": True}
    command = [sys.executable, "-m", "lsviz.ui.serving", json.dumps(settings)]
    if open_browser and _has_screen():
        threading.Thread(target=_open_when_it_answers, args=(port, url), daemon=True).start()
    try:
        return subprocess.call(command)
    except KeyboardInterrupt:
        return 0


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _has_screen() -> bool:
    """Whether a browser could show anything: on Linux that takes a display."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_when_it_answers(port: int, url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if _answers(port):
            webbrowser.open(url)
            return
        time.sleep(0.1)
