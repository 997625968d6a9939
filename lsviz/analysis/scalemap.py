"""Every loss scale against every tensor of a run: what would be flushed, what would overflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lsviz.analysis.whatif import MAX_SCALE, MIN_SCALE, Histograms, check_format, counts_at
from lsviz.formats import FloatFormat

SCALES: Final = tuple(2.0**k for k in range(round(math.log2(MIN_SCALE)), round(math.log2(MAX_SCALE)) + 1))
"""Each power of two from 2^-10 to 2^40."""


def scale_map_frame(rows: Histograms, fmt: FloatFormat) -> pd.DataFrame:
    """Return what every S would do to each tensor's values of the whole run together.

    Returns:
        Columns tensor, kind, scale (each power of two from 2^-10 to 2^40), flushed (share of the values that
        are not zero) and overflow (share of all).

    Raises:
        WhatIfError: A format whose rounding a histogram does not know.
    """
    check_format(rows, fmt)
    pooled = rows.pooled()  # a row a tensor and S that its values were recorded at
    tensors = pooled.keys.groupby(["tensor", "kind"], sort=False)
    number, names = tensors.ngroup().to_numpy(), tensors.first().index.to_frame(index=False)

    def of_tensors(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
        weights = np.asarray(counts, np.float64)
        return np.bincount(number, weights, minlength=len(names)).astype(np.float64)

    numel = of_tensors(pooled.keys["numel"])
    at_risk = numel - of_tensors(pooled.keys["zero"])
    flushed, overflow = np.empty((len(SCALES), len(names))), np.empty((len(SCALES), len(names)))
    for place, scale in enumerate(SCALES):
        counts = counts_at(pooled, scale, fmt)
        flushed[place] = of_tensors(counts["flushed"]) / np.where(at_risk > 0, at_risk, np.inf)
        overflow[place] = of_tensors(counts["overflow"]) / np.where(numel > 0, numel, np.inf)
    found = names.iloc[np.tile(np.arange(len(names)), len(SCALES))].reset_index(drop=True)
    return found.assign(
        scale=np.repeat(SCALES, len(names)), flushed=flushed.ravel(), overflow=overflow.ravel()
    )


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
