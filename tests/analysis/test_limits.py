"""Which layers limit S: every step's largest gradients, and steps with faults that were put in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import lsviz
from lsviz.analysis.blame import blame_finding, cause_words
from lsviz.analysis.ceiling import Ceiling, find_ceiling
from lsviz.analysis.limits import Limits, advice, find_limits, judge_run, own_scale_finding
from lsviz.analysis.onescale import one_scale_frame
from lsviz.analysis.recommend import recommend
from lsviz.analysis.shares import layer_names
from lsviz.formats import BF16, FP16
from lsviz.runs.reader import Run
from lsviz.runs.series import OUTCOMES_SCHEMA
from lsviz.runs.store import RunStore
from tests.analysis.test_recommend import CASES, rows_of
from tests.conftest import REPOSITORY, train_run

OUTCOMES = OUTCOMES_SCHEMA.empty_table().to_pandas()


def sample(**settings: Any) -> Run:
    wanted = settings.items()
    runs = RunStore.at(REPOSITORY / "sample_runs").list_runs()
    return next(r for r in runs if all(getattr(r.config, name) == value for name, value in wanted))


def headroom_of(*largest: tuple[int, str, float]) -> pd.DataFrame:
    frame = pd.DataFrame(largest, columns=["step", "layer", "largest"])
    return frame.assign(loss_scale=1.0)


def blame_of(*rows: tuple[int, float, str, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["step", "loss_scale", "layer", "cause"])


def found_ceiling(headroom: pd.DataFrame, blame: pd.DataFrame, **more: Any) -> Ceiling | None:
    return find_ceiling(headroom, blame, OUTCOMES, FP16, computed=FP16, **more)


@pytest.mark.parametrize(
    ("task", "most", "layer"), [("sigmoid-mlp", 2.0**19, "output"), ("shapes-ssd", 2.0**13, "conv1")]
)
def test_every_part_names_the_same_largest_scale(task: str, most: float, layer: str) -> None:
    judged = judge_run(sample(task=task, policy="gradscaler"))
    rows, found, scale_map = judged.asked
    assert found.high is not None
    assert found.high > most  # recorded steps alone would allow more
    assert judged.bottleneck is not None
    assert (judged.limits.most, judged.limits.forbids) == (most, layer)
    assert found.most == judged.bottleneck.allows == judged.layer_ceilings[layer] == most
    costs = one_scale_frame(scale_map, layer_names(rows.keys), found.most, judged.layer_ceilings)
    assert set(costs["scale"]) == {most}
    assert (costs["own_scale"] <= costs["layer"].map(judged.layer_ceilings)).all()
    assert (costs["saved"] >= 0).all()
    assert f"{layer}'s largest gradient, " in found.reason  # and no other's
    assert found.best is not None
    assert found.best <= most
    skipped = judged.blame["loss_scale"]
    assert (skipped > found.best).all()
    assert found.to_dict()["ceiling_every_step"]["allows"] == most
    assert found.to_dict()["window"] == [found.low, found.high]  # of the recorded steps, as ever


@pytest.mark.parametrize(("task", "policy"), [("digits-cnn", "gradscaler"), ("shapes-ssd", "none")])
def test_where_recorded_steps_allow_as_much_the_reason_names_who_all_steps_name(
    task: str, policy: str, tmp_path: Path
) -> None:
    judged = judge_run(train_run(tmp_path, task=task, policy=policy, steps=30, record_every=10))
    assert judged.bottleneck is not None
    assert judged.found is not None
    assert judged.found.upper is not None
    whose = f"{judged.bottleneck.layer}'s largest gradient, "
    assert whose in judged.found.reason
    assert judged.limits.forbids == judged.bottleneck.layer


def test_a_fault_put_in_on_purpose_limits_nothing() -> None:
    run = sample(inject="100:conv1:huge")
    judged = judge_run(run)
    assert judged.blame["cause"].tolist() == ["injected"]
    (row,) = judged.blame.to_dict("records")
    assert cause_words(row) == "injected on purpose: 100:conv1:huge"
    words = blame_finding(judged.blame, run.config.steps)
    assert words == "1 step was skipped of 200, on purpose (100:conv1:huge); it began in conv1"
    assert judged.bottleneck is not None
    assert judged.bottleneck.step != 100
    assert judged.limits.most == judged.bottleneck.allows == 2.0**18
    assert judged.limits.left_out == 1
    assert "injected on purpose is left out" in judged.limits.note
    assert 100 in set(judged.headroom["step"])  # it is still drawn


def test_a_recorded_step_with_inf_put_in_leaves_the_recommendation_alone(tmp_path: Path) -> None:
    settings = {"task": "digits-mlp", "policy": "constant:128", "steps": 6, "record_every": 1}
    faulty = train_run(tmp_path, **settings, reference_every=1, inject="3:layer2:inf")
    judged = judge_run(faulty)
    _, found, _ = judged.asked
    assert found.best is not None
    assert "forward pass" not in found.reason
    assert not judged.limits.endless
    assert judged.recorded == 5
    assert judged.cautions[0].startswith("Only 5 recorded steps of the first 6 stand behind this")


def test_a_step_that_overflowed_lies_above_the_ceiling() -> None:
    """Also where its gradients would seem to fit, or were never seen."""
    headroom = headroom_of((0, "a", 1.0), (1, "b", 0.5))
    told = found_ceiling(headroom, blame_of((5, 2.0**10, "b", "scale"), (6, 1000.0, "b", None)))
    assert told is not None
    assert (told.allows, told.step, told.layer, told.overflowed_at) == (512.0, 6, "b", 1000.0)
    assert told.clause == "step 6 overflowed at S = 1,000, which leaves S = 512 at most"
    alone = found_ceiling(headroom.head(0), blame_of((5, 2.0**10, "b", "scale")))
    assert alone is not None
    assert alone.allows == 512.0


@pytest.mark.parametrize("cause", ["injected", "forward", "reference"])
def test_an_overflow_that_no_scale_cures_tells_nothing(cause: str) -> None:
    told = found_ceiling(headroom_of((0, "a", 1.0)), blame_of((5, 8.0, "a", cause)))
    assert told is not None
    assert (told.allows, told.overflowed_at) == (2.0**15, None)


def test_a_retried_batch_tells_the_scale_at_which_it_overflowed() -> None:
    tries = {"step": [3, 3], "loss_scale": [64.0, 32.0], "finite": [False, True], "curable": [True, None]}
    outcomes = pd.DataFrame({**tries, "layers": [None, None]})
    told = find_ceiling(headroom_of((0, "a", 1.0)), blame_of(), outcomes, FP16, computed=FP16)
    assert told is not None
    assert (told.allows, told.step) == (32.0, 3)
    # In another format that overflow tells nothing.
    other = find_ceiling(headroom_of((0, "a", 1.0)), blame_of(), outcomes, BF16, computed=FP16)
    assert other is not None
    assert other.allows == 2.0**40


def test_steps_left_out_do_not_count() -> None:
    headroom, blame = headroom_of((0, "a", 1.0), (1, "a", 64.0)), blame_of((1, 4.0, "a", "scale"))
    told = found_ceiling(headroom, blame, left_out=[1])
    assert told is not None
    assert (told.allows, told.steps) == (2.0**15, 1)
    assert found_ceiling(headroom.head(0), blame.head(0)) is None


def test_a_limit_says_so_where_not_every_step_was_seen(tmp_path: Path) -> None:
    headroom, blame = headroom_of((0, "a", 1.0), (10, "a", 2.0)), blame_of((5, 8.0, "a", "scale"))
    told = found_ceiling(headroom, blame, left_out=[7], run_steps=range(20))
    assert told is not None
    assert (told.steps, told.unseen) == (2, 16)  # of the step that overflowed its S tells
    with lsviz.record(model := nn.Linear(2, 1), tmp_path / "mine", every=5) as rec:
        for _ in range(20):
            model(torch.ones(3, 2)).sum().backward()
            rec.step()
    limits = judge_run(lsviz.open_run(rec.path)).limits
    assert (limits.every, limits.unseen) == (4, 16)
    assert "going by 4 of 20 steps, for" in limits.finding
    assert "4 of 20 steps: those of the others may be larger" in limits.note
    every = judge_run(sample(task="sigmoid-mlp", policy="gradscaler"))
    assert every.limits.unseen == 0
    assert "going by" not in every.limits.finding


@pytest.mark.parametrize("allows", [2.0**20, 2.0**14, 2.0**2, None])
def test_the_constant_is_one_that_every_step_allows(allows: float | None) -> None:
    rows = rows_of(CASES["two layers apart"])
    plain = recommend(rows)
    ceiling = Ceiling(allows, "high", 7, 0.1, None, 1000)
    found = recommend(rows, ceiling=ceiling)
    assert (found.low, found.high, found.window) == (plain.low, plain.high, plain.window)
    assert plain.low is not None
    assert plain.high is not None
    if allows is None or allows < plain.low:
        assert (found.best, found.safe) == (None, None)
        assert "no one s serves both" in found.reason.lower() or "Use BF16" in found.reason
    else:
        assert found.safe == (plain.low, min(allows, plain.high))
        assert found.best is not None
        assert plain.low <= found.best <= min(allows, plain.high)
        assert ("over all 1,000 steps" in found.reason) == (allows < plain.high)
    assert list(found.to_dict()) == [*plain.to_dict(), "ceiling_every_step"]


BOTH = {"threshold": 0.01, "low": 8.0, "needs": "low", "most": 64.0, "forbids": "top", "recorded": 25}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "S should be at least 8 for low (or it loses more than 1 % of its values to a cast) and must be "
            "at most 64 for top (or it overflows)",
        ),
        (
            {"every": 0},
            "S should be at least 8 for low (or it loses more than 1 % of its values to a cast) and must be "
            "at most 64, going by 25 recorded steps, for top (or it overflows)",
        ),
        (
            {"low": 0.5},
            "S = 1 is enough for every layer (none loses more than 1 % of its values to a cast), and S must",
        ),
        ({"low": 128.0}, "No S serves: it should be at least 128 for low (or it loses"),
        (
            {"low": None},
            "No S serves: low loses more than 1 % of its values to a cast even at S = 2⁴⁰, and it must be",
        ),
        ({"most": None}, "No S serves: top overflows at every S from 2⁻¹⁰ on"),
        (
            {"most": 0.5, "low": 2.0**-10, "needs": None},
            "S must be at most 0.5 for top (or it overflows); no",
        ),
        (
            {"most": 2.0**40},
            "S should be at least 8 for low (or it loses more than 1 % of its values to a cast), and noth",
        ),
        (
            {"censored": True, "low": None, "needs": None},
            "S must be at most 64 for top (or it overflows); how",
        ),
        ({"recorded": 0, "low": None, "needs": None}, "S must be at most 64 for top (or it overflows); how"),
        ({"endless": "a's Inf at step 3"}, "No S cures a's Inf at step 3"),
        ({"most": None, "forbids": None}, "All recorded gradients are zero, so nothing limits S"),
        ({"recorded": 0, "most": None, "forbids": None}, "Nothing tells which layer limits S"),
    ],
)
def test_both_limits_stand_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    found = Limits(**{**BOTH, "every": 1000, **changes})
    assert found.finding.startswith(words)
    assert found.to_dict()["finding"] == found.finding


def test_the_note_tells_how_many_steps_stand_behind_each_limit() -> None:
    assert Limits(**BOTH, every=1000).note == (
        "The lower limit is read from 25 recorded steps, the upper one from the largest gradients of all "
        "1,000 steps."
    )
    assert Limits(**BOTH, every=0).note == "Both limits are read from 25 recorded steps."
    assert Limits(**BOTH, every=9, left_out=2).note.endswith(
        "of 9 steps. The 2 steps at which faults were injected on purpose are left out."
    )


def test_limits_name_layers_and_not_their_weights() -> None:
    tensors = {"low.weight": CASES["two layers apart"]["low"], "high.bias": CASES["two layers apart"]["high"]}
    found = recommend(rows_of(tensors))
    limits = find_limits(found, None, {}, recorded=3)
    assert (limits.needs, limits.forbids, limits.every) == ("low", "high", 0)
    broken = recommend(rows_of({"a": [torch.tensor([1.0, math.inf])]}))
    assert "Inf or NaN at step 0" in find_limits(broken, None, {}, recorded=1).finding


def test_a_run_that_lost_much_says_that_its_answer_may_not_last() -> None:
    (caution,) = judge_run(sample(task="sigmoid-mlp", policy="none", precision="fp16")).cautions
    assert "This run lost 100 % of layer1's gradient" in caution
    assert "run it once more with S = 2¹⁷" in caution
    assert not judge_run(sample(task="sigmoid-mlp", policy="gradscaler")).cautions


@pytest.mark.parametrize(
    ("settings", "scale", "words"),
    [
        ({"policy": "gradscaler"}, 2.0**16, "Keep gradscaler: its S = 2¹⁶ serves all layers of this run"),
        ({"policy": "constant:1024"}, None, "Use S = 2¹⁶: it would serve all layers of this run"),
        ({"policy": "none", "precision": "fp16"}, None, "Use S = "),
        ({"precision": "fp32"}, None, "Use S = "),
    ],
)
def test_an_s_that_serves_is_to_be_kept(settings: dict[str, Any], scale: float | None, words: str) -> None:
    run = sample(task="sigmoid-mlp", **settings)
    judged = judge_run(run)
    assert judged.keeps == scale
    assert advice(run.config, judged).startswith(words)
    assert judge_run(run, BF16).keeps is None, "it says nothing of a format that it did not compute in"


def test_a_run_without_gradients_has_no_limits(tmp_path: Path) -> None:
    run = train_run(tmp_path, task="digits-mlp", policy="none", steps=2, record_every=0, reference_every=0)
    judged = judge_run(run, must_ask=False)
    assert judged.rows is None
    assert (judged.limits.finding, judged.limits.note) == ("Nothing tells which layer limits S", "")


def test_a_run_that_skipped_most_steps_says_so(tmp_path: Path) -> None:
    settings = {"task": "digits-mlp", "policy": "constant:2^30", "steps": 3, "record_every": 1}
    judged = judge_run(train_run(tmp_path, **settings, reference_every=1))
    assert judged.limits.most == 2.0**19  # by the references
    assert judged.cautions[-1].startswith("This run skipped 3 of 3 steps, so it may not have learned")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy": "none", "precision": "fp16"}, "Its own S = 1 loses 100 % of layer1's values to a cast."),
        (
            {"policy": "constant:1024"},
            "Its own S = 1,024 loses just over 1 % of layer5's values to a cast: that alone need not harm "
            "training.",
        ),
        ({"policy": "gradscaler"}, ""),
        ({"precision": "fp32"}, ""),
    ],
)
def test_what_the_runs_own_s_lost_is_told(settings: dict[str, Any], words: str) -> None:
    run = sample(task="sigmoid-mlp", **settings)
    assert own_scale_finding(run.config, judge_run(run)) == words


def test_an_own_s_that_is_too_large_is_told(tmp_path: Path) -> None:
    settings = {"task": "digits-mlp", "policy": "constant:2^30", "steps": 3, "record_every": 1}
    run = train_run(tmp_path, **settings, reference_every=1)
    assert own_scale_finding(run.config, judge_run(run)) == "Its own S = 2³⁰ is too large: output overflows."


def test_an_s_at_the_end_of_its_window_just_serves_and_leaves_the_most_room() -> None:
    run = sample(task="image-fit", policy="constant:16384")
    judged = judge_run(run)
    _, found, _ = judged.asked
    assert judged.keeps == judged.limits.low == 2.0**14
    assert advice(run.config, judged) == "Keep S = 2¹⁴: it just serves all layers of this run"
    assert found.room_at(2.0**14) == "S = 2¹⁴ leaves 12 binades free."
    assert found.reason == f"{found.grounds} {found.room_at(found.best or 0)}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy": "gradscaler"}, "output limits S: 2¹⁹ at most"),
        ({"policy": "gradscaler", "task": "shapes-ssd"}, "conv1 limits S: 8,192 at most"),
        (
            {"policy": "none", "task": "shapes-ssd", "loss_weight": 2.0**-14},
            "No S serves: classes_coarse loses",
        ),
    ],
)
def test_the_headline_names_who_limits_s(settings: dict[str, Any], words: str) -> None:
    limits = judge_run(sample(**{"task": "sigmoid-mlp", **settings})).limits
    assert limits.headline.startswith(words)
