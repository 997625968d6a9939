"""The live figures of lessons, by the name that a lesson calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lsviz.ui.demos.scales import show_overflow, show_silent, show_to_zero, show_window

DEMOS: Final[dict[str, Callable[[], None]]] = {
    "overflow": show_overflow,
    "to-zero": show_to_zero,
    "window": show_window,
    "silent": show_silent,
}
"""Name -> what draws the figure and its controls."""
