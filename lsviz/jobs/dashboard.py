"""Starting the dashboard's server from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lsviz


def serve_dashboard(port: int) -> int:
    """Run streamlit on the dashboard until it ends, and return its exit code.

    The settings of ``.streamlit/config.toml`` that keep it safe and quick are repeated here, since
    streamlit reads that file only from the current folder.
    """
    script = Path(lsviz.__file__).parent / "ui" / "main.py"
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": "false",
        "server.allowedHosts": "localhost,127.0.0.1",
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
    }
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    try:
        return subprocess.call([sys.executable, "-m", "streamlit", "run", str(script), *flags])
    except KeyboardInterrupt:
        return 0
