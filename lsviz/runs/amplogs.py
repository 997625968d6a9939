"""Taking in what loops with torch.amp log as JSON: a list of objects, or an object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import IO, Any, Final

from lsviz.runs.config import MAX_STEPS
from lsviz.runs.foreignlog import MAX_JSON_BYTES, MAX_TAG, MAX_TAGS, ForeignLog, ForeignLogError
from lsviz.runs.lognames import COLUMNS, choose_columns

STEP_KEYS: Final = ("step", "global_step", "iteration", "iter")
MAX_LINE: Final = 1_000_000
_RIGHT: Final = 'one object a step, as {"step": 3, "loss": 0.4, "scale": 65536, "found_inf": false}'
_SURE_ABOUT: Final = ("loss", "loss_scale")


def read_json_log(file: IO[bytes]) -> ForeignLog:
    """Return what a JSON log tells.

    Steps may be missing; one that stands twice has what was last said of it. Numbers may be NaN or Infinity
    (as Python writes them) but for S. Other keys are left out.

    Args:
        file: The file, at its beginning.

    Raises:
        ForeignLogError: It is no such log; the message names the line or the object.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if size > MAX_JSON_BYTES:
        raise ForeignLogError(f"it has {size:,} bytes, more than {MAX_JSON_BYTES:,}; log fewer steps")
    rows = list(_objects(file))
    if len(rows) > MAX_STEPS:
        raise ForeignLogError(f"it holds {len(rows):,} objects, more than {MAX_STEPS:,}; log fewer steps")
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    if len(keys) > MAX_TAGS:
        raise ForeignLogError(f"its objects have {len(keys):,} keys, more than {MAX_TAGS:,}")
    step_key = next((key for key in STEP_KEYS if key in keys), None)
    chosen = choose_columns(key for key in keys if len(key) <= MAX_TAG)
    if step_key is None or not any(column in chosen for column in (*_SURE_ABOUT, "skipped")):
        names = [f"step, and {', '.join(COLUMNS['loss'][:2])} (loss) or loss_scale, scale, found_inf"]
        raise ForeignLogError(f"no keys of its objects are {names[0]}; they have {_listed(keys)}")
    log = ForeignLog("a JSON log")
    log.columns = {column: {} for column in chosen}
    for where, row in rows:
        _take(log, where, row, step_key, chosen)
    log.notes.append("Taken: " + ", ".join(f"{column} from {key}" for column, key in chosen.items()) + ".")
    return log


def _take(log: ForeignLog, where: str, row: dict[str, Any], step_key: str, chosen: dict[str, str]) -> None:
    told = {column: row[key] for column, key in chosen.items() if row.get(key) is not None}
    if not told:
        return  # an object of other things, as of an evaluation
    step = row.get(step_key)
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < MAX_STEPS:
        raise ForeignLogError(
            f"{where}: {step_key} must be a whole number from 0 to {MAX_STEPS - 1:,}, got {_shown(step)}"
        )
    for column, value in told.items():
        log.columns[column][step] = _number(value, column, chosen[column], where)


def _number(value: Any, column: str, key: str, where: str) -> float:
    if isinstance(value, bool):
        value = float(value) if column == "skipped" else None
    if not isinstance(value, int | float):
        kind = "true or false" if column == "skipped" else "a number"
        raise ForeignLogError(f"{where}: {key} must be {kind}, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if column == "loss_scale" and not (math.isfinite(number) and number > 0):
        raise ForeignLogError(f"{where}: {key} is S: it must be a positive number, got {_shown(value)}")
    if column == "skipped" and "inf" not in key and number not in (0.0, 1.0):
        raise ForeignLogError(
            f"{where}: {key} must be 0 or 1 (false or true) of this step alone, got {_shown(value)}"
        )
    return number


def _objects(file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object with what an error calls it."""
    head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    file.seek(0)
    if head == b"[":
        try:
            whole = json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ForeignLogError(f"it is no JSON ({_reason(error)}); a list of objects is needed") from None
        for number, row in enumerate(whole, 1):
            yield _checked(row, f"object {number:,}")
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
        yield _checked(row, f"line {number:,}")


def _checked(row: Any, where: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, dict):
        raise ForeignLogError(f"{where} is no object; {_RIGHT} is needed")
    return where, row


def _reason(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]


def _listed(keys: list[str]) -> str:
    return ", ".join(_shown(key) for key in keys[:8]) + (", ..." if len(keys) > 8 else "") or "none"


def _shown(value: Any) -> str:
    return "nothing" if value is None else ascii(value)[:40]
