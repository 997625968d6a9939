"""Text from outside, fit to be shown: without what no screen shows and what turns the rest around."""

from __future__ import annotations

import re
from typing import Final

# Controls (an escape begins a terminal's commands), marks that turn the direction of what stands after
# them, and halves of characters, which no text may hold. Line breaks and tabs are the caller's.
_UNSHOWN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def showable(text: str) -> str:
    """Return text without controls (but line breaks and tabs) and marks that turn its direction."""
    return _UNSHOWN.sub("", text)


def file_stem(text: str) -> str:
    """Return a name for a file that somebody downloads, made of letters, digits, dots, dashes and _."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:100] or "run"
