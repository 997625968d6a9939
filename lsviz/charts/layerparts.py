"""What the maps of layers share: a facet a run, a hue a region, and the bands and edges of the format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lsviz.charts.regions import LEFT, RIGHT, band, region_edges
from lsviz.charts.theme import Palette, faded, literal, shortened
from lsviz.exponents import MIN_EXPONENT
from lsviz.formats import FloatFormat, Region

SMALLEST: Final = 1e-5
"""Shares below this one, one value in 100,000, are as pale as it."""
PALEST: Final = 0.16
TICK: Final = 8
VISIBLE: Final = range(LEFT, RIGHT)
KEPT_BELOW: Final = "too small for FP16, kept"
HUES: Final = (*Region, KEPT_BELOW)
"""What a cell's hue tells; the last is of values that were not in FP16."""
_GAP: Final = 0.02


@dataclass(frozen=True, slots=True)
class LayerFacet:
    """One run's part of a map.

    Attributes:
        title: The run in a few words.
        caption: S, and what is shown, in a few more.
        colour: The policy's colour.
        layers: `lsviz.analysis.layers.layers_frame`, of one step or of one tensor.
    """

    title: str
    caption: str
    colour: str
    layers: pd.DataFrame


def visible(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fold what lies outside the axis into its first and last bin; of shape (n, 128), gives (n, 63)."""
    low, high = LEFT - MIN_EXPONENT, RIGHT - MIN_EXPONENT
    inside = shares[:, low:high].copy()
    inside[:, 0] += shares[:, :low].sum(axis=1)
    inside[:, -1] += shares[:, high:].sum(axis=1)
    return inside


def hue_of(exponent: int, lost: bool, fmt: FloatFormat) -> str:
    """Return what a cell's hue tells: its region, or that it was flushed, or kept though too small."""
    if lost:
        return Region.FLUSHED
    if exponent == fmt.min_subnormal_exponent - 1:
        return Region.SUBNORMAL  # it rounds up
    region = fmt.region_of(exponent)
    return KEPT_BELOW if region is Region.FLUSHED else region


def cell_hues(lost: npt.NDArray[np.bool_], fmt: FloatFormat) -> npt.NDArray[np.int64]:
    """Return the number in HUES of each visible cell; of ``lost`` of shape (n, 128), gives (n, 63)."""
    kept = np.array([HUES.index(hue_of(exponent, False, fmt)) for exponent in VISIBLE], np.int64)
    inside = lost[:, LEFT - MIN_EXPONENT : RIGHT - MIN_EXPONENT]
    return np.where(inside, HUES.index(Region.FLUSHED), kept[None])


def hue_colour(hue: str, palette: Palette) -> str:
    """Return the colour of one of HUES."""
    return palette.neutral if hue == KEPT_BELOW else palette.regions[Region(hue)]


def hue_scale(palette: Palette) -> list[list[Any]]:
    """Return one colour scale for all hues, of values from 0 to the number of HUES (see `hue_value`)."""
    scale = []
    most = len(HUES)
    for i, name in enumerate(HUES):
        colour = hue_colour(name, palette)
        scale += [[i / most, faded(colour, PALEST)], [(i + 0.98) / most, colour], [(i + 1) / most, colour]]
    return scale


def hue_value(hue: npt.ArrayLike, share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a cell's place on `hue_scale`: its hue's number, and its strength, by the log of its share."""
    power = np.log10(np.maximum(share, SMALLEST)) / -math.log10(SMALLEST) + 1
    return np.asarray(np.asarray(hue) + 0.98 * np.clip(power, 0, 1))


def facet_domain(index: int, columns: int) -> tuple[float, float]:
    """Return the ends of a facet on the paper's axis."""
    width = (1 - _GAP * (columns - 1)) / columns
    return index * (width + _GAP), index * (width + _GAP) + width


def exponent_ticks(every: int) -> dict[str, Any]:
    """Return the settings of an axis of exponents."""
    ticks = range(-40, 17, every)
    return {
        "tickvals": list(ticks),
        "ticktext": [f"2<sup>{e}</sup>" if e else "1" for e in ticks],
        "tickangle": 0,
        "fixedrange": True,
        "showgrid": False,
    }


def region_shapes(axis: str, along: str, palette: Palette, fmt: FloatFormat) -> list[dict[str, Any]]:
    """Return the bands behind the cells, and a line at each edge before them."""
    across = "y" if along == "x" else "x"
    place = {f"{along}ref": f"{along}{axis}", f"{across}ref": f"{across}{axis} domain"}
    ends = {f"{across}0": 0, f"{across}1": 1}
    shapes = []
    for region, low, high in region_edges(fmt):
        span = {f"{along}0": low, f"{along}1": high, **ends, **place}
        shapes.append(band(region, palette, **span))
        if low > LEFT:
            dash = "dot" if region is Region.NORMAL else "solid"
            line = {"color": palette.text, "width": 1, "dash": dash}
            shapes.append({"type": "line", "line": line} | span | {f"{along}1": low})
    return shapes


def facet_titles(
    facet: LayerFacet, left: float, columns: int, palette: Palette, shift: int = 24
) -> list[dict[str, Any]]:
    """Return the name of a facet's run and its caption, above it."""
    limit = 92 // columns
    title = f"<b>{literal(shortened(facet.title, limit))}</b>"
    caption = shortened(facet.caption, max(0, limit - len(facet.title))) if columns <= 2 else ""
    words = f"{title}  <span style='color:{palette.muted}'>{literal(caption)}</span>"
    corner = {"x": left, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom"}
    return [note(words, 14, facet.colour, yshift=shift, **corner)]


def note(text: str, size: int, colour: str, **place: Any) -> dict[str, Any]:
    """Return an annotation."""
    return {"text": text, "showarrow": False, "font": {"size": size, "color": colour}, **place}
