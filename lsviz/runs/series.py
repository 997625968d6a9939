"""Two tables that tell of every step, so that any policy can be run over it again without training.

``amax``: the largest magnitude of every gradient. ``outcomes``: what each try of a step told the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lsviz.runs.schema import Kind


class TensorName(NamedTuple):
    """Which gradient a row of the amax table is of.

    Attributes:
        tensor: Its name.
        kind: Activation or weight.
        dtype: The type it had in backward, as ``float16``.
        half: Whether it went through a half format all the same, as far as one can see: all its values are
            that format's, or (of a weight) it helped to make an output in half. Of FP32 alone it is False.
    """

    tensor: str
    kind: Kind
    dtype: str
    half: bool


@dataclass(frozen=True, slots=True)
class AmaxRows:
    """One backward pass in the amax table, a row a gradient.

    Attributes:
        step: Its number.
        reference: Whether this was FP32 with S = 1: so where a step was skipped, whose own gradients
            do not tell how large they would have been.
        names: In backward order: an activation as its gradient came, or as it came with Inf or NaN, where
            its module was called more than once; a weight just after the last of its modules' outputs.
        loss_scale: S of each gradient, shape (rows,).
        amax: Largest finite magnitude of each, scaled, shape (rows,).
        inf: Number of infinities in each, shape (rows,).
        nan: Number of NaN in each, shape (rows,).
    """

    step: int
    reference: bool
    names: tuple[TensorName, ...]
    loss_scale: npt.NDArray[np.float64]
    amax: npt.NDArray[np.float64]
    inf: npt.NDArray[np.int64]
    nan: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LayerOutcome:
    """What became of one layer, under a policy that has a scale for each.

    Attributes:
        layer: Its name.
        scale: Its S.
        finite: Whether it stayed finite; None where another layer had spoilt what it received.
    """

    layer: str
    scale: float
    finite: bool | None


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One try of a step in the outcomes table: what the policy was told, and whether a smaller S would help.

    Attributes:
        step: Its number. A retried step has several rows, in order.
        loss_scale: S that the loss was multiplied by.
        finite: Whether all scaled weight gradients were finite; None where nothing tells.
        amax: Largest unscaled weight gradient, inf where one was not finite; None where the policy did not
            ask.
        large_value: Magnitude from which the policy counts; None where it does not ask.
        large_share: Share of scaled weight gradients at or above it.
        layers: Each layer's, under a policy that has a scale for each.
        loss_layer: The layer whose S the loss was multiplied by, under such a policy.
        curable: Of a try with Inf or NaN: whether the same batch is finite at S = 1; False too where the
            loss is not, which knows nothing of S. None elsewhere, and where nobody looked.
    """

    step: int
    loss_scale: float
    finite: bool | None
    amax: float | None = None
    large_value: float | None = None
    large_share: float | None = None
    layers: tuple[LayerOutcome, ...] | None = None
    loss_layer: str | None = None
    curable: bool | None = None


_NAME: Final = pa.dictionary(pa.int32(), pa.string())

AMAX_SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("tensor", _NAME),
        ("kind", _NAME),
        ("dtype", _NAME),
        ("half", pa.bool_()),
        ("reference", pa.bool_()),
        ("loss_scale", pa.float64()),
        ("amax", pa.float64()),
        ("inf", pa.int64()),
        ("nan", pa.int64()),
    ]
)

OUTCOMES_SCHEMA: Final = pa.schema(
    [
        ("step", pa.int64()),
        ("loss_scale", pa.float64()),
        ("finite", pa.bool_()),
        ("amax", pa.float64()),
        ("large_value", pa.float64()),
        ("large_share", pa.float64()),
        (
            "layers",
            pa.list_(
                pa.struct([("layer", pa.string()), ("scale", pa.float64()), ("finite", pa.bool_())]),
            ),
        ),
        ("loss_layer", pa.string()),
        ("curable", pa.bool_()),
    ]
)


def amax_table(passes: Sequence[AmaxRows]) -> pa.Table:
    """Return the rows as an Arrow table of AMAX_SCHEMA."""
    if not passes:
        return AMAX_SCHEMA.empty_table()
    lengths = [len(rows.names) for rows in passes]
    numbers: dict[int, npt.NDArray[np.int32]] = {}  # by identity: most passes share theirs
    names: dict[TensorName, int] = {}
    for rows in passes:
        if id(rows.names) not in numbers:
            places = [names.setdefault(name, len(names)) for name in rows.names]
            numbers[id(rows.names)] = np.array(places, np.int32)
    place = np.concatenate([numbers[id(rows.names)] for rows in passes])
    columns: dict[str, Any] = {
        "step": np.repeat([rows.step for rows in passes], lengths),
        "tensor": _dictionary(place, [name.tensor for name in names]),
        "kind": _dictionary(place, [name.kind for name in names]),
        "dtype": _dictionary(place, [name.dtype for name in names]),
        "half": np.array([name.half for name in names], bool)[place],
        "reference": np.repeat([rows.reference for rows in passes], lengths),
        "loss_scale": np.concatenate([rows.loss_scale for rows in passes]),
        "amax": np.concatenate([rows.amax for rows in passes]),
        "inf": np.concatenate([rows.inf for rows in passes]),
        "nan": np.concatenate([rows.nan for rows in passes]),
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in zip(AMAX_SCHEMA, columns.values(), strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=AMAX_SCHEMA)


def _dictionary(place: npt.NDArray[np.int32], words: Sequence[str]) -> pa.DictionaryArray:
    """Return a column of words, each held once."""
    unique = list(dict.fromkeys(words))
    number = np.array([unique.index(word) for word in words], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(number[place]), pa.array(unique, pa.string()))


def outcomes_table(rows: Sequence[OutcomeRow]) -> pa.Table:
    """Return the rows as an Arrow table of OUTCOMES_SCHEMA."""

    def value(row: OutcomeRow, name: str) -> Any:
        found = getattr(row, name)
        if name != "layers" or found is None:
            return found
        return [{"layer": o.layer, "scale": o.scale, "finite": o.finite} for o in found]

    arrays = [
        pa.array([value(row, field.name) for row in rows], field.type, from_pandas=False)
        for field in OUTCOMES_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=OUTCOMES_SCHEMA)
