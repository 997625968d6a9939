from __future__ import annotations

import pandas as pd
import pytest

from lsviz.analysis.cost import cost_finding, recording_cost
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run


def steps(ms: list[float], recording: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(ms)), "ms": ms, "ms_recording": recording})


def config(every: int, reference: int = 0) -> RunConfig:
    return RunConfig.build(task="digits-mlp", record_every=every, reference_every=reference)


def test_a_recorded_step_is_compared_with_one_that_is_not() -> None:
    # Recording takes 4 ms, and makes the step itself 1 ms longer, which it does not see.
    table = steps([11, 10, 10, 10] * 5, [4, 0, 0, 0] * 5)
    found = recording_cost(table, config(4))
    assert found is not None
    assert (found.ms_per_step, found.ms_per_recording) == (10, 5)
    assert found.share == pytest.approx(5 / 45)
    assert cost_finding(table, config(4)) == (
        "Recording takes 5 ms at each recorded step (a step takes 10): 11 % of the time."
    )


def test_where_all_steps_are_recorded_what_it_measured_counts() -> None:
    found = recording_cost(steps([10, 10, 10], [1, 2, 3]), config(1))
    assert found is not None
    assert (found.ms_per_step, found.ms_per_recording) == (10, 2)
    assert found.share == pytest.approx(6 / 36)


def test_it_costs_no_less_than_it_measured_of_itself() -> None:
    found = recording_cost(steps([10, 50, 50, 50], [4, 0, 0, 0]), config(4))
    assert found is not None
    assert found.ms_per_recording == 4


def test_the_reference_is_part_of_it() -> None:
    found = recording_cost(steps([10] * 4, [8, 0, 8, 0]), config(0, 2))
    assert found is not None
    assert found.ms_per_recording == 8


def test_nothing_recorded_costs_nothing() -> None:
    assert recording_cost(steps([10, 10], [0, 0]), config(0)) is None
    assert recording_cost(steps([], []), config(1)) is None
    assert cost_finding(steps([10, 10], [0, 0]), config(0)) == ""


def test_a_real_run_stores_what_it_takes(unscaled_run: Run) -> None:
    found = recording_cost(unscaled_run.steps(), unscaled_run.config)
    assert found is not None
    assert found.ms_per_step > 0
    assert found.ms_per_recording > 0
    assert 0 < found.share < 1
