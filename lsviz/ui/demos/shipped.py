"""What is shipped, as lessons show it: runs, results and lab, whatever this machine has trained itself."""

from __future__ import annotations

from lsviz.analysis.view import RunView
from lsviz.runs.lab import FILE_NAME as LAB_FILE
from lsviz.runs.lab import Lab, LabError, load_lab
from lsviz.runs.reader import Run
from lsviz.runs.reproduction import FILE_NAME as RESULTS_FILE
from lsviz.runs.reproduction import Reproduction, ReproductionError, load_reproduction
from lsviz.runs.store import RunStore
from lsviz.ui.loading import load_runs
from lsviz.ui.state import samples_root


def shipped_runs() -> list[Run]:
    """Return the sample runs, newest first."""
    return RunStore.at(samples_root()).list_runs()


def shipped_results() -> Reproduction | None:
    """Return the shipped table beside the paper; None where it is missing or broken."""
    try:
        return load_reproduction(samples_root() / RESULTS_FILE)
    except ReproductionError:
        return None


def shipped_lab() -> Lab | None:
    """Return the shipped lab of updates; None where it is missing or broken."""
    try:
        return load_lab(samples_root() / LAB_FILE)
    except LabError:
        return None


def shipped_run(
    task: str, policy: str, *, precision: str = "fp16", loss_weight: float = 1.0, inject: str = ""
) -> Run | None:
    """Return one sample run; None where it is missing."""
    asked = (task, policy, precision, loss_weight, inject)
    for run in shipped_runs():
        c = run.config
        if (c.task, c.policy, c.precision, c.loss_weight, c.inject) == asked:
            return run
    return None


def shipped_views(*runs: Run | None) -> list[RunView]:
    """Return the tables of those runs that are there and can be read."""
    return load_runs([run for run in runs if run is not None])
