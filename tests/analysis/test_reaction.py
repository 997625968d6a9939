"""Reactions to faults: read off series written by hand, and off real runs."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from lsviz.analysis.reaction import REACTION_COLUMNS, ReactingRun, reaction_finding, reaction_frame
from lsviz.runs.config import RunConfig
from tests.conftest import train_run

EMPTY = pd.DataFrame()


def series(scales: list[float], skipped: str, inject: str = "2:a:inf", policy: str = "jmp") -> ReactingRun:
    """A run whose S and skips (x) are these."""
    steps = pd.DataFrame(
        {
            "step": range(len(scales)),
            "loss_scale": scales,
            "skipped": [mark == "x" for mark in skipped],
            "metric": [math.nan] * (len(scales) - 1) + [0.5],
        }
    )
    config = RunConfig.build(task="t", policy=policy, steps=max(len(scales), 9), inject=inject)
    return ReactingRun("id", config, steps, EMPTY, EMPTY)


def reaction(run: ReactingRun, row: int = 0) -> dict[str, object]:
    return dict(reaction_frame([run], ["jmp"]).iloc[row])


def test_a_fall_and_its_recovery_are_counted_in_steps() -> None:
    found = reaction(series([8, 8, 8, 4, 2, 4, 8, 16], "..xx...."))
    assert (found["before"], found["after"], found["lowest"]) == (8, 4, 2)
    assert (found["skipped"], found["recovered"], found["metric"]) == (2, 4, 0.5)
    assert (found["step"], found["layer"], found["kind"], found["tries"]) == (2, "a", "inf", 1)


def test_what_never_fell_is_back_at_once_and_what_stays_down_never() -> None:
    stays = reaction(series([8, 8, 8, 8, 4, 4], "......"))
    assert (stays["lowest"], stays["skipped"], stays["recovered"]) == (8, 0, 0)
    lost = reaction(series([8, 8, 8, 4, 4, 4], "..x..."))
    assert (lost["lowest"], lost["skipped"]) == (4, 1)
    assert pd.isna(lost["recovered"])
    hopeless = reaction(series([8, 8, 8, 4, 2], "..xxx"))
    assert hopeless["skipped"] == 3


def test_a_fault_is_followed_up_to_the_next_one() -> None:
    run = series([8, 8, 8, 4, 4, 2, 8], "..x.x..", "2:a:inf,4:b:nan")
    first, second = (reaction(run, row) for row in (0, 1))
    assert (first["lowest"], first["skipped"]) == (4, 1)
    assert pd.isna(first["recovered"])
    assert (second["layer"], second["before"], second["lowest"], second["recovered"]) == ("b", 4, 2, 2)


def test_the_last_step_has_no_after_and_a_run_that_ended_before_no_row() -> None:
    at_the_end = reaction(series([8, 8, 8], "..x"))
    assert pd.isna(at_the_end["after"])
    assert at_the_end["skipped"] == 1
    cancelled = reaction_frame([series([8, 8], "..")], ["jmp"])
    assert cancelled.empty
    assert list(cancelled.columns) == REACTION_COLUMNS
    assert reaction_finding(cancelled) == "No run came to a fault."


FALLS = series([8, 8, 8, 4, 4, 8], "..x...")
DEEP = series([2**14, 2**14, 2**14, 2**6, 2**6, 2**7], "..x...", policy="logmax")
FLAT = series([8, 8, 8, 8, 8, 8], "..x...", policy="constant:8")
TAKES = series([1, 1, 1, 1, 1, 1], "......", policy="none")


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ({"jmp": FALLS}, "the step is skipped; S falls by 2."),
        ({"logmax": DEEP}, "the step is skipped; S falls by 2⁸, and is not back at the end."),
        ({"constant:8": FLAT, "none": FLAT}, "both runs skip the step; S stays."),
        ({"none": TAKES}, "nothing overflows, and the update takes it; S stays."),
        (
            {"jmp": FALLS, "logmax": DEEP, "none": TAKES},
            "2 of 3 runs skip the step, none takes it into the weights; "
            "S falls most under logmax, by 2⁸, and is not back at the end of 1 run.",
        ),
        (
            {"a": FALLS, "b": FALLS, "none": TAKES, "c": TAKES, "d": TAKES, "e": TAKES},
            "2 of 6 runs skip the step, the others take it into the weights; "
            "S falls most under a and b, by 2.",
        ),
    ],
)
def test_the_finding_tells_who_skips_and_whose_s_falls(runs: dict[str, ReactingRun], sentence: str) -> None:
    finding = reaction_finding(reaction_frame([*runs.values()], [*runs]))
    assert finding == f"An Inf in a at step 2: {sentence}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reactions")


def test_real_runs_react_as_their_policies_say(root: Path) -> None:
    fault = {
        "task": "digits-mlp",
        "steps": 12,
        "inject": "4:layer1:inf",
        "record_every": 1,
        "reference_every": 0,
    }
    texts = ["constant:64", "gradscaler:init_scale=64,growth_interval=3", "layerwise:init_scale=64"]
    runs = [ReactingRun.of(train_run(root, policy=text, **fault)) for text in texts]
    frame = reaction_frame(runs, texts).set_index("label")
    assert frame["before"].tolist()[0] == 64
    assert (frame["skipped"] == 1).all()
    scaler = frame.loc[texts[1]]
    assert (scaler["after"], scaler["recovered"]) == (scaler["before"] / 2, 4)
    layer = frame.loc[texts[2]]  # layer1's own S: that of the loss stays
    assert layer["after"] == layer["before"] / 2
    assert runs[2].steps["loss_scale"].nunique() == 1


def test_of_a_retried_step_the_first_s_counts_and_the_tries_are_told(root: Path) -> None:
    run = train_run(
        root,
        task="digits-cnn",
        policy="gradscaler:init_scale=2^16",
        steps=4,
        on_overflow="retry",
        inject="2:conv1:huge",
        reference_every=0,
    )
    found = dict(reaction_frame([ReactingRun.of(run)], ["retry"]).iloc[0])
    assert found["before"] == 2**16
    assert found["tries"] > 1
    assert found["after"] == 2.0 ** (17 - found["tries"])
    assert found["skipped"] == 0
