"""The exponent spectrum of a run's layers at one step: what FP32 has beside what FP16 keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from lsviz.exponents import EXPONENTS, ExponentHistogram
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
    here = exponents[(exponents["step"] == step) & (exponents["kind"] == "activation_grad")]
    rows = []
    for tensor in layers:
        of_tensor = here[here["tensor"] == tensor]
        recorded = of_tensor[~of_tensor["reference"].astype(bool)]
        reference = of_tensor[of_tensor["reference"].astype(bool)]
        if recorded.empty:
            continue
        loss_scale = float(recorded["loss_scale"].iloc[0])
        kept = np.asarray(recorded["counts"].iloc[0], dtype=np.float64)
        if reference.empty:
            expected = np.full(kept.shape, np.nan)
            total = kept.sum()
        else:
            histogram = ExponentHistogram.from_dict(
                dict(zip(reference.columns, reference.iloc[0], strict=True))
            )
            expected = histogram.shift(round(math.log2(loss_scale))).counts.astype(np.float64)
            total = expected.sum()
        scale = total if total > 0 else 1.0
        for exponent, has, keeps in zip(EXPONENTS, expected / scale, kept / scale, strict=True):
            if has > 0 or keeps > 0:
                rows.append((tensor, int(exponent), fmt.region_of(int(exponent)), has, keeps))
    return pd.DataFrame(rows, columns=SPECTRUM_COLUMNS)
