"""The table of a run that checks its weight update: what it did at every step, beside float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

LOWEST_RATIO: Final = -40
HIGHEST_RATIO: Final = 8
RATIO_BINS: Final = HIGHEST_RATIO - LOWEST_RATIO + 1
"""Bins of floor(log2(|ideal update| / |weight|)); the two at the ends hold everything beyond too."""


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """One update that was applied; a skipped step has none.

    Ideal is the update that the same gradients call for: divided by S, clipped at the threshold by their
    own norm, L2 times the weight added, then the optimizer, all in float64 on weights in float64.

    Attributes:
        step: Its number.
        loss_scale: S that the gradients still held; 1 where every layer's was undone already.
        weight_error: L2 distance of the weights from the ideal ones, as a share of the way that the ideal
            ones have gone since the first step; NaN where they have not moved.
        distance: That way: the L2 distance of the ideal weights from the first ones.
        norm: L2 norm of the ideal gradients where clipping looks at them.
        norm_seen: L2 norm that clipping compared with its threshold; without clipping, that it would have.
        clip_threshold: What it was compared with; None without clipping.
        clip_factor: What clipping multiplied the gradients by.
        step_size: L2 norm of the change of all weights.
        ideal_step_size: The same of the ideal weights.
        stalled: Share, of the weights whose ideal update is not zero, of those that did not change; NaN
            where there are none.
        numel: Number of weights.
        zero_weights: How many were zero before the step: they have no ratio.
        zero_updates: How many others have an ideal update of zero.
        counts: Of the rest, by floor(log2(|ideal update| / |weight before the step|)), shape
            (RATIO_BINS,), from LOWEST_RATIO on. Adds up with the two above to ``numel``.
        moved: How many of each bin changed their weight as it is stored, shape (RATIO_BINS,).
    """

    step: int
    loss_scale: float
    weight_error: float
    distance: float
    norm: float
    norm_seen: float
    clip_threshold: float | None
    clip_factor: float
    step_size: float
    ideal_step_size: float
    stalled: float
    numel: int
    zero_weights: int
    zero_updates: int
    counts: npt.NDArray[np.uint32]
    moved: npt.NDArray[np.uint32]


_COUNTS: Final = pa.list_(pa.field("element", pa.uint32(), nullable=False), RATIO_BINS)

UPDATES_SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("loss_scale", pa.float64()),
        ("weight_error", pa.float64()),
        ("distance", pa.float64()),
        ("norm", pa.float64()),
        ("norm_seen", pa.float64()),
        ("clip_threshold", pa.float64()),
        ("clip_factor", pa.float64()),
        ("step_size", pa.float64()),
        ("ideal_step_size", pa.float64()),
        ("stalled", pa.float64()),
        ("numel", pa.int64()),
        ("zero_weights", pa.int64()),
        ("zero_updates", pa.int64()),
        pa.field("counts", _COUNTS, nullable=False),
        pa.field("moved", _COUNTS, nullable=False),
    ]
)


def updates_table(rows: Sequence[UpdateRow]) -> pa.Table:
    """Return the rows as an Arrow table of UPDATES_SCHEMA."""

    def column(field: pa.Field) -> pa.Array:
        values = [getattr(row, field.name) for row in rows]
        if field.type != _COUNTS:
            return pa.array(values, field.type, from_pandas=False)
        stacked = np.concatenate([np.zeros(0, np.uint32), *values])
        return pa.FixedSizeListArray.from_arrays(pa.array(stacked), type=_COUNTS)

    return pa.Table.from_arrays([column(field) for field in UPDATES_SCHEMA], schema=UPDATES_SCHEMA)
