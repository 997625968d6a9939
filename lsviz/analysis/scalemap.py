"""Every loss scale against every tensor of a run: what would be flushed, what would overflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from lsviz.analysis.whatif import MAX_SCALE, MIN_SCALE, Histograms, whatif_frame
from lsviz.formats import FloatFormat

SCALES: Final = tuple(2.0**k for k in range(round(math.log2(MIN_SCALE)), round(math.log2(MAX_SCALE)) + 1))
"""Each power of two from 2^-10 to 2^40."""


def scale_map_frame(rows: Histograms, fmt: FloatFormat) -> pd.DataFrame:
    """Return what every S would do to each tensor's values of the whole run together.

    Returns:
        Columns tensor, kind, scale (each power of two from 2^-10 to 2^40), flushed (share of the values that
        are not zero) and overflow (share of all).
    """
    pooled = rows.pooled()  # a row a tensor and S that its values were recorded at
    frame = whatif_frame(pooled, SCALES, fmt)
    numel = np.tile(pooled.keys["numel"].to_numpy(np.float64), len(SCALES))
    frame["at_risk"] = numel * (1 - frame["structural_zero"])
    frame[["flushed", "overflow"]] = frame[["flushed", "overflow"]].mul(numel, axis=0)
    frame["numel"] = numel
    keys = ["scale", "tensor", "kind"]
    sums = frame.groupby(keys, sort=False, as_index=False)[["flushed", "overflow", "at_risk", "numel"]].sum()
    for name, whole in (("flushed", "at_risk"), ("overflow", "numel")):
        sums[name] = (sums[name] / sums[whole].where(sums[whole] > 0)).fillna(0.0)
    found: pd.DataFrame = sums[["tensor", "kind", "scale", "flushed", "overflow"]]
    return found


def layer_map_frame(scale_map: pd.DataFrame, layers: Sequence[str]) -> pd.DataFrame:
    """Return the same by layer: of its output's and its weights' gradients the larger share.

    Args:
        scale_map: `scale_map_frame`.
        layers: As `lsviz.analysis.shares.layer_names` returns them.

    Returns:
        Columns layer, scale, flushed, overflow.
    """
    known = set(layers)
    names = scale_map["tensor"].unique()
    owners = scale_map["tensor"].map({n: n if n in known else n.rpartition(".")[0] for n in names})
    mine = scale_map.assign(layer=owners)[owners.isin(known)]
    found: pd.DataFrame = mine.groupby(["layer", "scale"], as_index=False)[["flushed", "overflow"]].max()
    return found
