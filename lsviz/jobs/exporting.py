"""Runs for other programs' dashboards as one zip, written by processes of their own.

W&B starts services and keeps state in the process that takes it in, and both take memory that a server
would hold for as long as it lives.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lsviz.errors import UserError
from lsviz.jobs.launching import module_command, worker_environment
from lsviz.runs.reader import Run

DASHBOARDS: Final = {"tensorboard": "TensorBoard", "wandb": "W&B"}
"""Formats of `lsviz export`, each also the package that it takes, and what people call them."""
MAX_RUNS: Final = 10
"""In one zip: each takes a few seconds."""
DEADLINE: Final = 180.0
"""Seconds that a run may take."""


def installed_dashboards() -> list[str]:
    """Return the formats whose package is here."""
    return [name for name in DASHBOARDS if importlib.util.find_spec(name) is not None]


def dashboard_zip(runs: Sequence[Run], fmt: str) -> bytes:
    """Return a zip of what ``lsviz export --format FMT`` writes for each run.

    Args:
        runs: At most MAX_RUNS.
        fmt: One of DASHBOARDS.

    Raises:
        UserError: A run can't be read, or its export did not end.
    """
    with tempfile.TemporaryDirectory(prefix="lsviz-export-") as name:
        folder = Path(name)
        for run in runs:
            _export(run, fmt, folder)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    archive.write(path, path.relative_to(folder))
        return file.getvalue()


def _export(run: Run, fmt: str, folder: Path) -> None:
    command = module_command("lsviz", "export", str(run.path.absolute()), "--format", fmt, "-o", str(folder))
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=worker_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{run.run_id}: its export took more than {DEADLINE:.0f} seconds") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), f"exit code {done.returncode}")
        raise UserError(f"{run.run_id}: {said.removeprefix('lsviz: ')[:300]}")
