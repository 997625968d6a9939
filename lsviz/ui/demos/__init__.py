"""The live figures of lessons, by the name that a lesson calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lsviz.ui.demos.scales import show_overflow, show_silent, show_to_zero, show_window
from lsviz.ui.demos.updates import show_accumulation, show_adam, show_masters, show_order, show_schedule
from lsviz.ui.demos.values import show_formats, show_harm

DEMOS: Final[dict[str, Callable[[], None]]] = {
    "overflow": show_overflow,
    "to-zero": show_to_zero,
    "window": show_window,
    "silent": show_silent,
    "order": show_order,
    "formats": show_formats,
    "adam": show_adam,
    "schedule": show_schedule,
    "accumulation": show_accumulation,
    "masters": show_masters,
    "harm": show_harm,
}
"""Name -> what draws the figure and its controls."""
