"""Taking in what loops with torch.amp log as JSON: a list of objects, or an object a line."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from lsviz.runs.config import MAX_STEPS
from lsviz.runs.foreignlog import (
    MAX_JSON_BYTES,
    MAX_LINE,
    MAX_LIST_BYTES,
    MAX_TAG,
    ForeignLog,
    ForeignLogError,
    is_scale,
)
from lsviz.runs.lognames import choose_columns, column_of

STEP_KEYS: Final = ("step", "global_step", "iteration", "iter")
_RIGHT: Final = 'one object a step, as {"step": 3, "loss": 0.4, "scale": 65536, "found_inf": false}'
_NEEDED: Final = frozenset(["loss", "loss_scale", "skipped"])
_KEYS_TOLD: Final = 8


@dataclass(frozen=True, slots=True)
class _Row:
    """One object: what errors call it, and of its keys those that may be of use."""

    where: str
    number: int
    told: dict[str, Any]

    def error(self, reason: str) -> ForeignLogError:
        return ForeignLogError(f"{self.where} {self.number:,}{reason}")


def read_json_log(file: IO[bytes]) -> ForeignLog:
    """Return what a JSON log tells.

    Steps may be missing; one that stands twice has what was last said of it. Numbers may be NaN or Infinity
    (as Python writes them) but for S. Other keys are left out.

    Args:
        file: The file, at its beginning.

    Raises:
        ForeignLogError: It is no such log; the message names the line or the object.
    """
    rows: list[_Row] = []
    others: dict[str, None] = {}
    for row in _rows(file, others):
        rows.append(row)
        if len(rows) > MAX_STEPS:
            raise ForeignLogError(f"it holds more than {MAX_STEPS:,} objects; log fewer steps")
    keys = list(dict.fromkeys(key for row in rows for key in row.told))
    step_key = next((key for key in STEP_KEYS if key in keys), None)
    chosen = choose_columns(keys)
    if step_key is None or _NEEDED.isdisjoint(chosen):
        found = [_shown(key) for key in [*keys, *others]] or ["none"]
        told = ", ".join(found[:_KEYS_TOLD]) + (", ..." if len(found) > _KEYS_TOLD else "")
        raise ForeignLogError(f"its objects need step, and loss, loss_scale or found_inf; their keys: {told}")
    log = ForeignLog("a JSON log")
    log.columns = {column: {} for column in chosen}
    for row in rows:
        _take(log, row, step_key, chosen)
    log.notes.append("Taken: " + ", ".join(f"{column} from {key}" for column, key in chosen.items()) + ".")
    return log


def _take(log: ForeignLog, row: _Row, step_key: str, chosen: dict[str, str]) -> None:
    told = {column: row.told[key] for column, key in chosen.items() if key in row.told}
    if not told:
        return  # an object of other things, as of an evaluation
    step = row.told.get(step_key)
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < MAX_STEPS:
        last = f"{MAX_STEPS - 1:,}"
        raise row.error(f": {step_key} must be a whole number from 0 to {last}, got {_shown(step)}")
    for column, value in told.items():
        log.columns[column][step] = _number(value, column, chosen[column], row)


def _number(value: Any, column: str, key: str, row: _Row) -> float:
    if isinstance(value, bool):
        value = float(value) if column == "skipped" else str(value)
    if not isinstance(value, int | float):
        kind = "true or false" if column == "skipped" else "a number"
        raise row.error(f": {key} must be {kind}, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if column == "loss_scale" and not is_scale(number):
        raise row.error(f": {key} is S: it must be a positive number of FP32, got {_shown(value)}")
    if column == "skipped" and "inf" not in key and number not in (0.0, 1.0):
        raise row.error(f": {key} must be 0 or 1 (false or true) of this step alone, got {_shown(value)}")
    return number


def _rows(file: IO[bytes], others: dict[str, None]) -> Iterator[_Row]:
    """Yield each object; the first keys that are of no use are added to the others."""
    size = file.seek(0, 2)
    file.seek(0)
    is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    most = MAX_LIST_BYTES if is_list else MAX_JSON_BYTES
    if size > most:
        way = "write an object a line, which may have more" if is_list else "log fewer steps"
        raise ForeignLogError(f"it has {size:,} bytes, more than {most:,}; {way}")
    file.seek(0)
    if is_list:
        try:
            whole = json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ForeignLogError(f"it is no JSON ({_reason(error)}); a list of objects is needed") from None
        for number, row in enumerate(whole, 1):
            yield _row("object", number, row, others)
        return
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
        if len(line) > MAX_LINE:
            raise ForeignLogError(f"line {number:,} is longer than {MAX_LINE:,} bytes; {_RIGHT} is needed")
        if not line.strip(b"\xef\xbb\xbf \t\r\n"):
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ForeignLogError(
                f"line {number:,} is no JSON ({_reason(error)}); {_RIGHT} is needed"
            ) from None
        yield _row("line", number, row, others)


def _row(where: str, number: int, row: Any, others: dict[str, None]) -> _Row:
    if not isinstance(row, dict):
        raise ForeignLogError(f"{where} {number:,} is no object; {_RIGHT} is needed")
    told: dict[str, Any] = {}
    for key, value in row.items():
        if value is None:
            continue
        if key in STEP_KEYS or _is_column(key):
            told[key] = value if isinstance(value, int | float) else _short(value)
        elif len(others) <= _KEYS_TOLD:
            others[key] = None
    return _Row(where, number, told)


@functools.lru_cache(maxsize=1000)
def _is_column(key: str) -> bool:
    return len(key) <= MAX_TAG and column_of(key) is not None


def _reason(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]


def _short(value: Any) -> str:
    """Return what an error shows of a value that is no number: nothing more of it is kept."""
    return (value if isinstance(value, str) else ascii(value))[:40]


def _shown(value: Any) -> str:
    return "nothing" if value is None else ascii(value)[:40]
