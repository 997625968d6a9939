"""Taking in TensorBoard's event files: histograms of gradients, and numbers whose tags tell what they are.

A file comes from a stranger: tensors are read only where their shape is what a number or a histogram has.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any, Final

import numpy as np

from lsviz.runs.buckets import exponents_of
from lsviz.runs.config import MAX_STEPS
from lsviz.runs.eventfiles import MADE_BY, require_tensorboard
from lsviz.runs.eventrecords import EventReader
from lsviz.runs.foreignlog import (
    MAX_BUCKETS,
    MAX_HISTOGRAMS,
    MAX_RECORD,
    MAX_TAG,
    MAX_TAGS,
    MAX_VALUES,
    ForeignLog,
    ForeignLogError,
    LoggedGradient,
    is_scale,
)
from lsviz.runs.lognames import choose_columns, column_of, gradient_of

_TOLD: Final = 6
"""Tags that an error names."""


@dataclass(slots=True)
class _Tally:
    """What was seen on the way through a log's events."""

    numbers: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    gradients: dict[tuple[int, str], LoggedGradient] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    other: set[str] = field(default_factory=set)
    wide: set[str] = field(default_factory=set)
    values: int = 0


def read_event_log(files: Iterable[IO[bytes]]) -> ForeignLog:
    """Return what event files of one folder tell together; of a step that stands twice, what came last.

    Args:
        files: In the order in which they were written.

    Raises:
        MissingPackageError: tensorboard is not installed.
        ForeignLogError: One is no event file, is too large, or nothing in them is of use.
    """
    require_tensorboard()
    tally, reader = _Tally(), EventReader()
    for file in files:
        for event in reader.events(file):
            _take_event(event, tally)
    return _log_of(tally, reader)


def _take_event(event: Any, tally: _Tally) -> None:
    if event.source_metadata.writer == MADE_BY:
        raise ForeignLogError(
            "lsviz wrote it, and its histograms are of exponents; import the run's zip instead, which "
            "holds all (lsviz export RUN -o run.zip)"
        )
    for value in event.summary.value:
        tally.values += 1
        if tally.values > MAX_VALUES:
            raise ForeignLogError(f"it holds more than {MAX_VALUES:,} values; log less often, or split it")
        if not 0 <= event.step < MAX_STEPS:
            raise ForeignLogError(f"step {event.step:,} is not from 0 to {MAX_STEPS - 1:,}")
        tag = value.tag
        if len(tag) > MAX_TAG or (tag not in tally.tags and len(tally.tags) >= MAX_TAGS):
            continue
        tally.tags[tag] = None
        _take_value(event, value, tag, tally)


def _take_value(event: Any, value: Any, tag: str, tally: _Tally) -> None:
    what = value.WhichOneof("value")
    if what == "tensor" and value.HasField("metadata"):
        tally.plugins[tag] = value.metadata.plugin_data.plugin_name
    plugin = tally.plugins.get(tag, "")
    if what == "simple_value" or (what == "tensor" and plugin == "scalars"):
        number = value.simple_value if what == "simple_value" else _scalar(value.tensor)
        if number is not None and column_of(tag) is not None:
            tally.numbers[tag][event.step] = number
            _note_time(event, tally)
    elif what == "histo" or (what == "tensor" and plugin == "histograms"):
        named = gradient_of(tag)
        if named is None:
            tally.other.add(tag)
            return
        try:
            found = _histogram(value) if what == "histo" else _histogram_of_tensor(value.tensor)
        except ForeignLogError as error:
            raise ForeignLogError(
                f"the histogram {ascii(tag)[:80]} at step {event.step:,}: {error}"
            ) from None
        if found is None:
            tally.wide.add(tag)
            return
        tally.gradients[event.step, tag] = LoggedGradient(event.step, *named, found)
        if len(tally.gradients) > MAX_HISTOGRAMS:
            raise ForeignLogError(
                f"it holds more than {MAX_HISTOGRAMS:,} histograms of gradients; log less often, or split it"
            )
        _note_time(event, tally)


def _note_time(event: Any, tally: _Tally) -> None:
    if math.isfinite(event.wall_time):
        tally.times.setdefault(event.step, event.wall_time)


def _histogram(value: Any) -> Any:
    """Return torch's kind of histogram by exponent: buckets are told by where they end."""
    histo = value.histo
    limits, counts = np.array(histo.bucket_limit, np.float64), np.array(histo.bucket, np.float64)
    if not len(limits):
        raise ForeignLogError("it has no buckets")
    first = min(histo.min, limits[0]) if math.isfinite(histo.min) else limits[0]
    return exponents_of(
        np.concatenate([[first], limits]), counts, low=histo.min, high=histo.max, number=histo.num
    )


def _histogram_of_tensor(tensor: Any) -> Any:
    """Return TensorBoard 2's kind: rows of left end, right end and count."""
    from tensorboard.util.tensor_util import make_ndarray

    shape = [d.size for d in tensor.tensor_shape.dim]
    if len(shape) != 2 or shape[1] != 3 or not 0 <= shape[0] <= MAX_BUCKETS or tensor.dtype not in (1, 2):
        raise ForeignLogError("its tensor is no table of left ends, right ends and counts")
    if shape[0] == 0:
        return exponents_of(np.zeros(1), np.zeros(0), low=0.0, high=0.0, number=0)
    try:
        rows = make_ndarray(tensor).astype(np.float64).reshape(-1, 3)
    except ValueError:
        raise ForeignLogError("its tensor is not as large as it says") from None
    edges = np.concatenate([rows[:1, 0], rows[:, 1]])
    return exponents_of(edges, rows[:, 2], low=edges[0], high=edges[-1], number=float(rows[:, 2].sum()))


def _scalar(tensor: Any) -> float | None:
    """Return the number that a tensor holds; None where it is none."""
    from tensorboard.util.tensor_util import make_ndarray

    if tensor.dtype not in (1, 2) or math.prod(d.size for d in tensor.tensor_shape.dim) != 1:
        return None
    try:
        return float(make_ndarray(tensor).reshape(-1)[0])
    except (ValueError, IndexError):
        return None


def _log_of(tally: _Tally, reader: EventReader) -> ForeignLog:
    chosen = choose_columns(tally.numbers)
    log = ForeignLog("a TensorBoard event file")
    log.columns = {column: tally.numbers[tag] for column, tag in chosen.items()}
    log.gradients = list(tally.gradients.values())
    log.times = tally.times
    if not log.gradients and not {"loss", "loss_scale"} & log.columns.keys():
        raise ForeignLogError(_reason(tally))
    if not all(map(is_scale, log.columns.get("loss_scale", {}).values())):
        raise ForeignLogError(
            f"{ascii(chosen['loss_scale'])[:80]} is S: it must be a positive number of FP32"
        )
    if chosen:
        log.notes.append(
            "Taken: " + ", ".join(f"{column} from {tag}" for column, tag in chosen.items()) + "."
        )
    if tally.wide:
        log.notes.append(f"{len(tally.wide):,} histograms of gradients {_WIDE}: left out.")
    if tally.other:
        log.notes.append(f"{len(tally.other):,} histograms do not say grad in their tags: left out.")
    if reader.large:
        log.notes.append(f"{reader.large:,} records of more than {MAX_RECORD:,} bytes are left out.")
    if reader.cut:
        log.notes.append("The file ends in a damaged or unfinished record: what came before it is here.")
    return log


_WIDE: Final = "have buckets wider than a binade, which tell no exponents"


def _reason(tally: _Tally) -> str:
    if tally.wide:
        return f"its histograms {_WIDE}; torch's add_histogram with its default bins has finer ones"
    if not tally.tags:
        return "it holds no values; is it damaged, or was it only begun?"
    tags = [ascii(tag)[:40] for tag in tally.tags]
    told = ", ".join(tags[:_TOLD]) + (f" and {len(tags) - _TOLD:,} more" if len(tags) > _TOLD else "")
    return (
        "no tag of it says loss or loss_scale, and no histogram's says grad, as grad/layer1.weight; "
        f"it has {told}"
    )
