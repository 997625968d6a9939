"""What the runs of ``lsviz reproduce`` say: a verdict on every variant, and the table in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import pandas as pd

from lsviz.analysis.findings import format_percent
from lsviz.analysis.results import spread_frame
from lsviz.runs.reproduction import Reproduction, RunResult
from lsviz.training.catalog import TASKS
from lsviz.training.experiments import EXPERIMENTS

Verdict = Literal["as FP32", "better", "slightly worse", "worse", "fails"]

FAILS: Final = 0.5
"""A variant fails where it keeps less than this of what FP32 gains over fresh weights."""
SLIGHT: Final = 0.9
"""And is slightly worse only where it keeps at least this."""
ONE_SEED: Final = 0.02
"""With a single seed there is no spread: a difference below this share of the gain is none."""

VARIANT_LABELS: Final[dict[str, str]] = {
    "fp32": "FP32",
    "none": "FP16, S = 1",
    "constant": "FP16, constant S",
    "gradscaler": "FP16, gradscaler",
    "fp16-weights": "FP16 weights",
}
"""Variants in words, in the order of the table."""


def verdict(task: str, fp32: Sequence[float | None], variant: Sequence[float | None]) -> Verdict | None:
    """Return how a variant's metrics compare with FP32's over the same seeds.

    As FP32: the means differ by no more than the seeds do (highest minus lowest), FP32's or, where each of
    the variant's own keeps at least SLIGHT of what FP32 gains, the variant's. Three seeds can't show less.

    Args:
        task: Tells which way is better and what fresh weights come to.
        fp32: A metric a seed; None where it was not finite.
        variant: Likewise.

    Returns:
        The verdict; None where FP32 itself has no number, lacks one in a seed, or gains nothing over fresh
        weights, so that there is nothing to compare with.
    """
    spec = TASKS[task]
    sign = -1.0 if spec.lower_is_better else 1.0
    known = [m for m in fp32 if m is not None]
    if not known or len(known) < len(fp32):
        return None
    base = sum(known) / len(known)
    gain = sign * (base - spec.untrained)
    if gain <= 0:
        return None
    mine = [m for m in variant if m is not None]
    if not mine or len(mine) < len(variant):
        return "fails"
    kept = [sign * (m - spec.untrained) / gain for m in mine]
    spread = (max(known) - min(known)) / gain if len(known) > 1 else ONE_SEED
    if min(kept) >= SLIGHT:
        spread = max(spread, max(kept) - min(kept))
    mean = sum(kept) / len(kept)
    if abs(mean - 1) <= spread:
        return "as FP32"
    if mean > 1:
        return "better"
    return "fails" if mean < FAILS else "slightly worse" if mean >= SLIGHT else "worse"


def verdict_frame(results: Sequence[RunResult]) -> pd.DataFrame:
    """Return `spread_frame` with a column ``verdict`` (None for FP32 and where there is nothing to tell)."""
    frame = spread_frame(results)
    metrics: dict[tuple[str, str], list[float | None]] = {}
    tasks: dict[str, str] = {}
    unknown: set[tuple[str, str]] = set()
    for result in results:
        key = (result.experiment, result.variant)
        metrics.setdefault(key, []).append(result.metric)
        tasks[result.experiment] = result.task
        if result.error:
            unknown.add(key)  # what kept it from ending need not be its policy's fault
    verdicts: list[str | None] = []
    for experiment, variant in zip(frame["experiment"], frame["variant"], strict=True):
        fp32 = metrics.get((experiment, "fp32"), [])
        known = variant != "fp32" and tasks[experiment] in TASKS and (experiment, variant) not in unknown
        verdicts.append(verdict(tasks[experiment], fp32, metrics[experiment, variant]) if known else None)
    return frame.assign(verdict=pd.Series(verdicts, index=frame.index, dtype=object))


def headline(document: Reproduction) -> str:
    """Return what all results together show, in one sentence.

    A slight difference is only counted: three seeds do not tell whether a constant S takes it away.
    """
    frame = verdict_frame(document.results)
    rows = {(row["experiment"], row["variant"]): row for row in _rows(frame)}
    words = {
        experiment: row["verdict"]
        for (experiment, variant), row in rows.items()
        if variant == "none" and row["verdict"] is not None
    }
    if not words:
        return "Nothing can be compared yet." if document.results else "Nothing was trained yet."
    harmed = [name for name, word in words.items() if word in ("worse", "fails")]
    slight = sum(word == "slightly worse" for word in words.values())
    back = [name for name in harmed if _brought_back(rows[name, "none"], rows.get((name, "constant")))]
    fine = len(words) - len(harmed) - slight
    lead = "So far " if document.stopped else ""
    lead += f"{fine} of {len(words)} experiments need no loss scaling"
    lead += f", {slight} {'is' if slight == 1 else 'are'} slightly worse without it" if slight else ""
    if not harmed or (len(harmed) == 1 and not back):
        return f"{lead}."
    if len(harmed) == 1:
        return f"{lead}; a constant S brings the one that suffers back to FP32."
    brought = "all" if len(back) == len(harmed) else "none" if not back else f"{len(back)}"
    return f"{lead}; a constant S brings {brought} of the {len(harmed)} that suffer back to FP32."


def _brought_back(unscaled: Mapping[str, Any], constant: Mapping[str, Any] | None) -> bool:
    """Return whether all seeds at a constant S are as FP32, and beyond those at S = 1 or their NaN."""
    if constant is None or constant["verdict"] not in ("as FP32", "better"):
        return False
    apart = constant["low"] > unscaled["high"] or constant["high"] < unscaled["low"]
    return bool(apart) or bool(unscaled["not_finite"])


def format_metric(mean: float, spread: float | None = None) -> str:
    """Return a metric, with its spread over seeds where there is one: ``0.931 ± 0.007``.

    The number after ± is half the distance between highest and lowest seed.
    """
    if mean is None or math.isnan(mean):
        return "no number"
    digits = 3 if abs(mean) < 10 else 1
    if spread is None or math.isnan(spread):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {spread / 2:.{digits}f}"


def paper_frame(document: Reproduction) -> pd.DataFrame:
    """Return the table beside the paper: one row an experiment, cells in words.

    Returns:
        Columns experiment, task, metric_name, one a variant (``fp32``, ``none``, ``constant``,
        ``gradscaler``, ``fp16-weights``; an empty text where it was not trained), S (of the constant
        policy), skipped (share of steps under gradscaler), flushed (all layers) and worst (layer and
        share) at S = 1 (empty where there is none), finding, and paper.
    """
    found = {(row["experiment"], row["variant"]): row for row in _rows(verdict_frame(document.results))}
    rows = []
    for experiment in EXPERIMENTS:
        mine = {v: found[experiment.name, v] for v in VARIANT_LABELS if (experiment.name, v) in found}
        if "fp32" not in mine:
            continue
        cells = {variant: _cell(mine[variant]) if variant in mine else "" for variant in VARIANT_LABELS}
        rows.append(
            {
                "experiment": experiment.name,
                "task": experiment.task,
                "metric_name": TASKS[experiment.task].metric_name,
                **cells,
                "S": experiment.policy.partition(":")[2] if cells["constant"] else "",
                **_shares(mine),
                "finding": _finding(mine),
                "paper": experiment.paper,
            }
        )
    return pd.DataFrame(rows)


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _cell(row: Mapping[str, Any]) -> str:
    """Return a variant's metric, and how many of its seeds it leaves out."""
    cell = format_metric(row["mean"], row["spread"])
    left_out = [f"{row['unfinished']} without a result"] if row["unfinished"] else []
    left_out += [f"{row['not_finite']} not finite"] if row["not_finite"] else []
    return f"{cell} (of {row['seeds']} seeds {', '.join(left_out)})" if left_out else cell


def _shares(mine: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return skipped, flushed and worst in words; empty where their variant was not trained."""
    cells = {"skipped": "", "flushed": "", "worst": ""}
    if "gradscaler" in mine:
        cells["skipped"] = _percent(mine["gradscaler"]["skipped_share"])
    if "none" in mine:
        row = mine["none"]
        cells["flushed"] = _percent(row["flushed"])
        if row["worst_layer"] is not None:
            cells["worst"] = f"{row['worst_layer']} {_percent(row['worst_flushed'])}"
    return cells


def _percent(share: float) -> str:
    return "" if math.isnan(share) else format_percent(share)


def _finding(mine: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how S = 1 does; constant S where there was something to bring back, gradscaler where it differs."""
    words = {variant: str(row["verdict"] or "can't tell") for variant, row in mine.items()}
    told = [f"S = 1: {words['none']}"] if "none" in words else []
    if "constant" in words and words.get("none") not in ("as FP32", "better"):
        told.append(f"constant S: {words['constant']}")
    if words.get("gradscaler") not in (None, "as FP32", "better"):
        told.append(f"gradscaler: {words['gradscaler']}")
    if "fp16-weights" in words:
        told.append(f"FP16 weights: {words['fp16-weights']}")
    return "; ".join(told)
