"""What this machine offers lsviz: versions, devices, engine, and what is missing."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil

from lsviz.errors import UserError
from lsviz.jobs.browser import NO_BROWSER, find_browser
from lsviz.runs.store import default_root

PACKAGES = (*("torch", "streamlit", "plotly", "pandas", "numpy", "pyarrow", "pydantic", "scikit-learn"),)


@dataclass(frozen=True, slots=True)
class Extra:
    """What a person may install besides.

    Attributes:
        name: As in ``pip install 'lsviz[name]'``.
        packages: What it brings.
        gives: What one can do with it.
    """

    name: str
    packages: tuple[str, ...]
    gives: str


EXTRAS: Final = (
    Extra("ray", ("ray",), "lsviz sweep --engine ray: sweeps on a cluster"),
    Extra("export", ("kaleido",), "lsviz figure: figures as PNG, SVG or PDF files, drawn by a Chromium"),
    Extra("tensorboard", ("tensorboard",), "TensorBoard's event files, written and read"),
    Extra("wandb", ("wandb",), "lsviz export --format wandb: offline runs of Weights & Biases"),
    Extra("lightning", ("lightning",), "lsviz.integrations.lightning: recording in Lightning's Trainer"),
    Extra(
        "transformers",
        ("transformers", "accelerate"),
        "lsviz.integrations.transformers: recording in Hugging Face's Trainer",
    ),
)


def diagnose() -> dict[str, Any]:
    """Return versions, extras, device, engine, kernel and a list of what is missing with the way to get it.

    ``device`` is what ``--device auto`` takes, ``engine`` how FP16 is computed there, ``kernel`` what counts
    exponents there.

    Imports torch where it is installed; everything is JSON.
    """
    versions: dict[str, str | None] = {"lsviz": _version("lsviz"), "python": platform.python_version()}
    versions.update({name: _version(name) for name in PACKAGES})
    missing = [f"{name}: pip install {name}" for name, number in versions.items() if number is None]
    gpu = engine = device = kernel = None
    if versions["torch"] is not None:
        from lsviz.training.counting import kernel_description
        from lsviz.training.engine import Engine

        found = Engine.resolve("fp16", "auto")
        engine, device = found.description, found.device.type
        kernel = kernel_description(device)
        if found.device.type == "cuda":
            gpu = found.device_name
        else:
            missing.append("a CUDA GPU (optional): FP16 runs on the CPU, with FP16's range and rounding")
    return {
        "versions": versions,
        "extras": extras(),
        "cpu": f"{platform.machine()}, {psutil.cpu_count(logical=False) or psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpu": gpu,
        "device": device,
        "engine": engine,
        "kernel": kernel,
        "runs": str(default_root().resolve()),
        "missing": missing,
    }


def extras() -> list[dict[str, Any]]:
    """Return the extras: name, versions of their packages, what each gives, how to get one that is missing.

    Nothing is imported. Everything is JSON; ``get`` is None where all that an extra needs is here.
    """
    told = []
    for extra in EXTRAS:
        versions = {name: _version(name) for name in extra.packages}
        get = f"pip install 'lsviz[{extra.name}]'" if None in versions.values() else None
        if extra.name == "export" and get is None:
            get = _browser_missing()
        told.append({"name": extra.name, "versions": versions, "gives": extra.gives, "get": get})
    return told


def _browser_missing() -> str | None:
    """Return how to get a browser that draws; None where there is one."""
    try:
        return None if find_browser() else NO_BROWSER
    except UserError as error:
        return str(error)


def machine() -> dict[str, Any]:
    """Return the processor, its cores and the memory, for results that depend on them."""
    return {
        "cpu": _processor(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "threads": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    """Return the processor's name; Linux tells it in a file only."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
