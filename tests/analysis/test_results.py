from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from lsviz.analysis.results import failed_result, run_result, spread_frame
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run, open_run
from lsviz.runs.reproduction import RunResult


def result(variant: str = "none", seed: int = 0, **values: object) -> RunResult:
    return RunResult.model_validate(
        {
            "experiment": "e",
            "variant": variant,
            "run_id": "r",
            "task": "digits-mlp",
            "policy": "none",
            "precision": "fp16",
            "seed": seed,
            "steps": 100,
            "metric_name": "accuracy",
            **values,
        }
    )


def test_a_result_says_what_the_tables_say(unscaled_run: Run) -> None:
    found = run_result(unscaled_run, "sigmoid", "none")
    steps, exponents = unscaled_run.steps(), unscaled_run.exponents()
    measured = steps.dropna(subset="metric")
    assert found.metric == measured["metric"].iloc[-1]
    assert found.history == list(zip(measured["step"], measured["metric"], strict=True))
    assert found.final_loss == steps["loss"].iloc[-1]
    assert (found.skipped_steps, found.experiment, found.error) == (0, "sigmoid", None)

    # By hand: zeros in the run and not in the reference, over the reference's non-zeros, mean over steps.
    at = exponents[(exponents["kind"] == "activation_grad") & (exponents["tensor"] == "layer1")]
    run_zeros = at[~at["reference"]].set_index("step")["zero"]
    reference = at[at["reference"]].set_index("step")
    by_hand = ((run_zeros - reference["zero"]) / (reference["numel"] - reference["zero"])).mean()
    assert found.worst_layer == "layer1"
    assert found.worst_flushed == pytest.approx(by_hand)
    assert found.flushed is not None
    assert 0 < found.flushed < found.worst_flushed


def test_mean_and_spread_over_the_seeds() -> None:
    rows = [
        result(seed=s, metric=m, skipped_steps=k, flushed=0.5)
        for s, (m, k) in enumerate([(0.5, 0), (0.7, 10), (0.9, 5)])
    ]
    frame = spread_frame([*rows, result("fp32", metric=0.8)])
    assert frame["variant"].tolist() == ["none", "fp32"]
    first = frame.iloc[0]
    assert (first["seeds"], first["unfinished"], first["not_finite"]) == (3, 0, 0)
    np.testing.assert_allclose(
        [first["mean"], first["low"], first["high"], first["spread"]], [0.7, 0.5, 0.9, 0.4]
    )
    np.testing.assert_allclose(
        [first["skipped_steps"], first["skipped_share"], first["flushed"]], [5, 0.05, 0.5]
    )
    assert math.isnan(frame.iloc[1]["flushed"])


def test_what_did_not_finish_counts_as_failed_and_into_nothing_else() -> None:
    config = RunConfig.build(task="digits-mlp", seed=1, steps=100)
    frame = spread_frame([result(metric=0.6, skipped_steps=4), failed_result(config, "boom", "e", "none")])
    row = frame.iloc[0]
    assert (row["seeds"], row["unfinished"], row["mean"], row["skipped_steps"]) == (2, 1, 0.6, 4)
    assert math.isnan(row["spread"])  # of one seed there is none
    only = spread_frame([failed_result(config, "boom")]).iloc[0]
    assert math.isnan(only["mean"])
    assert math.isnan(only["skipped_share"])
    assert (only["experiment"], only["variant"]) == ("digits-mlp", "no scaling")


def test_a_metric_that_is_no_number_is_told_from_a_run_without_end() -> None:
    row = spread_frame([result(metric=0.6), result(seed=1, metric=None)]).iloc[0]
    assert (row["seeds"], row["unfinished"], row["not_finite"]) == (2, 0, 1)


def test_the_worst_layer_is_the_worst_on_average() -> None:
    rows = [
        result(seed=0, metric=0.5, layers={"first": 0.9, "last": 0.6}),
        result(seed=1, metric=0.5, layers={"first": 0.1, "last": 0.6}),
    ]
    assert (rows[0].worst_layer, rows[0].worst_flushed) == ("first", 0.9)
    row = spread_frame(rows).iloc[0]
    assert (row["worst_layer"], row["worst_flushed"]) == ("last", 0.6)
    assert spread_frame([result(metric=0.5)]).iloc[0]["worst_layer"] is None


def test_a_run_with_a_table_that_can_not_be_read_is_no_whole_result(
    unscaled_run: Run, tmp_path: Path
) -> None:
    copy = shutil.copytree(unscaled_run.path, tmp_path / unscaled_run.run_id)
    (copy / "exponents.parquet").write_bytes(b"PAR1 and no more")
    found = run_result(open_run(copy))
    assert found.error is not None
    assert "exponents.parquet can't be read" in found.error
    assert found.metric == run_result(unscaled_run).metric
    variant = {"variant": found.variant, "experiment": found.experiment}
    row = spread_frame([found, result(seed=1, metric=0.5, **variant)]).iloc[0]
    assert (row["seeds"], row["unfinished"], row["mean"]) == (2, 1, 0.5)


def test_no_results_make_an_empty_frame() -> None:
    assert spread_frame([]).empty
