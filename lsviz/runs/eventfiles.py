"""A run as a TensorBoard event file, whose histograms are of exponents (`lsviz.runs.outgoing`)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsviz.errors import UserError
from lsviz.runs.files import writing_whole
from lsviz.runs.outgoing import ABOUT, Bars, Moment, moments
from lsviz.runs.reader import Run
from lsviz.runs.showing import file_stem

MADE_BY = "lsviz"
"""Who wrote an event file, as its first event says."""


class MissingPackageError(UserError):
    """What was asked for needs a package that is not installed."""


def require_tensorboard() -> None:
    """Load the package that reads and writes event files.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "TensorBoard's event files need the package tensorboard: pip install 'lsviz[tensorboard]'"
        ) from None


def save_events(run: Run, flushed: pd.DataFrame, folder: Path) -> Path:
    """Write a run as an event file into a folder of its own, which is TensorBoard's name of it.

    The same run gives the same file; it appears as a whole.

    Args:
        run: The run.
        flushed: As `lsviz.runs.outgoing.moments` takes it.
        folder: What ``tensorboard --logdir`` is given; it is made.

    Returns:
        The file.

    Raises:
        MissingPackageError: tensorboard is not installed.
        RunFolderError: The folder can't be written.
        RunError: The run can't be read.
    """
    require_tensorboard()
    from tensorboard.summary.writer.record_writer import RecordWriter

    began = _seconds(run.record.created)
    path = folder / file_stem(run.run_id) / f"events.out.tfevents.{int(began):010d}.lsviz"
    with writing_whole(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            writer = RecordWriter(file)
            writer.write(_first_event(began))
            writer.write(_about_event(run, began))
            told: set[str] = set()
            for moment in moments(run, flushed):
                writer.write(_event(moment, began, told))
    return path


def _seconds(created: str) -> float:
    """Return when a run was created, in seconds since 1970; 0 where its run.json holds no time."""
    try:
        return max(0.0, datetime.fromisoformat(created).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0.0


def _first_event(began: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata

    made: bytes = Event(
        wall_time=began, file_version="brain.Event:2", source_metadata=SourceMetadata(writer=MADE_BY)
    ).SerializeToString()
    return made


def _about_event(run: Run, began: float) -> bytes:
    """Return a text of the run: its settings, and how to read the histograms."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    record = run.record
    settings = {**record.config.model_dump(), "device_name": record.device_name, "engine": record.engine}
    lines = [f"| {name} | `{value}` |" for name, value in settings.items() if value not in (None, "")]
    text = "\n".join([ABOUT, "", "| setting | value |", "|---|---|", *lines])
    value = Summary.Value(
        tag="about",
        metadata=create_summary_metadata("about", None),
        tensor=make_tensor_proto(np.array([text.encode()], dtype=object)),
    )
    made: bytes = Event(wall_time=began, step=0, summary=Summary(value=[value])).SerializeToString()
    return made


def _event(moment: Moment, began: float, told: set[str]) -> bytes:
    """Return one step as a record.

    Args:
        moment: The step.
        began: When the run began, in seconds since 1970.
        told: Tags whose metadata has been written, to which these are added: it is needed once.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=number) for tag, number in moment.numbers.items()]
    for bars in moment.bars:
        values.append(_histogram(bars, first=bars.tag not in told))
        told.add(bars.tag)
    made: bytes = Event(
        wall_time=began + moment.seconds, step=moment.step, summary=Summary(value=values)
    ).SerializeToString()
    return made


def _histogram(bars: Bars, *, first: bool) -> Any:
    """Return a histogram as TensorBoard 2 stores it: rows of left edge, right edge and count.

    The older message has counts that are shown in float32 and loses empty buckets at its ends.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.histogram.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    rows = np.stack([bars.edges[:-1], bars.edges[1:], bars.counts], axis=1).astype(np.float64)
    metadata = create_summary_metadata(None, ABOUT) if first else None
    return Summary.Value(tag=bars.tag, metadata=metadata, tensor=make_tensor_proto(rows))
