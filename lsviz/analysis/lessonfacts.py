"""The numbers that lessons tell, taken from the shipped runs, the shipped results and the policies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from lsviz.analysis.curves import scale_curve_frame, working_scales
from lsviz.analysis.findings import format_percent, format_scale
from lsviz.analysis.shares import COUNTED_COLUMNS, flushed_frame
from lsviz.exponents import MIN_EXPONENT
from lsviz.formats import BF16, FP16
from lsviz.policies import parse_policy, trace_amax
from lsviz.runs.lab import Lab
from lsviz.runs.reader import Run
from lsviz.runs.reproduction import Reproduction
from lsviz.training.experiments import CURVE_TASK

NAN_STEPS: Final = 240
"""More than gradscaler takes from 2^16 to nothing."""
PARTLY, WHOLLY = 2.0**-4, 2.0**-8
"""The loss weights of image-fit at which most of a layer is flushed, and all of it."""


def policy_facts() -> dict[str, str]:
    """Return what the policies' own rules come to."""
    gradscaler = parse_policy("gradscaler")
    trace = trace_amax(gradscaler, [math.nan] * NAN_STEPS)
    return {
        "steps_to_zero": str(trace.scales.index(0.0) + 1),
        "first_scale": format_scale(gradscaler.loss_scale),
        "growth_interval": f"{gradscaler.to_dict()['growth_interval']:,}",
        "smallest_fp16": format_scale(FP16.min_subnormal),
        "smallest_bf16": format_scale(BF16.min_subnormal),
        "digits_fp16": str(FP16.mantissa_bits + 1),
        "digits_bf16": str(BF16.mantissa_bits + 1),
    }


def run_facts(runs: Sequence[Run]) -> dict[str, str]:
    """Return what sample runs came to; a fact is missing where its run is."""
    facts: dict[str, str] = {}
    for run in runs:
        config, status = run.config, run.status
        key = (config.task, config.policy, config.precision, config.loss_weight, config.inject)
        metric = f"{status.metric:.3g}" if status.metric is not None else "no number"
        if key == ("shapes-ssd", "gradscaler", "fp16", 1.0, ""):
            skipped = [int(step) for step in run.steps().query("skipped")["step"]]
            facts["ssd_skipped"] = str(len(skipped))
            facts["ssd_steps"] = f"{config.steps:,}"
            facts["ssd_skipped_at"] = _listed([f"{step:,}" for step in skipped])
            facts["ssd_metric"] = metric
            facts["ssd_last_scale"] = format_scale(status.loss_scale or math.nan)
        elif key == ("shapes-ssd", "constant:256", "fp16", 1.0, ""):
            facts["ssd_constant_metric"] = metric
        elif key == ("sigmoid-mlp", "none", "fp16", 1.0, ""):
            facts["sigmoid_none"] = metric
            facts["sigmoid_skipped"] = str(status.skipped_steps)
            facts["sigmoid_flushed"] = format_percent(layer_share(run, "layer1"))
        elif key == ("sigmoid-mlp", "none", "fp32", 1.0, ""):
            facts["sigmoid_fp32"] = metric
        elif key == ("sigmoid-mlp", "gradscaler", "fp16", 1.0, ""):
            facts["sigmoid_scaled"] = metric
        elif key[:3] == ("image-fit", "none", "fp16") and config.loss_weight in (PARTLY, WHOLLY):
            name = "partly" if config.loss_weight == PARTLY else "wholly"
            facts[f"{name}_flushed"] = format_percent(layer_share(run, "layer1"))
            facts[f"{name}_psnr"] = metric
            facts[f"{name}_length"] = format_percent(flushed_length(run, "layer1"))
        elif key == ("image-fit", "constant:4096", "fp16", PARTLY, ""):
            facts["partly_scaled_psnr"] = metric
    return facts


def result_facts(results: Reproduction, lab: Lab) -> dict[str, str]:
    """Return what the shipped table and the shipped lab say."""
    facts: dict[str, str] = {}
    curve = scale_curve_frame(results.curve)
    fp32 = [r.metric for r in results.results if r.experiment == CURVE_TASK and r.variant == "fp32"]
    window = working_scales(CURVE_TASK, curve, fp32)
    if window is not None:
        facts["lowest_working"], facts["highest_working"] = map(format_scale, window)
        facts["working_doublings"] = str(round(math.log2(window[1] / window[0])))
        facts["metric_at_1"] = f"{curve['metric'].iloc[0]:.2f}"
        facts["metric_at_most"] = f"{curve['metric'].iloc[-1]:.2f}"
        facts["highest_tried"] = format_scale(curve["loss_scale"].iloc[-1])
        facts["skipped_at_most"] = format_percent(curve["skipped"].iloc[-1])
    for variant in lab.variants:
        name = "_".join(variant.name.lower().replace("(", "").replace(")", "").replace("-", "_").split())
        facts[f"{name}_metric"] = "no number" if variant.metric is None else f"{variant.metric:.2f}"
        facts[f"{name}_smaller"] = f"{1 / variant.step_ratio:,.0f}" if variant.step_ratio else "?"
        facts[f"{name}_strict"] = f"{variant.strictness:,.0f}" if variant.strictness else "?"
        facts[f"{name}_stalled"] = format_percent(variant.stalled or 0.0)
        facts[f"{name}_off"] = format_percent(variant.weight_error or 0.0)
    return facts


def layer_share(run: Run, layer: str) -> float:
    """Return the flushed share at a layer's output, mean over the recorded steps."""
    flushed = flushed_frame(run.exponents(columns=COUNTED_COLUMNS))
    mine = flushed[(flushed["tensor"] == layer) & (flushed["kind"] == "activation_grad")]
    return float(mine["flushed"].mean())


def flushed_length(run: Run, layer: str) -> float:
    """Return how much of a gradient's squared length one cast flushes at S = 1, from the FP32 reference.

    Exponents alone give it nearly: each binade's values count as its middle.
    """
    rows = reference_rows(run.exponents(columns=(*COUNTED_COLUMNS, "counts")), layer)
    counts = np.sum(np.stack(rows["counts"].to_list()).astype(float), axis=0)
    exponents = np.arange(len(counts)) + MIN_EXPONENT
    squares = counts * 4.0**exponents
    return float(squares[exponents < FP16.min_subnormal_exponent - 1].sum() / squares.sum())


def reference_rows(exponents: pd.DataFrame, layer: str) -> pd.DataFrame:
    """Return the FP32 rows of a layer's output gradient."""
    return exponents[
        exponents["reference"].astype(bool)
        & (exponents["tensor"] == layer)
        & (exponents["kind"] == "activation_grad")
    ]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"
