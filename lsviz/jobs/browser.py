"""Which browser of this machine draws figures for files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from lsviz.errors import UserError

NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
PLACES: Final = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
NO_BROWSER: Final = (
    "install Chromium or Chrome (Debian: apt-get install chromium), or name one in BROWSER_PATH"
)


def find_browser() -> Path | None:
    """Return BROWSER_PATH, or else the first Chromium or Chrome here; None where there is none.

    Raises:
        UserError: BROWSER_PATH names no program.
    """
    named = os.environ.get("BROWSER_PATH")
    if named:
        if not (Path(named).is_file() and os.access(named, os.X_OK)):
            raise UserError(f"BROWSER_PATH should name a Chromium or Chrome, got {named!r}")
        return Path(named)
    for name in (*NAMES, *PLACES):
        found = shutil.which(name)
        if found:
            return Path(found)
    return None
