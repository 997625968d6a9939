"""See loss scaling: FP16 training runs and every layer's gradient exponents.

The curated door. Importing it imports neither torch nor streamlit: each name is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsviz.exponents import ExponentHistogram
    from lsviz.formats import FORMATS, FloatFormat
    from lsviz.policies import parse_policy
    from lsviz.runs.config import RunConfig
    from lsviz.runs.reader import Run, open_run
    from lsviz.training.recording import Recording, record

__version__ = "0.1.0"

_HOMES = {
    "FORMATS": "lsviz.formats",
    "FloatFormat": "lsviz.formats",
    "ExponentHistogram": "lsviz.exponents",
    "parse_policy": "lsviz.policies",
    "RunConfig": "lsviz.runs.config",
    "Run": "lsviz.runs.reader",
    "open_run": "lsviz.runs.reader",
    "Recording": "lsviz.training.recording",
    "record": "lsviz.training.recording",
}

__all__ = [
    "FORMATS",
    "ExponentHistogram",
    "FloatFormat",
    "Recording",
    "Run",
    "RunConfig",
    "__version__",
    "open_run",
    "parse_policy",
    "record",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'lsviz' has no attribute {name!r}") from None
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
