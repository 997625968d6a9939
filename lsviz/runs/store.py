"""Finding runs: a run id is looked up among listed folders, never joined to a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lsviz.runs.reader import Run, RunError, open_run


def default_root() -> Path:
    """Return where runs are kept: $LSVIZ_RUNS, or ``runs`` in the current folder."""
    return Path(os.environ.get("LSVIZ_RUNS") or "runs")


def samples_root() -> Path:
    """Return where the shipped runs lie: $LSVIZ_SAMPLES, or ``sample_runs`` in the package or beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "sample_runs"
    return Path(
        os.environ.get("LSVIZ_SAMPLES") or (inside if inside.is_dir() else package.parent / "sample_runs")
    )


def is_sample(run: Run) -> bool:
    """Return whether a run is a shipped one, which nothing may change."""
    return run.path.resolve().parent == samples_root().resolve()


@dataclass(frozen=True, slots=True)
class BrokenRun:
    """A folder that looks like a run but can't be opened.

    Attributes:
        path: The folder.
        reason: One line.
    """

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class RunStore:
    """All runs under one or more roots; the first root wins where an id stands in two."""

    roots: tuple[Path, ...]

    @classmethod
    def at(cls, *roots: str | Path) -> RunStore:
        """Return the store of these root folders (which need not exist)."""
        return cls(tuple(Path(r) for r in roots))

    def list_runs(self) -> list[Run]:
        """Return every readable run, newest first."""
        found = [(created, run.run_id, run) for run, created in self._scan() if isinstance(run, Run)]
        return [run for *_, run in sorted(found, key=lambda each: each[:2], reverse=True)]

    def list_broken(self) -> list[BrokenRun]:
        """Return the folders with a run.json that can't be opened, each with its reason."""
        return [run for run, _ in self._scan() if isinstance(run, BrokenRun)]

    def find(self, run_id: str) -> Run:
        """Return the run of that id.

        Raises:
            RunError: No listed folder has that name, or it can't be opened.
        """
        for folder in self.folders():
            if folder.name == run_id:
                return open_run(folder)
        raise RunError(f"no run {run_id!r} in {', '.join(str(r) for r in self.roots)}; see `lsviz list`")

    def folders(self) -> Iterator[Path]:
        """Yield all folders that may be runs, each name once."""
        seen: set[str] = set()
        for root in self.roots:
            try:
                entries = sorted(os.scandir(root), key=lambda e: e.name)
            except OSError:
                continue
            for entry in entries:
                hidden = entry.name.startswith(".")
                if hidden or entry.name in seen or not entry.is_dir(follow_symlinks=False):
                    continue
                seen.add(entry.name)
                yield Path(entry.path)

    def _scan(self) -> Iterator[tuple[Run | BrokenRun, str]]:
        """Yield every run with when it was created; a run reads its file's state again at each asking."""
        for folder in self.folders():
            run = Run(folder)
            try:
                created = run.record.created
            except RunError as error:
                # Asked only now: of a thousand folders nearly all are runs.
                if _exists(folder / "run.json"):
                    yield BrokenRun(folder, str(error)), ""
            else:
                yield run, created


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that can't be looked into, as a file system's lost+found
        return False
