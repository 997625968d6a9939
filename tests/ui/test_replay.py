"""The pages Replay and Blame."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsviz.analysis.blame import blame_finding, blame_frame
from lsviz.analysis.replay import replay
from lsviz.analysis.series import load_series
from lsviz.policies import parse_policy
from lsviz.runs.reader import open_run
from tests.analysis.test_limits import sample
from tests.conftest import train_run
from tests.ui.opening import charts, open_page, words

POLICY = "gradscaler:init_scale=2^22,growth_interval=5"


@pytest.fixture
def run_id(runs_root: Path, no_samples: None) -> str:
    return train_run(runs_root, task="digits-mlp", policy=POLICY, steps=25).run_id


def test_replay_shows_what_the_function_tells(run_id: str, runs_root: Path) -> None:
    app = open_page("replay", seen=run_id, replayed="patent;constant:2^21")
    series = load_series(open_run(runs_root / run_id))
    table = app.table[0].value
    policies = ["patent", "constant:2097152"]
    assert [text.replace("\\", "") for text in table["policy"]] == policies
    for text, row in zip(policies, table.to_dict("records"), strict=True):
        done = replay(parse_policy(text), series)
        assert row["steps skipped"] == str(len(done.skipped))
        assert row["exact until step"] == str(done.exact_until)
    assert f"The run skipped {int(series.skipped.sum())} step" in words(app)
    assert charts(app) == 2


def test_replay_takes_other_policies_and_tells_what_is_none(run_id: str) -> None:
    app = open_page("replay", seen=run_id, replayed="none;nonsense:1")
    assert "unknown policy" in words(app)
    assert app.table[0].value["policy"].tolist() == ["none"]
    app.multiselect(key="replay.policies").set_value(["none", "megatron"]).run()
    assert not app.exception
    assert app.query_params["replayed"] == "none;megatron"
    assert app.table[0].value["policy"].tolist() == ["none", "megatron"]


def test_replay_without_policies_shows_the_recorded_line(run_id: str) -> None:
    app = open_page("replay", seen=run_id)
    app.multiselect(key="replay.policies").set_value([]).run()
    assert not app.exception
    assert "what would other policies have done?" in words(app)
    assert charts(app) == 2  # S, and the updates that the run itself threw away


def test_blame_names_the_layer(run_id: str, runs_root: Path) -> None:
    run = open_run(runs_root / run_id)
    found = blame_frame(run.steps(), run.outcomes(), run.amax(), precision="fp16")
    app = open_page("blame", seen=run_id)
    assert blame_finding(found, 25) in words(app)
    assert app.table[0].value["step"].tolist() == [str(step) for step in found["step"]]
    assert "training examples" in words(app)
    assert "One S serves all layers" in words(app)
    assert charts(app) == 1


def test_a_scale_per_layer_is_offered_where_it_helps(runs_root: Path, no_samples: None) -> None:
    run = train_run(runs_root, task="sigmoid-mlp", policy="none", steps=11, init_gain=2.0**-6)
    app = open_page("blame", seen=run.run_id)
    assert "A scale per layer would help" in words(app)
    assert charts(app) == 2


def test_blame_and_what_if_name_the_same_limits(runs_root: Path) -> None:
    run = sample(task="shapes-ssd", policy="gradscaler")
    words_of = {
        page: words(open_page(page, seen=run.run_id)).replace("\\", "") for page in ("blame", "whatif")
    }
    limits = (
        "S should be at least 4 for classes_coarse (or it loses more than 1 % of its values to a cast) and "
        "must be at most 8,192 for conv1 (or it overflows)"
    )
    for said in words_of.values():
        assert f"**{limits}.**" in said
    assert "S was too large each time." in words_of["blame"]
    assert "S = 8,192, which conv1 allows" in words_of["blame"]


def test_a_fault_put_in_on_purpose_is_told_as_one(runs_root: Path) -> None:
    run = sample(inject="100:conv1:huge")
    app = open_page("blame", seen=run.run_id)
    assert "on purpose (100:conv1:huge)" in words(app).replace("\\", "")
    table = app.table[0].value
    why = [text.replace("\\", "").replace("\u2060", "") for text in table["why"]]
    assert why == ["injected on purpose: 100:conv1:huge"]


@pytest.mark.parametrize("page", ["replay", "blame"])
def test_a_run_without_gradients_is_no_error(page: str, runs_root: Path, no_samples: None) -> None:
    run = train_run(
        runs_root, task="digits-mlp", policy="gradscaler", steps=5, record_every=0, reference_every=0
    )
    app = open_page(page, seen=run.run_id)
    assert charts(app) == (1 if page == "replay" else 0)
    if page == "blame":
        assert "kept no largest gradients" in words(app)


@pytest.mark.parametrize("page", ["replay", "blame"])
def test_without_any_run_it_says_how_to_get_one(page: str, runs_root: Path, no_samples: None) -> None:
    app = open_page(page)
    assert "No run to" in words(app)
    assert charts(app) == 0


def test_the_headline_says_from_where_on_it_guesses() -> None:
    app = open_page("replay")
    header = app.header[0].value
    assert "patent would skip 28 steps (a guess from step 61 on), histogram no step" in header
