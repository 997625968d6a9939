"""How runs react to the faults that they were given: what S does, what is skipped, when S is back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import pandas as pd

from lsviz.analysis.findings import format_powers
from lsviz.runs.config import RunConfig
from lsviz.runs.injection import Injection
from lsviz.runs.reader import Run

REACTION_COLUMNS: Final = [
    *("run_id", "label", "policy", "step", "layer", "kind", "before", "after", "lowest"),
    *("skipped", "tries", "recovered", "metric"),
]
_NAMED: Final = 3
"""Up to so many runs are named in the finding."""
_WORDS: Final = {"inf": ("An Inf", "it"), "nan": ("A NaN", "it"), "huge": ("Huge values", "them")}


@dataclass(frozen=True)
class ReactingRun:
    """What is looked at of one run. Frames may be shared: never change them.

    Attributes:
        run_id: Its id.
        config: Its settings, the faults among them.
        steps: The steps table.
        outcomes: The outcomes table; empty where there is none.
        amax: The amax table, of the faulty layers alone; empty where it is not needed.
    """

    run_id: str
    config: RunConfig
    steps: pd.DataFrame
    outcomes: pd.DataFrame
    amax: pd.DataFrame

    @classmethod
    def of(cls, run: Run) -> Self:
        """Read a run's tables.

        Raises:
            RunError: Its run.json can't be read.
        """
        config = run.config
        amax = run.amax() if config.initial_policy.per_layer else pd.DataFrame()
        if len(amax):
            layers = {fault.layer for fault in config.injections}
            own = amax["tensor"].isin(layers) & (amax["kind"] == "activation_grad") & ~amax["reference"]
            amax = amax[own]
        return cls(run.run_id, config, run.steps(), run.outcomes(), amax)

    def scales(self, layer: str) -> pd.Series[float]:
        """Return S in force at each step, at its first try; of this layer, where each has its own."""
        if len(self.amax):
            own = self.amax[self.amax["tensor"] == layer]
            return own.drop_duplicates("step").set_index("step")["loss_scale"]
        table = self.outcomes.drop_duplicates("step") if len(self.outcomes) else self.steps
        return table.set_index("step")["loss_scale"]


def reaction_frame(runs: Sequence[ReactingRun], labels: Sequence[str]) -> pd.DataFrame:
    """Return one row a run and fault that it came to.

    Args:
        runs: Any; those without faults have no row.
        labels: A few words for each.

    Returns:
        Columns run_id, label, policy, step, layer, kind, before (S at that step), after (at the next one;
        NaN if there was none), lowest (until it was back), skipped (steps in a row whose update was left out,
        from that one), tries (of its batch), recovered (steps until S was at ``before`` again, 0 if it never
        fell, NaN if it was not in the run, or not before the next fault) and metric (at the end).
    """
    rows = [
        {"run_id": run.run_id, "label": label, "policy": run.config.policy, **_reaction(run, fault)}
        for run, label in zip(runs, labels, strict=True)
        for fault in run.config.injections
        if fault.step in run.steps["step"].array
    ]
    return pd.DataFrame(rows, columns=REACTION_COLUMNS)


def reaction_finding(frame: pd.DataFrame) -> str:
    """Return in a sentence how runs react to the first fault of a `reaction_frame`."""
    if frame.empty:
        return "No run came to a fault."
    first = frame.sort_values("step", kind="stable").iloc[0]
    same = (frame["step"] == first["step"]) & (frame["layer"] == first["layer"])
    rows = frame[same & (frame["kind"] == first["kind"])]
    what, it = _WORDS[first["kind"]]
    where = f"{what} in {first['layer']} at step {first['step']:,}"
    return f"{where}: {_effect(rows, it)}; {_fall(rows)}."


def _reaction(run: ReactingRun, fault: Injection) -> dict[str, Any]:
    step = fault.step
    scales = run.scales(fault.layer)
    later_faults = [other.step for other in run.config.injections if other.step > step]
    later = scales[(scales.index > step) & (scales.index <= min([*later_faults, math.inf]))]
    before = float(scales.get(step, math.nan))
    back = later.index[later >= before]
    fell = len(later) > 0 and later.iloc[0] < before
    until = later[later.index <= back[0]] if len(back) else later
    since = run.steps[run.steps["step"] >= step]
    clean = since["step"][~since["skipped"].astype(bool)]
    metrics = run.steps["metric"].dropna()
    return {
        "step": step,
        "layer": fault.layer,
        "kind": fault.kind,
        "before": before,
        "after": float(later.iloc[0]) if len(later) else math.nan,
        "lowest": min([before, *until]) if fell else before,
        "skipped": int((since["step"] < clean.iloc[0]).sum()) if len(clean) else len(since),
        "tries": max(1, int((run.outcomes["step"] == step).sum())) if len(run.outcomes) else 1,
        "recovered": 0.0 if not fell else float(back[0] - step) if len(back) else math.nan,
        "metric": float(metrics.iloc[-1]) if len(metrics) else math.nan,
    }


def _effect(rows: pd.DataFrame, it: str) -> str:
    """Say who skipped the step, and into whose weights the fault went."""
    applied = rows["label"][rows["skipped"] == 0]
    if applied.empty:
        who = "both" if len(rows) == 2 else f"all {len(rows)}"
        return "the step is skipped" if len(rows) == 1 else f"{who} runs skip the step"
    if len(applied) == len(rows):
        return f"nothing overflows, and the update takes {it}"
    verb = "takes" if len(applied) == 1 else "take"
    skipping = len(rows) - len(applied)
    skips = f"{skipping} of {len(rows)} runs {'skips' if skipping == 1 else 'skip'} the step"
    return f"{skips}, {_names(applied) or 'the others'} {verb} {it} into the weights"


def _fall(rows: pd.DataFrame) -> str:
    """Say by how much S fell, under which policy most, and where it stayed down."""
    falls = rows["before"] / rows["lowest"].where(rows["lowest"] > 0, math.nan)
    deepest = float(falls.max())
    if not deepest > 1:
        return "S stays"
    most = rows["label"][falls == deepest]
    if len(most) == len(rows):
        words = f"S falls by {_factor(deepest)}"
    elif names := _names(most):
        words = f"S falls most under {names}, by {_factor(deepest)}"
    else:
        words = f"S falls by up to {_factor(deepest)}"
    lost = int(rows["recovered"].isna().sum())
    if not lost:
        return words
    return f"{words}, and is not back at the end" + ("" if len(rows) == 1 else f" of {_runs(lost)}")


def _names(labels: pd.Series[str]) -> str:
    """Return a few labels as people list them; empty where they are too many."""
    *most, last = labels
    if len(most) >= _NAMED:
        return ""
    return f"{', '.join(most)} and {last}" if most else str(last)


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _factor(value: float) -> str:
    if value < 16:
        return f"{value:.3g}"
    return format_powers(f"{'' if math.frexp(value)[0] == 0.5 else 'about '}2^{round(math.log2(value))}")
