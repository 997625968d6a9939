"""A run as an offline run of Weights & Biases: nothing goes over the network until its user syncs it."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from lsviz.runs.eventfiles import MissingPackageError
from lsviz.runs.files import unwritable
from lsviz.runs.outgoing import ABOUT, moments
from lsviz.runs.reader import Run


def save_wandb(run: Run, flushed: pd.DataFrame, folder: Path) -> Path:
    """Write a run as an offline W&B run, with the numbers and histograms of `lsviz.runs.outgoing`.

    Nothing of this machine goes into what is synced: no host, user, list of packages or git state.

    Args:
        run: The run.
        flushed: As `lsviz.runs.outgoing.moments` takes it.
        folder: Gets a folder ``wandb``; it is made.

    Returns:
        The offline run's folder, which ``wandb sync`` takes.

    Raises:
        MissingPackageError: wandb is not installed.
        RunFolderError: The folder can't be written.
        RunError: The run can't be read.
    """
    try:
        import wandb
    except ImportError:
        raise MissingPackageError("runs of W&B need the package wandb: pip install 'lsviz[wandb]'") from None
    record = run.record
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    settings = wandb.Settings(
        mode="offline",
        console="off",
        silent=True,
        host="lsviz",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        reinit="create_new",
    )
    config = {**record.config.model_dump(), "device_name": record.device_name, "engine": record.engine}
    made = wandb.init(
        project="lsviz",
        dir=folder.absolute(),  # what writes it is a process of its own, perhaps begun elsewhere
        id=re.sub(r"[^A-Za-z0-9_-]", "-", run.run_id)[:64],
        name=run.labels.name or run.run_id,
        tags=run.labels.tags or None,
        notes=ABOUT,
        config=config,
        settings=settings,
    )
    try:
        for moment in moments(run, flushed):
            bars = {
                each.tag: wandb.Histogram(np_histogram=(each.counts.tolist(), each.edges.tolist()))
                for each in moment.bars
            }
            made.log({**moment.numbers, **bars}, step=moment.step)
    finally:
        made.finish()
    return Path(made.dir).parent
