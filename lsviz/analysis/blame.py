"""Blame: which gradient overflowed first at each skipped step, and how near each layer comes to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from lsviz.analysis.findings import format_magnitude, format_percent, format_scale
from lsviz.analysis.series import TensorLayout, magnitudes_frame, run_format, tensor_layout
from lsviz.formats import FloatFormat
from lsviz.runs.injection import Injection, format_injections

BLAME_COLUMNS = [
    *("step", "loss_scale", "tensor", "kind", "layer", "found", "curable", "cause", "largest", "fits"),
    "injected",
]
CAUSES: Final = {
    "scale": "S was too large",
    "format": "too large at S = 1 too",
    "reference": "Inf or NaN in FP32 too",
    "forward": "the loss itself is Inf or NaN",
    "injected": "injected on purpose",
}
"""Why a step overflowed: for the first S is to blame, S below 1 could help the second, none the rest."""
MOST_FAULTS: Final = 3
"""Injected faults that a sentence names."""


def blame_frame(
    steps: pd.DataFrame,
    outcomes: pd.DataFrame,
    amax: pd.DataFrame,
    *,
    precision: str,
    injections: Sequence[Injection] = (),
    layout: TensorLayout | None = None,
) -> pd.DataFrame:
    """Return who overflowed first at each skipped step.

    Args:
        steps: `Run.steps`.
        outcomes: `Run.outcomes`.
        amax: `Run.amax`.
        precision: The run's.
        injections: Faults that the run was asked to suffer, of which S is innocent.
        layout: `lsviz.analysis.series.tensor_layout`, where it is known.

    Returns:
        Columns step, loss_scale (of that gradient), tensor, kind, layer, found (``Inf`` or ``NaN``),
        curable (whether the batch is finite at S = 1; None where nobody looked), cause (a key of CAUSES; None
        where nothing tells), largest (that gradient's
        largest magnitude in FP32 with S = 1) and fits (the largest power of two that it could be multiplied
        by); both nan where nothing tells; injected (the faults put in at that step, as ``100:conv1:huge``;
        None where there were none). Tensor, kind, layer and found are None where no gradient was seen
        to hold Inf or NaN. Row a skipped step, in order.
    """
    skipped = steps.loc[steps["skipped"].astype(bool), ["step", "loss_scale"]]
    rows = amax[amax["step"].isin(skipped["step"])]
    is_reference = rows["reference"].astype(bool)
    keys = ["step", "tensor", "kind"]
    words: dict[str, Any] = {"tensor": object, "kind": object}
    spoilt = rows[~is_reference & ((rows["inf"] > 0) | (rows["nan"] > 0))]
    first = spoilt.drop_duplicates("step")[[*keys, "loss_scale", "inf"]].astype(
        dict.fromkeys(keys[1:], object)
    )
    largest = rows.loc[is_reference & (rows["inf"] == 0) & (rows["nan"] == 0), [*keys, "amax"]]
    first = first.merge(largest.astype(words), on=keys, how="left")
    frame = skipped.merge(first, on="step", how="left", suffixes=("", "_of_tensor"))
    owners = (layout or tensor_layout(amax, precision)).owners
    known = frame["tensor"].notna()
    frame["loss_scale"] = frame["loss_scale_of_tensor"].where(known, frame["loss_scale"])
    frame["layer"] = [
        owners.get(name) or name if seen else None for name, seen in zip(frame["tensor"], known, strict=True)
    ]
    kinds = zip(frame["inf"] > 0, known, strict=True)
    frame["found"] = [("Inf" if inf else "NaN") if there else None for inf, there in kinds]
    told = outcomes.drop_duplicates("step", keep="last").set_index("step")["curable"]
    frame["curable"] = frame["step"].map(told).astype(object)
    frame["curable"] = frame["curable"].where(frame["curable"].notna(), None)
    faults = [format_injections([f for f in injections if f.step == step]) or None for step in frame["step"]]
    frame["injected"] = pd.Series(faults, index=frame.index, dtype=object)
    causes = _causes(frame, steps, rows[is_reference])
    frame["cause"] = ["injected" if fault else cause for fault, cause in zip(faults, causes, strict=True)]
    frame["cause"] = frame["cause"].astype(object)
    frame["largest"] = frame["amax"].astype(float)
    fmt = run_format(precision)
    frame["fits"] = [largest_scale(value, fmt) for value in frame["largest"]]
    found: pd.DataFrame = frame.astype(words)[BLAME_COLUMNS]
    found.loc[~known, ["tensor", "kind"]] = None
    return found


def _causes(frame: pd.DataFrame, steps: pd.DataFrame, reference: pd.DataFrame) -> list[str | None]:
    losses = steps.set_index("step")["loss"].to_dict()
    endless = set(reference.loc[(reference["inf"] > 0) | (reference["nan"] > 0), "step"])
    examined = set(reference["step"])
    causes: list[str | None] = []
    for step, curable in zip(frame["step"], frame["curable"], strict=True):
        loss = losses[step]
        if loss is not None and not math.isnan(loss) and math.isinf(loss):
            causes.append("forward")
        elif curable is None:
            causes.append(None)
        elif curable:
            causes.append("scale")
        elif step not in examined:
            causes.append("forward")
        else:
            causes.append("reference" if step in endless else "format")
    return causes


def largest_scale(largest: float, fmt: FloatFormat) -> float:
    """Return the largest power of two that a magnitude can be multiplied by without overflow; nan for 0."""
    if math.isnan(largest) or largest <= 0:
        return math.nan
    scale = 2.0 ** (fmt.max_exponent + 1 - math.floor(math.log2(largest)))
    while fmt.overflows(largest * scale):
        scale /= 2
    return scale


def headroom_frame(amax: pd.DataFrame, *, precision: str, layout: TensorLayout | None = None) -> pd.DataFrame:
    """Return how far the largest value of each layer is below overflow, step by step.

    A layer's values are its output's and its weights' gradients, and those of what is made from its output up
    to the next layer, as far as the half format limits them.

    Args:
        amax: `Run.amax`.
        precision: The run's; of one in FP32, FP16's headroom.
        layout: `lsviz.analysis.series.tensor_layout`, where it is known.

    Returns:
        Columns step, layer (categories in backward order), loss_scale (in force), largest (unscaled),
        headroom: 15 - floor(log2 max|g|) in binades (for FP16) of the scaled value, below 0 where it
        overflowed, and unscaled_headroom, the same at S = 1: log2 of the largest S with room to spare. Layers
        whose values are all zero are left out, and steps with Inf or NaN without a reference; categories hold
        all layers that the format limits.
    """
    rows = magnitudes_frame(amax, precision, layout)
    layers, limited, unscaled = rows["layer"].array, rows["limited"].to_numpy(), rows["unscaled"].to_numpy()
    layers = layers.remove_categories(
        [name for code, name in enumerate(layers.categories) if not (limited & (layers.codes == code)).any()]
    )
    chosen = np.flatnonzero(limited & (unscaled > 0) & (layers.codes >= 0))
    steps, step = np.unique(rows["step"].to_numpy()[chosen], return_inverse=True)
    cell = step * len(layers.categories) + layers.codes[chosen]
    cells, first, group = np.unique(cell, return_index=True, return_inverse=True)
    largest = np.zeros(len(cells))
    np.maximum.at(largest, group, unscaled[chosen])
    scales = rows["loss_scale"].to_numpy()[chosen][first]
    top = run_format(precision).max_exponent
    return pd.DataFrame(
        {
            "step": steps[step[first]],
            "layer": layers[chosen][first],
            "loss_scale": scales,
            "largest": largest,
            "headroom": top - (np.frexp(largest * scales)[1] - 1),
            "unscaled_headroom": top - (np.frexp(largest)[1] - 1),
        }
    )


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The layer with the largest gradient of a run: it fixes what one S for all can be.

    Attributes:
        layer: Its name.
        step: Where its gradient is largest.
        largest: That magnitude, unscaled.
        allows: The largest power of two at which it does not overflow.
        share: Share of the steps at which this layer had the least headroom of all.
    """

    layer: str
    step: int
    largest: float
    allows: float
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def bottleneck(headroom: pd.DataFrame, *, precision: str) -> Bottleneck | None:
    """Return the layer that fixes the global S; None where nothing was recorded.

    Args:
        headroom: `headroom_frame`.
        precision: The run's.
    """
    if headroom.empty:
        return None
    worst = int(headroom["largest"].to_numpy().argmax())
    layer, largest = str(headroom["layer"].iloc[worst]), float(headroom["largest"].iloc[worst])
    least = headroom.loc[headroom.groupby("step")["largest"].idxmax(), "layer"].astype(str)
    return Bottleneck(
        layer=layer,
        step=int(headroom["step"].iloc[worst]),
        largest=largest,
        allows=largest_scale(largest, run_format(precision)),
        share=float((least == layer).mean()),
    )


def layers_headroom_frame(headroom: pd.DataFrame) -> pd.DataFrame:
    """Return each layer's headroom over the run.

    Returns:
        Columns layer, least, median (binades, of the scaled values), step (of the least), allows (log2 of S
        at the least: what could be the layer's own), in backward order.
    """
    if headroom.empty:
        return pd.DataFrame({name: [] for name in ("layer", "least", "median", "step", "allows")})
    groups = headroom.groupby("layer", observed=True, sort=True)
    least = headroom.loc[groups["headroom"].idxmin()]
    return pd.DataFrame(
        {
            "layer": least["layer"].astype(str).to_numpy(),
            "least": least["headroom"].to_numpy(),
            "median": groups["headroom"].median().to_numpy(),
            "step": least["step"].to_numpy(),
            "allows": groups["unscaled_headroom"].min().to_numpy(),
        }
    )


def all_zero_finding(headroom: pd.DataFrame) -> str:
    """Return in one sentence which layers' gradients were zero at every step; empty where none's were.

    Args:
        headroom: `headroom_frame`.
    """
    layers = headroom["layer"].cat
    number = int(len(layers.categories) - headroom["layer"].nunique())
    if not number or headroom.empty:
        return ""
    seen = set(headroom["layer"].astype(str))
    first = next(name for name in layers.categories[::-1] if name not in seen)
    who = f"{first or 'the model'}" if number == 1 else f"{first} and {number - 1:,} more"
    return f"{who} received zeros alone, at every step."


def blame_finding(blame: pd.DataFrame, steps: int) -> str:
    """Return in one sentence who caused the skipped steps.

    Args:
        blame: `blame_frame`.
        steps: How many steps the run has.
    """
    number = len(blame)
    if not number:
        return f"None of {steps:,} steps was skipped"
    was = "1 step was" if number == 1 else f"{number:,} steps were"
    names = blame["layer"].dropna()
    told = f"{was} skipped of {steps:,}"
    if names.empty:
        return f"{told}; no gradient was seen to overflow"
    counts = names.value_counts()
    layer = counts.index[0] or "the model"
    began = f"all began in {layer}" if len(counts) == 1 else f"most ({counts.iloc[0]:,}) began in {layer}"
    if number == 1:
        began = f"it began in {layer}"
    hopeless = int(blame["cause"].isin(["forward", "reference"]).sum())
    small = int((blame["cause"] == "format").sum())
    meant = blame[blame["cause"] == "injected"]
    if len(meant) == number:
        return f"{told}, on purpose ({_faults(meant)}); {began}"
    words = [f"{told}; {began}"]
    if len(meant):
        words.append(f"{len(meant):,} of them on purpose ({_faults(meant)})")
    if hopeless:
        words.append(f"no S cures {'it' if number == 1 else f'{hopeless:,} of them'}")
    if small:
        words.append(f"{'it overflows' if number == 1 else f'{small:,} of them overflow'} at S = 1 too")
    return ", and ".join(words)


def blame_headline(blame: pd.DataFrame, steps: int, limits: str) -> tuple[str, str]:
    """Return what to say first and what next: who caused skipped steps and why they were.

    Where no step was skipped, it is the limits of S that come first.

    Args:
        blame: `blame_frame`.
        steps: How many steps the run has.
        limits: `lsviz.analysis.limits.Limits.finding`; empty where nothing limits S.
    """
    skipped = blame_finding(blame, steps)
    if len(blame):
        return skipped, _why(blame)
    return (limits, f"{skipped}.") if limits else (skipped, "")


def cause_words(row: Mapping[Any, Any]) -> str:
    """Return why a step overflowed, of a row of `blame_frame`."""
    if row["cause"] == "injected":
        return f"{CAUSES['injected']}: {row['injected']}"
    return CAUSES.get(row["cause"], "unknown")


def _faults(blame: pd.DataFrame) -> str:
    """Return the faults of some steps, the first few of many."""
    faults = blame["injected"].tolist()
    more = f" and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
    return ", ".join(faults[:MOST_FAULTS]) + more


def _why(blame: pd.DataFrame) -> str:
    """Say why steps were skipped, the commonest cause first."""
    counts = blame["cause"].map(CAUSES).fillna("nothing tells why").value_counts()
    if len(counts) > 1:
        return "Why: " + ", ".join(f"{words} ({count:,})" for words, count in counts.items()) + "."
    if (blame["cause"] == "injected").all():
        return "A fault was injected there, so S is not to blame."
    words = str(counts.index[0])
    always = " each time" if len(blame) > 1 and blame["cause"].notna().all() else ""
    return f"{words[0].upper()}{words[1:]}{always}."


def bottleneck_finding(found: Bottleneck | None) -> str:
    """Return in one sentence which layer fixes the global S."""
    if found is None:
        return "How near gradients come to overflow is not known of this run."
    often = "at every step" if found.share == 1 else f"at {format_percent(found.share)} of the steps"
    largest = f"{format_magnitude(found.largest)} at step {found.step:,}"
    return (
        f"{found.layer or 'The model'} is the bottleneck: its largest gradient, {largest}, allows "
        f"S = {format_scale(found.allows)} at most; it has the least headroom {often}."
    )
