"""A format's window over gradients that stay where they are: what it covers at every loss scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.whatif import Histograms, shares_at_frame
from lsviz.exponents import BINS, EXPONENTS
from lsviz.formats import FloatFormat

WINDOW_SCALES: Final = tuple(2.0**k for k in range(-10, 41))
"""Every power of two that what-if can tell."""
ALL: Final = ""
"""Stands for all layers together in `window_frame`."""
NOTHING_LOST: Final = 0.0005


def nearest_scale(scale: float) -> float:
    """Return the power of two of WINDOW_SCALES that is nearest to S, going by log2."""
    return min(WINDOW_SCALES, key=lambda known: abs(math.log2(known / scale)))


def layer_outputs(rows: Histograms, layers: Sequence[str]) -> Histograms:
    """Return the histograms of the layers' outputs alone."""
    wanted = (rows.keys["kind"] == "activation_grad") & rows.keys["tensor"].isin(list(layers))
    return rows.subset(wanted.to_numpy(dtype=bool))


def unscaled_frame(outputs: Histograms, layers: Sequence[str]) -> pd.DataFrame:
    """Return each layer's values by exponent, with S taken out again.

    Args:
        outputs: As `layer_outputs` returns them.
        layers: Which, in the order wanted.

    Returns:
        Columns layer, exponent, share (of the layer's values that are not zero); where share > 0. An S
        that is no power of two moves whole bins by the nearest one.
    """
    shift = np.rint(np.log2(outputs.keys["loss_scale"].to_numpy(np.float64))).astype(np.int64)
    places = np.clip(np.arange(BINS)[None, :] - shift[:, None], 0, BINS - 1)
    frames = []
    for layer in layers:
        own = np.flatnonzero(outputs.keys["tensor"] == layer)
        total = np.bincount(places[own].ravel(), weights=outputs.counts[own].ravel(), minlength=BINS)
        if total.sum() > 0:
            share = total / total.sum()
            frames.append(pd.DataFrame({"layer": layer, "exponent": EXPONENTS, "share": share}))
    if not frames:
        return pd.DataFrame({"layer": [], "exponent": [], "share": []})
    frame = pd.concat(frames, ignore_index=True)
    return frame[frame["share"] > 0].reset_index(drop=True)


def window_frame(outputs: Histograms, layers: Sequence[str], fmt: FloatFormat) -> pd.DataFrame:
    """Return what a cast to a format would flush and overflow at every S of WINDOW_SCALES.

    Args:
        outputs: As `layer_outputs` returns them.
        layers: Which.
        fmt: FP16, BF16, E4M3 or E5M2.

    Returns:
        Columns layer, scale, flushed (share of the values that are not zero before the cast) and overflow
        (share of all values); a row for each layer and S, and one for each S whose layer is ALL.
    """
    count = len(outputs.keys)
    many = outputs.taken(np.tile(np.arange(count), len(WINDOW_SCALES)))
    cast = shares_at_frame(many, np.repeat(np.array(WINDOW_SCALES), count), fmt)
    numel = many.keys["numel"].to_numpy(np.float64)
    sums = pd.DataFrame(
        {
            "layer": cast["tensor"],
            "scale": cast["scale"],
            "flushed": cast["flushed"] * numel,
            "overflow": cast["overflow"] * numel,
            "at_risk": (1 - cast["structural_zero"]) * numel,
            "numel": numel,
        }
    )
    by_layer = sums.groupby(["layer", "scale"], as_index=False).sum()
    together = sums.drop(columns="layer").groupby("scale", as_index=False).sum().assign(layer=ALL)
    found = pd.concat([by_layer[by_layer["layer"].isin(list(layers))], together], ignore_index=True)
    found["flushed"] = (found["flushed"] / found["at_risk"].where(found["at_risk"] > 0)).fillna(0.0)
    found["overflow"] = (found["overflow"] / found["numel"].where(found["numel"] > 0)).fillna(0.0)
    return found[["layer", "scale", "flushed", "overflow"]]


def window_finding(frame: pd.DataFrame, scale: float, fmt: FloatFormat) -> str:
    """Return in one sentence what a cast at one S does to all layers together.

    Args:
        frame: `window_frame`.
        scale: One of WINDOW_SCALES.
        fmt: Its format.
    """
    here = frame[(frame["scale"] == scale) & (frame["layer"] == ALL)]
    if here.empty:
        return ""
    return cast_words(float(here["flushed"].iloc[0]), float(here["overflow"].iloc[0]), scale, fmt)


def cast_words(flushed: float, overflow: float, scale: float, fmt: FloatFormat) -> str:
    """Return in one sentence what share a cast at one S flushes, and what share overflows."""
    lost = "hardly anything" if 0 < flushed < NOTHING_LOST else format_percent(flushed)
    words = f"{fmt.name.upper()} at S = {format_scale(scale)} flushes {'nothing' if flushed == 0 else lost}"
    return f"{words}, and {format_percent(overflow)} overflow to Inf" if overflow > 0 else words
