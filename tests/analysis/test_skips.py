"""What skipping costs, against numbers counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from lsviz.analysis.skips import SkippingRun, load_skipping_run, skips_finding, skips_frame
from lsviz.runs.reader import Run
from lsviz.training.catalog import TASKS


def run_of(pattern: str, batch_size: int | None = 32, *, retries: bool = True) -> SkippingRun:
    """One character a step: O skipped, r retried with success, . clean."""
    steps = pd.DataFrame({"skipped": [c == "O" for c in pattern], "finite": [c == "." for c in pattern]})
    return SkippingRun("mine", "gradscaler", steps, batch_size, retries)


def test_samples_schedules_and_streaks_are_counted() -> None:
    (row,) = skips_frame([run_of("OO..OOO.r.")]).to_dict("records")
    assert row["steps"] == row["scheduler_steps"] == 10
    assert row["skipped"] == 5
    assert row["optimizer_steps"] == 5
    assert row["samples"] == 320
    assert row["samples_lost"] == 160
    assert row["retried"] == 1
    assert row["skipped_at_the_start"] == 2
    assert row["longest_streak"] == 3
    assert row["share"] == 0.5


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("....", "All 4 steps updated the weights."),
        (".rr.", "All 4 steps updated the weights. 2 batches were tried again at a smaller S."),
        (
            "O...",
            "1 of 4 updates was thrown away (25 %), and with them 32 training examples. A learning-rate "
            "schedule that advances at every iteration ends 1 step ahead of the optimizer.",
        ),
    ],
)
def test_the_finding_says_what_was_lost(pattern: str, words: str) -> None:
    assert skips_finding(skips_frame([run_of(pattern)]).to_dict("records")[0]) == words


def test_a_loop_that_does_not_retry_has_applied_what_was_not_finite() -> None:
    (row,) = skips_frame([run_of(".rr.", retries=False)]).to_dict("records")
    assert (row["retried"], row["applied"]) == (0, 2)
    assert skips_finding(row).endswith("2 of them had Inf or NaN in some gradient.")


def test_where_the_batch_size_is_unknown_no_examples_are_told() -> None:
    (row,) = skips_frame([run_of("O.", None)]).to_dict("records")
    assert "examples" not in skips_finding(row)
    assert pd.isna(row["samples_lost"])


def test_a_run_tells_its_tasks_batch_size(scaled_run: Run) -> None:
    found = load_skipping_run(scaled_run)
    assert found.batch_size == TASKS["sigmoid-mlp"].batch_size
    (row,) = skips_frame([found]).to_dict("records")
    assert (row["steps"], row["skipped"], row["run_id"]) == (41, 0, scaled_run.run_id)


def test_a_run_without_steps_is_no_error() -> None:
    (row,) = skips_frame([run_of("")]).to_dict("records")
    assert (row["steps"], row["share"], row["longest_streak"]) == (0, 0.0, 0)
