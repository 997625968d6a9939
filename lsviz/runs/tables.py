"""Tables as CSV that spreadsheets read as text, never as formulas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula (OWASP, CSV injection)."""


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV, without its index; text that a spreadsheet would compute gets an apostrophe."""
    safe = frame.copy(deep=False)
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(place, [_inert(value) for value in frame.iloc[:, place]])
    safe.columns = [_inert(str(name)) for name in frame.columns]
    return safe.to_csv(index=False)


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def stacked_frame(frames: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """Return frames below each other, what each is called in a first column.

    Args:
        frames: By what each is called; columns that one lacks are empty there.
        name: The first column's name.
    """
    if not frames:
        return pd.DataFrame({name: []})
    return pd.concat(dict(frames), names=[name]).reset_index(level=0).reset_index(drop=True)
