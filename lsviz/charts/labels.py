"""Names in figures: at the ends of lines, in place of a legend, and of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from lsviz.charts.theme import literal, shortened

LABEL_PX: Final = 17
MAX_LABEL: Final = 30
MAX_NAME: Final = 26


def row_names(layers: Sequence[str]) -> list[str]:
    """Return layers' names as the rows of a figure have them; what is whole in itself has none."""
    return [literal(shortened(name or "(model)", MAX_NAME, keep_end=True)) for name in layers]


def row_axis(names: Sequence[str]) -> dict[str, Any]:
    """Return the y axis of a figure with a row a layer, the first at the bottom.

    Args:
        names: As `row_names` returns them.
    """
    return {
        "tickvals": list(range(len(names))),
        "ticktext": list(names),
        "range": [-0.5, max(len(names) - 0.5, 0.5)],
        "showgrid": False,
        "fixedrange": True,
    }


def end_labels(
    ends: Mapping[str, tuple[float, float]],
    colours: Mapping[str, str],
    *,
    low: float,
    high: float,
    height: float,
) -> list[dict[str, Any]]:
    """Return annotations with each line's name right of its end, pushed apart where lines meet.

    Args:
        ends: Label -> (x, y) of the line's end, on the axes x and y.
        colours: Label -> colour.
        low: Lower end of the y axis.
        high: Its upper end.
        height: The panel's, in pixels.
    """
    room = LABEL_PX * (high - low) / max(1.0, height)
    order = sorted(ends, key=lambda label: ends[label][1])
    places: dict[str, float] = {}
    previous = -np.inf
    for label in order:
        previous = max(ends[label][1], previous + room)
        places[label] = previous
    # What was pushed out at the top is pushed back as one.
    excess = max(0.0, previous - high)
    return [
        {
            "text": f"<b>{literal(shortened(label, MAX_LABEL))}</b>",
            "x": ends[label][0],
            "xref": "x",
            "xanchor": "left",
            "xshift": 6,
            "y": places[label] - excess,
            "yref": "y",
            "yanchor": "middle",
            "showarrow": False,
            "font": {"size": 13, "color": colours[label]},
        }
        for label in order
    ]
