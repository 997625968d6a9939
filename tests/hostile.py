"""A folder of runs whose names, words and errors would all act if they were shown as markup."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lsviz.exponents import ExponentHistogram
from lsviz.runs.config import RunConfig
from lsviz.runs.files import write_json
from lsviz.runs.labelling import set_labels
from lsviz.runs.labels import Labels
from lsviz.runs.reader import open_run
from lsviz.runs.schema import OWN_LOOP, ExponentRow, StepRow
from lsviz.runs.series import AmaxRows, OutcomeRow, TensorName
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import SAMPLES

MARK: Final = "zq7"
"""In every hostile text, and nowhere else."""
IMAGE: Final = f'<img src=x onerror=alert("{MARK}")>'
SCRIPT: Final = f"<script>alert('{MARK}')</script>"
ANCHOR: Final = f'<a href="http://{MARK}.test/a">{MARK}</a>'
PICTURE: Final = f"![{MARK}](http://{MARK}.test/i.png)"
LINK: Final = f"[{MARK}](javascript:alert(1))"
FORMULA: Final = rf"$\href{{javascript:alert('{MARK}')}}{{{MARK}}}$"
MATHJAX: Final = rf"\(\href{{javascript:alert(1)}}{{{MARK}}}\)"
COLOUR: Final = f":red[{MARK}] :material/home: :smile: **{MARK}**"
SHEET: Final = f'=HYPERLINK("http://{MARK}.test","{MARK}")'
TURNED: Final = f"{MARK}\u202egnp.exe\u2066"
BOLD: Final = f"<b>{MARK}</b>"
LAYERS: Final = (BOLD, IMAGE, SCRIPT, ANCHOR, PICTURE, LINK, FORMULA, MATHJAX, COLOUR, SHEET, TURNED)
FOLDER: Final = f'<img src=x onerror=alert("{MARK}")>[{MARK}](http:{MARK}.test)'
"""The name of a run's folder: all but a slash is allowed in one."""
STEPS: Final = 12
SKIPPED: Final = 6


@dataclass(frozen=True)
class HostileRuns:
    """The folder, and the ids of the runs in it: unscaled, scaled, failed."""

    root: Path
    ids: tuple[str, str, str]


def write_hostile_runs(root: Path) -> HostileRuns:
    """Write a pair for Explore, a run that failed, two broken ones, and results of both commands."""
    fault = f"{SKIPPED}:{IMAGE}:inf"
    unscaled = _write(root, FOLDER, "none", fault, "finished")
    scaled = _write(root, f"{MARK}-b", "constant:1024", fault, "finished")
    failed = _write(root, f"{MARK}-c", "gradscaler", "", "failed")
    broken = root / f"{MARK} {LINK.replace('/', '')}"
    broken.mkdir()
    (broken / "run.json").write_text(
        json.dumps({"run_id": IMAGE, "created": SCRIPT, "config": {"task": IMAGE}})
    )
    policy = json.loads((root / scaled / "run.json").read_text())
    policy["config"]["policy"] = COLOUR
    strange = root / f"{MARK}-d"
    strange.mkdir()
    (strange / "run.json").write_text(json.dumps(policy))
    _write_results(root)
    return HostileRuns(root, (unscaled, scaled, failed))


def _write(root: Path, run_id: str, policy: str, inject: str, state: str) -> str:
    config = RunConfig.build(
        task="sigmoid-mlp", policy=policy, steps=STEPS, inject=inject, record_every=2, reference_every=2
    )
    scale = 1.0 if policy == "none" else 1024.0
    path = create_run(root, config, run_id)
    names = tuple(
        TensorName(name, kind, "float16", True)
        for name in LAYERS
        for kind in ("activation_grad", "weight_grad")
    )
    with RunWriter(path) as writer:
        writer.describe(
            versions={"torch": IMAGE},
            device="cpu",
            device_name=IMAGE,
            engine=OWN_LOOP if state == "failed" else SCRIPT,
            metric_name="accuracy",
        )
        for step in range(STEPS):
            skipped = step == SKIPPED
            row = StepRow(step, 1.0, 0.5, scale, not skipped, skipped, 1e-3, 1.0, 1.0, 0.1)
            amax = [_amax(step, scale, names, spoilt=skipped)]
            amax += [_amax(step, 1.0, names, spoilt=False, reference=True)] if skipped else []
            rows = _exponents(step, scale) if step % 2 == 0 else []
            writer.append(row, rows, amax=amax, outcomes=[OutcomeRow(step, scale, not skipped)])
        error = f"RuntimeError: {IMAGE} {PICTURE} {FORMULA}" if state == "failed" else None
        writer.end(state, error)  # type: ignore[arg-type]
    (path / "log.txt").write_text(f"{SCRIPT}\n{LINK}\n")
    set_labels(
        open_run(path),
        Labels.build(name=f"{IMAGE}{LINK}"[:80], tags=[f"**{MARK}**", f"$x${MARK}", SHEET[:24]]),
    )
    return run_id


def _exponents(step: int, scale: float) -> list[ExponentRow]:
    random = np.random.default_rng(step)
    rows = []
    for place, name in enumerate(LAYERS):
        values = random.normal(size=400) * 2.0 ** (-18 - place)
        half = (values * scale).astype(np.float16).astype(np.float64)
        for kind in ("activation_grad", "weight_grad"):
            rows.append(ExponentRow(step, name, kind, False, scale, ExponentHistogram.of(half)))
            expected = ExponentHistogram.of(values)
            rows.append(ExponentRow(step, name, kind, True, 1.0, expected))
    return rows


def _amax(
    step: int, scale: float, names: tuple[TensorName, ...], *, spoilt: bool, reference: bool = False
) -> AmaxRows:
    number = len(names)
    return AmaxRows(
        step=step,
        reference=reference,
        names=names,
        loss_scale=np.full(number, scale),
        amax=np.linspace(2.0**-20, 2.0**-8, number) * scale,
        inf=np.full(number, int(spoilt)),
        nan=np.zeros(number, np.int64),
    )


def _write_results(root: Path) -> None:
    """Write the shipped results of ``lsviz lab`` and ``reproduce`` with all free words replaced."""
    lab = json.loads((SAMPLES / "lab.json").read_text())
    lab |= {"created": IMAGE, "policy": LINK, "versions": {"torch": IMAGE}}
    for place, variant in enumerate(lab["variants"]):
        variant |= {"name": f"{place} {LAYERS[place % len(LAYERS)]}", "shows": IMAGE, "verdict": PICTURE}
        variant["settings"] = {"optimizer": SCRIPT}
    lab["variants"][0]["group"] = LINK
    lab["variants"][1]["error"] = FORMULA
    found = json.loads((SAMPLES / "reproduce.json").read_text())
    found |= {"created": IMAGE, "machine": {"cpu": IMAGE, "cores": LINK}, "versions": {"torch": PICTURE}}
    for result in found["results"]:
        result["layers"] = {IMAGE: 0.5, LINK: 0.25}
        result["run_id"] = IMAGE
    for result in found["results"][:4]:
        result["experiment"], result["metric_name"] = IMAGE, COLOUR
    for name, document in (("lab", lab), ("reproduce", found)):
        (root / name).mkdir()
        write_json(root / name / f"{name}.json", document)


def free_words(value: Any) -> list[str]:
    """Return every string in a JSON value that holds the mark."""
    if isinstance(value, str):
        return [value] if MARK in value else []
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return [word for item in value for word in free_words(item)] if isinstance(value, list) else []
