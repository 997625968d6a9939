from __future__ import annotations

import json

import pandas as pd

from lsviz.analysis.compare import difference_frame, list_frame, run_labels, settings_and_results, summarize
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.schema import RunRecord, RunStatus


def record(run_id: str = "a1", **settings: object) -> RunRecord:
    config = RunConfig.build(**{"task": "sigmoid-mlp", **settings})
    return RunRecord(run_id=run_id, created="2026-01-01T00:00:00+00:00", config=config)


def test_summary_is_strict_json_of_what_was_recorded(unscaled_run: Run) -> None:
    steps = unscaled_run.steps()
    summary = summarize(unscaled_run.record, unscaled_run.status, steps, unscaled_run.exponents())
    json.dumps(summary, allow_nan=False)
    assert summary["steps"] == 41
    assert summary["final_loss"] == steps["loss"].iloc[-1]
    assert summary["metric"] == steps["metric"].iloc[-1]
    assert summary["final_loss_scale"] == 1.0
    assert list(summary["flushed"])[:2] == ["layer1", "layer2"]
    assert summary["ms_recording_per_step"] > 0


def test_a_diverged_run_has_no_number_instead_of_nan() -> None:
    steps = pd.DataFrame(
        {
            "loss": [float("nan")],
            "metric": [None],
            "skipped": [False],
            "loss_scale": [8.0],
            "ms": [1.0],
            "ms_recording": [0.0],
        }
    )
    summary = summarize(record(), RunStatus(state="finished", steps=1), steps, pd.DataFrame())
    assert summary["final_loss"] is None
    assert summary["metric"] is None
    assert summary["flushed"] == {}


def test_labels_say_only_what_tells_runs_apart() -> None:
    none, constant = record(policy="none"), record(policy="constant:1024")
    assert run_labels([none, constant]) == ["no scaling", "constant:1024"]
    assert run_labels([record(precision="fp32"), none]) == ["FP32", "no scaling"]
    assert run_labels([none, record(seed=3)]) == ["no scaling, seed 0", "no scaling, seed 3"]
    assert run_labels([none, record("b-1234")]) == ["no scaling, a1", "no scaling, 1234"]


def test_a_fault_stands_in_the_label_and_nothing_where_there_is_none() -> None:
    one, two = record(inject="3:a:inf"), record(inject="7:b:nan,3:a:inf", policy="constant:8")
    assert run_labels([one, two]) == ["no scaling, 3:a:inf", "constant:8, 3:a:inf and 1 more"]
    assert run_labels([record(l2=0.5, inject="3:a:inf")]) == ["no scaling, L2 0.5 after, 3:a:inf"]
    assert run_labels([one, record(inject="3:a:inf", policy="jmp")]) == ["no scaling", "jmp"]
    assert run_labels([one, record()]) == ["no scaling, 3:a:inf", "no scaling"]


def test_differences_leave_out_what_is_shared(unscaled_run: Run, scaled_run: Run) -> None:
    rows = [settings_and_results(r.record, r.steps(), r.status) for r in (unscaled_run, scaled_run)]
    frame = difference_frame(["left", "right"], rows)
    assert frame.columns.tolist() == ["left", "right"]
    assert frame.loc["policy"].tolist() == ["none", "constant:1024"]
    assert "task" not in frame.index
    assert "precision" not in frame.index
    assert {"final_loss", "metric", "skipped_steps"} <= set(frame.index)


def test_the_list_needs_the_two_json_files_alone(unscaled_run: Run) -> None:
    frame = list_frame([(unscaled_run.record, unscaled_run.status)])
    row = frame.iloc[0]
    assert (row["state"], row["step"], row["steps"]) == ("finished", 41, 41)
    assert row["metric"] == unscaled_run.steps()["metric"].iloc[-1]
    assert list_frame([]).empty
