"""A format's regions on an axis of exponents: where each lies, and the band that shades it."""

from __future__ import annotations

import math
from typing import Any

from lsviz.charts.theme import Palette
from lsviz.formats import FloatFormat, Region

LEFT, RIGHT = -44, 19
"""One fixed axis for every figure; what lies further left is drawn in the first bin."""


def region_edges(
    fmt: FloatFormat, *, left: float = LEFT, right: float = RIGHT, shift: float = 0.0
) -> list[tuple[Region, float, float]]:
    """Return each region's ends on a log2 axis.

    Half the smallest subnormal still rounds up to it, and values past the overflow limit become Inf.

    Args:
        fmt: The format.
        left: Where the axis begins.
        right: Where it ends.
        shift: log2 of what the axis's values are still to be multiplied by, where they are unscaled.
    """
    inner = (math.log2(fmt.flush_limit), fmt.min_exponent, math.log2(fmt.overflow_limit))
    edges = [left, *(min(max(edge - shift, left), right) for edge in inner), right]
    return list(zip(Region, edges, edges[1:], strict=False))


def band(region: Region, palette: Palette, **place: Any) -> dict[str, Any]:
    """Return the shape that shades a region behind the data; place holds its references and ends."""
    return {
        "type": "rect",
        "layer": "below",
        "fillcolor": palette.bands[region],
        "line": {"width": 0},
        **place,
    }
