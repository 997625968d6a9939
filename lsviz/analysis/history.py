"""Gradient exponents over a whole training, all layers together: the paper's Figure 3 as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_percent, format_scale
from lsviz.exponents import EXPONENTS
from lsviz.formats import FloatFormat

ZERO: Final = "zero"
"""The column beside the exponents: share of all values that are exactly zero."""
NEGLIGIBLE: Final = 0.0005


def history_frame(exponents: pd.DataFrame, layers: Sequence[str]) -> pd.DataFrame:
    """Return shares by exponent at every step with a reference: FP32 gradients, S = 1.

    Args:
        exponents: The exponents table with its counts.
        layers: Whose ``activation_grad`` count, all together.

    Returns:
        One row a step (the index), one column an exponent from -80 to 47 with its share of the values
        that are neither zero nor Inf or NaN, and ``zero``, the share of all values that are exactly
        zero. A step where all are zero has shares of 0.
    """
    chosen = exponents[
        exponents["reference"].astype(bool)
        & (exponents["kind"] == "activation_grad")
        & exponents["tensor"].isin(list(layers))
    ]
    rows = {}
    for step, group in chosen.groupby("step"):
        counts = np.sum(np.stack(group["counts"].to_list()), axis=0, dtype=np.int64)
        total = counts.sum()
        shares = counts / total if total else counts.astype(float)
        rows[step] = [*shares, group["zero"].sum() / group["numel"].sum()]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*map(int, EXPONENTS), ZERO])
    return frame.rename_axis("step")


def below(history: pd.DataFrame, exponent: float) -> float:
    """Return the share of non-zero values below 2^exponent, mean over the steps; 0 without steps."""
    return float(history[[e for e in EXPONENTS if e < exponent]].sum(axis=1).mean()) if len(history) else 0.0


def history_finding(history: pd.DataFrame, loss_scale: float, fmt: FloatFormat) -> str:
    """Return what the figure shows in one sentence.

    Args:
        history: `history_frame`.
        loss_scale: The S whose rescue is told.
        fmt: The format that flushes.
    """
    if history.empty:
        return "No FP32 reference was recorded."
    limit = math.log2(fmt.flush_limit)
    lost, still = below(history, limit), below(history, limit - math.log2(loss_scale))
    name, scale = fmt.name.upper(), format_scale(loss_scale)
    if lost < NEGLIGIBLE:
        return f"Hardly any value lies below {name}'s range."
    lead = f"{format_percent(lost)} of the non-zero values lie below {name}'s range"
    if still < NEGLIGIBLE:
        return f"{lead}; S = {scale} brings nearly all of them back."
    return f"{lead}; with S = {scale}, {format_percent(still)} still do."
