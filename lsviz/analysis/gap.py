"""What one cast of the reference would flush, beside what FP16's backward pass really flushed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import HEAVY, format_percent
from lsviz.analysis.whatif import MAX_SCALE, MIN_SCALE, Histograms, shares_at_frame
from lsviz.formats import FloatFormat

NOTICED: Final = 0.01
"""Share of a layer's values from which a gap is worth a word."""
HARMLESS: Final = 0.05
"""Up to this share of each layer's values, what is flushed hardly changes a training (lesson 11)."""
FEW_SKIPPED: Final = 0.05
"""Up to this share of the steps, skipping is what finding S costs."""


def predicted_frame(rows: Histograms, flushed: pd.DataFrame, fmt: FloatFormat) -> pd.DataFrame:
    """Return what a cast of the reference would flush at the S in force, beside what was really flushed.

    Args:
        rows: The run's references.
        flushed: As `lsviz.analysis.shares.flushed_frame` returns it.
        fmt: The format that the run computed in.

    Returns:
        Columns step, tensor, kind, loss_scale, predicted and actual (shares of the values that are not
        zero in the reference), gap, actual less predicted: what was lost further up and never arrived, and
        overflow and overflowed: shares that become Inf by the cast, and that really did.
    """
    keys = ["step", "tensor", "kind"]
    places = rows.keys[keys].assign(row=np.arange(len(rows.keys)))
    inside = flushed["loss_scale"].between(MIN_SCALE, MAX_SCALE)
    really = {"flushed": "actual", "overflow": "overflowed"}
    wanted = flushed.loc[inside, [*keys, "loss_scale", *really]].rename(columns=really)
    both = wanted.merge(places, on=keys)
    chosen = rows.taken(both["row"].to_numpy(np.int64))
    cast = shares_at_frame(chosen, both["loss_scale"].to_numpy(np.float64), fmt)
    told = ["flushed", "structural_zero", "overflow"]
    both[told] = cast[told].to_numpy()
    at_risk = 1 - both["structural_zero"]
    both["predicted"] = (both["flushed"] / at_risk.where(at_risk > 0)).fillna(0.0).clip(upper=1.0)
    both["gap"] = both["actual"] - both["predicted"]
    found: pd.DataFrame = both[[*keys, "loss_scale", "predicted", "actual", "gap", "overflow", "overflowed"]]
    return found


def layer_gap_frame(predicted: pd.DataFrame, layers: Sequence[str]) -> pd.DataFrame:
    """Return the same for each layer's output over the run.

    Args:
        predicted: `predicted_frame`.
        layers: As `lsviz.analysis.shares.layer_names` returns them.

    Returns:
        Columns layer, predicted, actual, gap: means over the recorded steps; in the order of layers.
    """
    outputs = predicted[predicted["kind"] == "activation_grad"]
    means = outputs.groupby("tensor", sort=False)[["predicted", "actual", "gap"]].mean()
    found = means.reindex([name for name in layers if name in means.index]).rename_axis("layer")
    return found.reset_index()


def gap_finding(gaps: pd.DataFrame) -> str:
    """Return in one or two sentences how much more was lost than one cast loses."""
    if gaps.empty:
        return ""
    worst = gaps.to_dict("records")[int(gaps["gap"].to_numpy().argmax())]
    if worst["gap"] <= NOTICED:
        most = format_percent(float(gaps["gap"].abs().max())).removeprefix("< ")
        return f"What FP16 really flushed is what one cast of the reference would flush, to within {most}."
    return (
        f"{worst['layer']} really lost {format_percent(worst['actual'])} of its values, where one cast of "
        f"its FP32 gradient would lose {format_percent(worst['predicted'])}. The rest never arrived: it was "
        "lost in the layers above, or in FP16's rounding on the way."
    )


def other_format_finding(
    predicted: pd.DataFrame,
    layers: Sequence[str],
    blame: pd.DataFrame,
    *,
    computed: FloatFormat,
    cast: FloatFormat,
    steps: int,
) -> str:
    """Return in one sentence whether a run would have fared better in another format.

    Empty where nobody knows. What counts is what was flushed, and steps that were skipped since S was too
    large for the format.

    Args:
        predicted: `predicted_frame` of a cast to the other format, at the S that was in force.
        layers: As `lsviz.analysis.shares.layer_names` returns them.
        blame: `lsviz.analysis.blame.blame_frame` of the run.
        computed: The format that the run computed in.
        cast: The other one.
        steps: How many the run has.
    """
    gaps = layer_gap_frame(predicted, layers)
    if gaps.empty:
        return ""
    name, mine = cast.name.upper(), computed.name.upper()
    by_step = predicted.groupby("step")[["overflow", "overflowed"]].max() > 0
    inf, inf_before = (int(count) for count in by_step.sum())
    if inf > inf_before:
        return (
            f"{name} would have done harm: gradients overflow in it at {inf:,} of {len(by_step):,} recorded "
            f"steps, in {mine} at {f'{inf_before:,}' if inf_before else 'none'}"
        )
    rows = gaps.to_dict("records")
    worst = max(rows, key=lambda row: row["actual"])

    def told(verdict: str, row: dict[Hashable, Any]) -> str:
        kept, lost = format_percent(row["predicted"]), format_percent(row["actual"])
        return (
            f"{name} {verdict}: it flushes {kept} of {row['layer']}'s gradient, where {mine} flushed {lost}"
        )

    if gaps["predicted"].mean() > gaps["actual"].mean() + NOTICED:
        return told("would have done harm", min(rows, key=lambda row: row["gap"]))
    saved = _saved_words(blame, mine, cast)
    if worst["actual"] <= NOTICED and saved:
        # A scale that is being sought overflows a few times: that is no harm.
        few = (blame["cause"] == "scale").sum() <= FEW_SKIPPED * steps
        little = "would have changed little" if few else "would have helped"
        return f"{name} {little}: {saved}"
    if worst["actual"] <= NOTICED:
        most = format_percent(worst["actual"]).removeprefix("< ")
        return f"{name} would not have helped: {mine} flushed at most {most} of any layer's gradient"
    also = f"; {saved}" if saved else ""
    if worst["actual"] <= HARMLESS and not saved:
        return told("would have changed little", worst)
    if worst["predicted"] <= NOTICED and worst["actual"] < HEAVY and not saved:
        kept, lost = format_percent(worst["predicted"]), format_percent(worst["actual"])
        return (
            f"{name} would have kept more of {worst['layer']}'s gradient ({mine} flushed {lost}, {name} "
            f"flushes {kept}), but a loss of that size need not harm"
        )
    if worst["predicted"] <= NOTICED:
        return told("would have helped", worst) + also
    in_part = worst["predicted"] <= worst["actual"] / 2
    return told("would have helped in part" if in_part or saved else "would hardly have helped", worst) + also


def _saved_words(blame: pd.DataFrame, mine: str, cast: FloatFormat) -> str:
    """Return how many of the steps skipped for S's sake another format saves; empty where it saves none."""
    too_large = blame[(blame["cause"] == "scale") & blame["largest"].notna()]
    if too_large.empty:
        return ""
    scaled = (too_large["largest"] * too_large["loss_scale"]).to_numpy(np.float64)
    left, number = int(cast.overflows(scaled).sum()), len(too_large)
    if left == number:
        return ""
    of_them = "the one step" if number == 1 else f"the {number:,} steps"
    few = f"{left:,}" if left else "none"
    kept = "it would not have skipped" if number == 1 else f"it would have skipped {few} of"
    return f"{kept} {of_them} at which S was too large for {mine}"
