"""The exponent spectrum of a run's layers at one step: what FP32 has beside what FP16 keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from lsviz.analysis.shares import shown_rows
from lsviz.exponents import EXPONENTS, moved_counts
from lsviz.formats import FloatFormat

SPECTRUM_COLUMNS: Final = ["tensor", "exponent", "region", "reference", "kept"]


def spectrum_frame(
    exponents: pd.DataFrame, step: int, layers: Sequence[str], fmt: FloatFormat
) -> pd.DataFrame:
    """Return shares by exponent as the format sees them, that is scaled by S.

    Args:
        exponents: The exponents table, or the part of one step.
        step: The step to show.
        layers: Which tensors, in the order wanted.
        fmt: The format whose regions are named.

    Returns:
        One row a tensor and exponent where either share is above zero; ``reference`` is the share of
        the reference's non-zero values, shifted by log2 S (NaN without a reference), ``kept`` the
        recorded values over the same total. Where S is no power of two the shift is rounded to whole
        bins.
    """
    here = shown_rows(exponents, step)
    tensors, is_reference = here["tensor"].to_numpy(object), here["reference"].to_numpy(bool)
    counts, scales = here["counts"].to_numpy(object), here["loss_scale"].to_numpy(np.float64)
    recorded = {name: at for at, name in enumerate(tensors) if not is_reference[at]}
    reference = {name: at for at, name in enumerate(tensors) if is_reference[at]}
    regions = [fmt.region_of(int(exponent)) for exponent in EXPONENTS]
    columns: dict[str, list[Any]] = {name: [] for name in SPECTRUM_COLUMNS}
    for tensor in layers:
        if tensor not in recorded:
            continue
        at = recorded[tensor]
        kept = np.asarray(counts[at], np.float64)
        if tensor in reference:
            places = round(math.log2(scales[at]))
            expected = moved_counts(np.asarray(counts[reference[tensor]], np.float64), places)
            total = expected.sum()
        else:
            expected, total = np.full(kept.shape, np.nan), kept.sum()
        scale = total if total > 0 else 1.0
        shown = np.flatnonzero((expected > 0) | (kept > 0))
        columns["tensor"] += [tensor] * len(shown)
        columns["exponent"] += EXPONENTS[shown].tolist()
        columns["region"] += [regions[place] for place in shown]
        columns["reference"] += (expected[shown] / scale).tolist()
        columns["kept"] += (kept[shown] / scale).tolist()
    return pd.DataFrame(columns)
