"""Reading a run folder, also while it is being written, also where part of it is broken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from lsviz.errors import UserError
from lsviz.runs.config import RunConfig
from lsviz.runs.labels import LABELS, Labels
from lsviz.runs.schema import (
    BY_STEP,
    EXPONENTS_SCHEMA,
    PICTURE,
    SCHEMA_VERSION,
    STEPS_SCHEMA,
    RunRecord,
    RunStatus,
)
from lsviz.runs.series import AMAX_SCHEMA, OUTCOMES_SCHEMA
from lsviz.runs.tablefile import READ_ERRORS, open_table, require_plain
from lsviz.runs.updatecheck import UPDATES_SCHEMA

MAX_JSON_BYTES: Final = 1_000_000
MAX_PICTURE_BYTES: Final = 1_000_000
SMALL_BYTES: Final = 1_000_000
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_RETRIES: Final = 5
_KEPT_DOCUMENTS: Final = 20_000

Document = TypeVar("Document", bound=BaseModel)
Filter = tuple[str, str, Any]


class RunError(UserError):
    """A folder is no readable run; the message says why."""


class Run:
    """One run folder. Cheap to make: tables are read when asked for, afresh each time.

    Attributes:
        path: The run's folder.
        problems: One line for each file that could not be read; what it held is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    @property
    def record(self) -> RunRecord:
        """The content of run.json, read again where the file has changed (as a run starts).

        Raises:
            RunError: It is missing, no JSON, or from a newer lsviz.
        """
        record = load_document(self.path / "run.json", RunRecord)
        if record.schema_version > SCHEMA_VERSION:
            raise RunError(
                f"{self.path.name} was written by a newer lsviz (schema {record.schema_version}); "
                f"this one reads up to {SCHEMA_VERSION}"
            )
        return record

    @property
    def run_id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """What the run was asked to do."""
        return self.record.config

    @property
    def status(self) -> RunStatus:
        """The content of status.json, read afresh."""
        return load_document(self.path / "status.json", RunStatus)

    @property
    def labels(self) -> Labels:
        """What a person says about the run; nothing where that can't be read (see ``problems``)."""
        path = self.path / LABELS
        if not path.exists():
            return Labels()
        try:
            return load_document(path, Labels)
        except RunError as error:
            self._tell(str(error).removeprefix(f"{self.path.name}: "))
            return Labels()

    @property
    def small(self) -> bool:
        """Whether the run has ended and all its exponents are so few that one may keep them in memory."""
        try:
            return (self.path / "exponents.parquet").stat().st_size <= SMALL_BYTES
        except OSError:
            return False

    def steps(self) -> pd.DataFrame:
        """Return the steps table so far, ordered by step (columns: see `StepRow`)."""
        frame: pd.DataFrame = self._table("steps", STEPS_SCHEMA).sort_by("step").to_pandas()
        return frame

    def exponents(
        self,
        *,
        tensor: str | None = None,
        kind: str | None = None,
        steps: Sequence[int] | None = None,
        reference: bool | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Return the exponents table so far, one row a tensor, kind, step and reference flag.

        Args:
            tensor: Only this tensor; on a finished run its row group alone is read.
            kind: Only ``activation_grad`` or ``weight_grad``.
            steps: Only these steps.
            reference: Only references, or only what was recorded.
            columns: Only these columns.

        Returns:
            Frame in recorded order of tensors, then by step; ``counts``, ``ones`` and ``past_*`` hold
            arrays of shape (128,).
        """
        filters: list[Filter] = [
            (key, op, value)
            for key, op, value in (
                ("tensor", "==", tensor),
                ("kind", "==", kind),
                ("step", "in", None if steps is None else [int(s) for s in steps]),
                ("reference", "==", reference),
            )
            if value is not None
        ]
        table = None
        if steps is not None and tensor is None:
            table = self._by_step(filters, columns)
        if table is None:
            table = self._table("exponents", EXPONENTS_SCHEMA, filters, columns)
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def amax(self) -> pd.DataFrame:
        """Return the largest magnitude of every gradient at every step so far.

        Returns:
            Columns step, tensor, kind, dtype (these three categorical), reference, loss_scale, amax (scaled),
            inf and nan; a step's rows in backward order. Empty of runs that recorded no gradients, and of
            those that are older than this table.
        """
        frame: pd.DataFrame = self._table("amax", AMAX_SCHEMA).unify_dictionaries().to_pandas()
        return frame

    def outcomes(self) -> pd.DataFrame:
        """Return what each try of each step told the policy so far (columns: see `OutcomeRow`)."""
        frame: pd.DataFrame = self._table("outcomes", OUTCOMES_SCHEMA).to_pandas()
        return frame

    def updates(self) -> pd.DataFrame:
        """Return every weight update beside float64 so far (columns: see `UpdateRow`).

        Empty of runs that did not check their update.
        """
        frame: pd.DataFrame = self._table("updates", UPDATES_SCHEMA).to_pandas()
        return frame

    def recorded_steps(self, *, reference: bool | None = None) -> list[int]:
        """Return the steps at which exponents were recorded, in order.

        Args:
            reference: Only those of references, or only those of what was recorded.
        """
        table = self._table("exponents", EXPONENTS_SCHEMA, columns=["step", "reference"])
        steps, of_reference = table["step"].to_numpy(), table["reference"].to_numpy()
        chosen = steps if reference is None else steps[of_reference == reference]
        found: list[int] = np.unique(chosen).tolist()
        return found

    def picture(self, name: str = PICTURE) -> bytes | None:
        """Return a PNG file of the run (`schema.PICTURE`, `schema.ORIGINAL`); None where there is none."""
        path = self.path / name
        try:
            data = path.read_bytes() if require_plain(path) <= MAX_PICTURE_BYTES else b""
        except OSError:
            return None
        return data if data.startswith(_PNG) else None

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of log.txt; empty where there is none."""
        return log_tail(self.path / "log.txt", lines)

    def _by_step(self, filters: list[Filter], columns: Sequence[str] | None) -> pa.Table | None:
        """Return an ended run's rows from the file by step; None where that can't be read."""
        file = self.path / BY_STEP
        if not (self.path / "exponents.parquet").exists():
            return None  # the parts are the run; this file is being written
        wanted = list(columns) if columns else EXPONENTS_SCHEMA.names
        needed = _with(wanted, "tensor", "kind", "reference", "step")
        steps = next(value for name, _, value in filters if name == "step")
        try:
            with open_table(file) as opened:
                if not opened.sealed:
                    return None  # its statistics may be anything, and with them what is found
                table = opened.read(needed, opened.groups_with(steps), _filter(filters))
                names = opened.tensors
                if opened.damaged or names is None:
                    return None
            places = {name: place for place, name in enumerate(names)}
            keys = zip(table["tensor"].to_pylist(), table["kind"].to_pylist(), strict=True)
            place = [places.get(key, len(places)) for key in keys]
            rows = np.lexsort((table["step"].to_numpy(), table["reference"].to_numpy(), place))
            schema = pa.schema([EXPONENTS_SCHEMA.field(name) for name in wanted])
            return table.take(pa.array(rows)).select(wanted).cast(schema)
        except READ_ERRORS:
            return None

    def _table(
        self,
        name: str,
        schema: pa.Schema,
        filters: list[Filter] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read the whole file where there is one, else all parts.

        A run that ends between listing and reading replaces its parts by the whole file: look again.
        """
        wanted = list(columns) if columns else schema.names
        for attempt in range(_RETRIES):
            whole = self.path / f"{name}.parquet"
            ended = whole.exists()
            files = [whole] if ended else sorted(self.path.glob(f"{name}-*.parquet"))
            try:
                found = [self._read(f, filters or [], wanted, schema) for f in files]
                tables = [table for table in found if table is not None]
            except FileNotFoundError:
                time.sleep(0.01 * attempt)
                continue
            if not ended and whole.exists():
                continue  # some parts may have been gone before they were listed
            empty = pa.schema([schema.field(c) for c in wanted]).empty_table()
            return pa.concat_tables(tables) if tables else empty
        raise RunError(f"{self.path.name}: {name} keeps changing; try again")

    def _read(
        self, file: Path, filters: list[Filter], columns: list[str], schema: pa.Schema
    ) -> pa.Table | None:
        """Return a file's rows; what is not as it was written is left out and told."""
        try:
            with open_table(file) as opened:
                names = opened.group_names
                groups = None if names is None else _chosen(names, filters)
                needed = _with(columns, *(name for name, _, _ in filters))
                table = opened.read(needed, groups, _filter(filters) if filters else None)
                table = table.select(columns).cast(pa.schema([schema.field(c) for c in columns]))
                damaged, all_groups = opened.damaged, len(opened.groups)
        except FileNotFoundError:
            raise
        except READ_ERRORS as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._tell(f"{file.name} can't be read and is left out ({reason})")
            return None
        if damaged and all_groups == 1:
            self._tell(f"{file.name} can't be read and is left out (its checksum (CRC) is another)")
        else:
            for group in damaged:
                of = f"row group {group}" if names is None else " ".join(names[group])
                self._tell(f"{file.name} is damaged: {of} is left out (its checksum (CRC) is another)")
        return table

    def _tell(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        RunError: There is no run in that folder, or its run.json can't be read.
    """
    run = Run(Path(path))
    if not run.path.is_dir():
        raise RunError(f"no run at {str(path)!r}; a run is a folder with a run.json")
    _ = run.record
    return run


def log_tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log; empty where there is none."""
    try:
        start = max(0, require_plain(path) - 64 * 1024)
        with path.open("rb") as file:
            file.seek(start)
            text = file.read(64 * 1024).decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _chosen(names: Sequence[tuple[str, str]], filters: list[Filter]) -> list[int]:
    """Return the row groups of the tensor and kind that are asked for."""
    asked = {name: value for name, op, value in filters if op == "=="}
    return [
        i
        for i, (tensor, kind) in enumerate(names)
        if asked.get("tensor", tensor) == tensor and asked.get("kind", kind) == kind
    ]


def _filter(filters: list[Filter]) -> Callable[[pa.Table], pa.Table]:
    expression = pq.filters_to_expression(filters)
    return lambda table: table.filter(expression)


def _with(columns: Sequence[str], *more: str) -> list[str]:
    return list(dict.fromkeys([*columns, *more]))


_documents: dict[tuple[Path, type[BaseModel]], tuple[tuple[int, ...], BaseModel]] = {}
"""Documents as last read, with what their files' state was: a list of many runs parses what has changed."""


def load_document(path: Path, model: type[Document]) -> Document:
    """Return the document in a JSON file of a run, from memory where the file is the same. Never change it.

    Raises:
        RunError: It is missing, too large, or no such document.
    """
    try:
        found = path.stat()
        state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        kept = _documents.get((path, model))
        if kept is not None and kept[0] == state and isinstance(kept[1], model):
            return kept[1]
        if require_plain(path) > MAX_JSON_BYTES:
            raise RunError(f"{path.parent.name}: {path.name} is too large to be one of ours")
        document = model.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path.parent.name}: {path.name} is missing") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise RunError(
            f"{path.parent.name}: {path.name} is broken ({where + ': ' if where else ''}{first['msg']})"
        ) from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"{path.parent.name}: {path.name} can't be read ({error})") from None
    if len(_documents) >= _KEPT_DOCUMENTS:
        _documents.clear()
    _documents[path, model] = (state, document)
    return document
