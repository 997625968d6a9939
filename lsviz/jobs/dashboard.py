"""Starting the dashboard's server from the command line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any, Final

from lsviz.errors import UserError

SETTINGS: Final[dict[str, Any]] = {
    "server.address": "127.0.0.1",
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": False,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "theme.light.primaryColor": "#3d4f78",
    "theme.dark.primaryColor": "#5674c6",
}
"""What ``.streamlit/config.toml`` says, for a server that is started elsewhere than beside that file."""


def serve_dashboard(port: int) -> int:
    """Run streamlit on the dashboard, on this machine's loopback address alone, until it ends.

    Returns:
        Streamlit's exit code.

    Raises:
        UserError: The port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UserError(f"port {port} is taken; choose another with --port") from None
    print(f"lsviz: the dashboard is at http://localhost:{port} (Ctrl-C ends it)", flush=True)
    # The welcome message goes, and with it an advertisement over the page.
    settings = {**SETTINGS, "server.port": port, "logger.hideWelcomeMessage": True}
    command = [sys.executable, "-m", "lsviz.ui.serving", json.dumps(settings)]
    try:
        return subprocess.call(command)
    except KeyboardInterrupt:
        return 0
