"""Looking through the files of a run from elsewhere, before anything else reads them.

Nothing in them is executed or unpickled. What a file declares is bounded before it is decoded, and all of it
is decoded once, a piece at a time, so that what is let in reads without a fault.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from lsviz.errors import UserError
from lsviz.exponents import BINS
from lsviz.runs.config import MAX_STEPS
from lsviz.runs.labels import LABELS, Labels
from lsviz.runs.pagewalk import Column, walk_pages
from lsviz.runs.reader import load_document
from lsviz.runs.schema import (
    BY_STEP,
    EXPONENTS_SCHEMA,
    KINDS,
    PAST_COLUMNS,
    STEPS_SCHEMA,
    RunRecord,
    RunStatus,
)
from lsviz.runs.series import AMAX_SCHEMA, OUTCOMES_SCHEMA
from lsviz.runs.tablefile import READ_ERRORS, TableFile, open_table
from lsviz.runs.updatecheck import RATIO_BINS, UPDATES_SCHEMA

MAX_ROWS: Final = 50_000_000
"""Of one table."""
MAX_LAYERS: Final = 10_000
"""In one row of outcomes."""
MAX_WORD: Final = 1000
"""Bytes of a tensor's or a layer's name."""
MAX_FOOTER: Final = 1 << 26
MAX_PICTURE_SIDE: Final = 4096
FREE_BYTES: Final = 1 << 28
MAX_RATIO: Final = 500
"""A file may unfold to FREE_BYTES, or to so many times its size: more makes it a bomb."""

SCHEMAS: Final[dict[str, pa.Schema]] = {
    "steps": STEPS_SCHEMA,
    "exponents": EXPONENTS_SCHEMA,
    "amax": AMAX_SCHEMA,
    "outcomes": OUTCOMES_SCHEMA,
    "updates": UPDATES_SCHEMA,
}
_PART: Final = re.compile(rf"({'|'.join(SCHEMAS)})(-[0-9]{{6}})?\.parquet")
DOCUMENTS: Final[dict[str, type[BaseModel]]] = {
    "run.json": RunRecord,
    "status.json": RunStatus,
    LABELS: Labels,
}
_NEEDED: Final = frozenset(
    [
        *("step", "tensor", "kind", "dtype", "half", "reference", "skipped", "loss_scale"),
        *("numel", "zero", "inf", "nan", "counts", "moved"),
    ]
)
"""Columns without empty cells, in whichever table."""
_FIXED: Final = {"counts": BINS, "moved": RATIO_BINS, "ones": BINS, **dict.fromkeys(PAST_COLUMNS, BINS)}
_CELLS_AT_ONCE: Final = 1 << 22
_TEXT_AT_ONCE: Final = 1 << 26


class InspectionError(UserError):
    """A file is no file of a run, or declares too much; the message says why."""


def table_of(name: str) -> str | None:
    """Return the table whose rows a file of that name holds; None where it is no table's."""
    part = _PART.fullmatch(name)
    return "exponents" if name == BY_STEP else part and part[1]


def inspect_folder(folder: Path) -> None:
    """Look through all files of a folder: the small ones first, which say what is wrong soonest.

    Raises:
        UserError: One is not what its name says, or declares too much.
    """
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == ".parquet", path.name)):
        _inspect_file(path)


def _inspect_file(path: Path) -> None:
    table = table_of(path.name)
    if path.name in DOCUMENTS:
        _inspect_document(path)
    elif table is not None:
        inspect_table(path, SCHEMAS[table])
    elif path.suffix == ".png":
        head = path.read_bytes()[:24]
        sides = [int.from_bytes(head[at : at + 4]) for at in (16, 20)]
        if not head.startswith(b"\x89PNG\r\n\x1a\n") or not all(0 < s <= MAX_PICTURE_SIDE for s in sides):
            raise InspectionError(f"{path.name} is no PNG picture of a usual size")


def _inspect_document(path: Path) -> None:
    def refuse(constant: str) -> Any:
        raise InspectionError(f"{path.name} holds {constant}, which JSON does not have")

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number[:20])

    try:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse, parse_float=finite)
    except InspectionError:
        raise
    except (ValueError, RecursionError):
        raise InspectionError(f"{path.name} is no JSON") from None
    load_document(path, DOCUMENTS[path.name])


def inspect_table(path: Path, schema: pa.Schema) -> None:
    """Look through a Parquet file: what it declares, then all of its rows.

    Raises:
        InspectionError: It is no table of that schema, or declares too much.
    """
    try:
        _bound_footer(path)
        with open_table(path) as file:
            _inspect_shape(path, file, schema)
            columns = walk_pages(path, file.metadata)
            _inspect_size(path, file.metadata.num_rows, columns)
            longest = max(1, *(column.dictionary for column in columns))
            cells = sum(_FIXED.get(name, 1) for name in schema.names)
            at_once = max(1, min(_CELLS_AT_ONCE // cells, _TEXT_AT_ONCE // longest))
            _inspect_rows(path, file, schema, at_once)
    except InspectionError:
        raise
    except READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InspectionError(f"{path.name} is no table of a run ({reason})") from None


def _bound_footer(path: Path) -> None:
    with path.open("rb") as file:
        if file.seek(0, 2) < 12:
            raise InspectionError(f"{path.name} is no table of a run (it is cut short)")
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
    if length > MAX_FOOTER:
        raise InspectionError(f"{path.name} is no table of a run (its footer has {length:,} bytes)")


def _inspect_shape(path: Path, file: TableFile, schema: pa.Schema) -> None:
    found, rows = file.schema, file.metadata.num_rows
    if sorted(found.names) != sorted(schema.names):
        raise InspectionError(f"{path.name} has other columns than a run's")
    found.empty_table().select(schema.names).cast(schema)  # as reading does
    if not 0 <= rows <= MAX_ROWS:
        raise InspectionError(f"{path.name} has {rows:,} rows, more than {MAX_ROWS:,}")
    if sum(file.metadata.row_group(i).num_rows for i in file.groups) != rows:
        raise InspectionError(f"{path.name} is no table of a run (its row groups have other rows than it)")
    names = file.group_names
    if names is not None and len(names) != len(file.groups):
        raise InspectionError(f"{path.name} is no table of a run (it names other row groups than it has)")
    _ = file.tensors, file.groups_with([0])


def _inspect_size(path: Path, rows: int, columns: list[Column]) -> None:
    for column in columns:
        name, _, inner = column.path.partition(".")
        most = rows * (_FIXED.get(name, MAX_LAYERS) if inner else 1)
        if column.values > most:
            raise InspectionError(
                f"{path.name} holds {column.values:,} values of {name} in {rows:,} rows, more than {most:,}"
            )
    size = path.stat().st_size
    unfolded = 8 * sum(column.values for column in columns)
    if unfolded > max(FREE_BYTES, MAX_RATIO * size):
        raise InspectionError(f"{path.name} unfolds from {size:,} bytes to {unfolded:,}")


def _inspect_rows(path: Path, file: TableFile, schema: pa.Schema, at_once: int) -> None:
    names = file.group_names
    for group in file.groups:
        for table in file.pieces(group, schema.names, at_once):
            table.validate(full=True)
            table = table.cast(schema)
            for name in schema.names:
                _inspect_column(path, name, table[name])
            if names is not None and len(table):
                here = {tuple(pair.values()) for pair in _pairs(table)}
                if here != {names[group]}:
                    raise InspectionError(f"{path.name} is no table of a run (row group {group} is another)")


def _pairs(table: pa.Table) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = table.group_by(["tensor", "kind"]).aggregate([]).to_pylist()
    return pairs


def _inspect_column(path: Path, name: str, column: pa.ChunkedArray) -> None:
    def refuse(reason: str) -> InspectionError:
        return InspectionError(f"{path.name} is no table of a run ({name} {reason})")

    if name in _NEEDED and column.null_count:
        raise refuse("has empty cells")
    if name == "step" and len(column):
        ends = pc.min_max(column).as_py()
        if ends["min"] < 0 or ends["max"] >= MAX_STEPS:
            raise refuse(f"is not from 0 to {MAX_STEPS - 1:,}")
    if name in ("ones", *PAST_COLUMNS):
        lengths = pc.min_max(pc.list_value_length(column)).as_py()
        if lengths["min"] not in (None, BINS) or lengths["max"] not in (None, BINS):
            raise refuse(f"has other than {BINS} counts")
    for words in _words(column):
        longest = pc.max(pc.binary_length(words)).as_py()
        if longest is not None and longest > MAX_WORD:
            raise refuse(f"has a name of {longest:,} bytes")
        if name == "kind" and not set(words.to_pylist()) <= set(KINDS):
            raise refuse("is neither " + " nor ".join(KINDS))


def _words(column: pa.ChunkedArray) -> list[pa.Array]:
    """Return the texts of a column, those inside lists and dictionaries too."""
    found = []
    for array in column.chunks:
        if isinstance(array, pa.ListArray) and isinstance(array.values, pa.StructArray):
            array = array.flatten().field("layer")
        if isinstance(array, pa.DictionaryArray):
            array = array.dictionary
        if pa.types.is_string(array.type):
            found.append(array)
    return found
