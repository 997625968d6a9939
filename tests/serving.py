"""Waiting for a server that a test has started."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

from tests.conftest import PATIENCE


def wait_until_served(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a server answers; with what it said, if it ends instead."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=10).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.05)
        else:
            return
