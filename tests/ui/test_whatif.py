"""The What-if page."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsviz.analysis.compare import run_label
from lsviz.analysis.findings import format_percent
from lsviz.analysis.limits import judge_run
from lsviz.analysis.whatif import load_histograms, whatif_frame
from lsviz.formats import E5M2, FP16, FloatFormat
from lsviz.policies import parse_number
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import REPOSITORY, train_run
from tests.runs.test_folder import CONFIG
from tests.ui.opening import PAGES, charts, open_page, words

SAMPLES = REPOSITORY / "sample_runs"


@pytest.mark.parametrize("shown", ["FP16", "E5M2"])
def test_what_was_really_flushed_is_offered_where_it_is_known(shown: str, runs_root: Path) -> None:
    run = next(r for r in RunStore.at(SAMPLES).list_runs() if r.config.task == "char-gpt")
    app = open_page("whatif", seen=run.run_id, format=shown, closer="predicted and actual")
    known = shown == "FP16"  # the run computed in FP16 alone
    assert ("what one cast of" in words(app)) == known
    assert ("hatched: some value becomes Inf" in words(app)) != known
    assert charts(app) == 2


@pytest.mark.parametrize(("shown", "fmt"), [("FP16", FP16), ("E5M2", E5M2)])
def test_a_link_shows_what_the_command_tells(shown: str, fmt: FloatFormat, runs_root: Path) -> None:
    run = next(r for r in RunStore.at(SAMPLES).list_runs() if r.config.task == "char-gpt")
    app = open_page("whatif", seen=run.run_id, format=shown)
    _, found, _ = judge_run(run, fmt).asked
    said = words(app).replace("\\", "")
    assert found.headline in said
    assert found.reason in said
    assert charts(app) == 2
    assert ("lsviz run --task char-gpt --policy" in said) == (fmt is FP16 and found.policy is not None)
    assert app.selectbox(key="seen").value == run.run_id


@pytest.mark.parametrize("shown", ["BF16", "E5M2"])
def test_another_format_is_held_against_the_one_that_the_run_computed_in(shown: str, runs_root: Path) -> None:
    runs = (r for r in RunStore.at(SAMPLES).list_runs() if r.config.task == "sigmoid-mlp")
    run = next(r for r in runs if run_label(r.config) == "no scaling")
    app = open_page("whatif", seen=run.run_id, format=shown)
    assert app.header[0].value.startswith(f"{shown} would ")
    assert ("--precision bf16" in words(app)) == (shown == "BF16")  # nothing computes in FP8 here
    assert ("lsviz run" in words(app)) == (shown == "BF16")
    assert ("Nothing trains in E5M2 here" in words(app)) == (shown == "E5M2")
    assert charts(app) == (1 if shown == "BF16" else 2)
    assert ("there is nothing to draw" in words(app)) == (shown == "BF16")
    assert ("a real E5M2 backward pass" in words(app)) == (shown == "E5M2")
    assert "This run lost 100 % of layer1's gradient" in words(app)


def test_the_s_asked_for_follows_the_recommendation_until_it_is_edited(runs_root: Path) -> None:
    runs = RunStore.at(SAMPLES).list_runs()
    first, second = (next(r for r in runs if r.config.task == task) for task in ("char-gpt", "shapes-ssd"))
    judged = [judge_run(run) for run in (first, second)]
    assert [one.keeps is None for one in judged] == [True, False], "the second one's own S serves"
    best = [one.keeps or one.asked[1].best for one in judged]
    assert best[0] != best[1]
    app = open_page("whatif", seen=first.run_id)
    assert not app.text_input
    assert not app.dataframe
    app.session_state["every_tensor"] = True
    app.run()
    assert parse_number(app.text_input(key="ask").value) == best[0]
    app.selectbox(key="seen").set_value(second.run_id).run()
    assert parse_number(app.text_input(key="ask").value) == best[1]
    app.text_input(key="ask").set_value("32").run()
    app.selectbox(key="seen").set_value(first.run_id).run()
    assert not app.exception
    assert app.text_input(key="ask").value == "32"
    for shown in (False, True):
        app.session_state["every_tensor"] = shown
        app.run()
    assert app.text_input(key="ask").value == "32"


@pytest.mark.parametrize(
    ("policy", "first", "offers"),
    [
        ("gradscaler", "Keep gradscaler: its S = 2¹⁶ serves all layers of this run", False),
        ("constant:1024", "Use S = 2¹⁶: it would serve all layers of this run", True),
    ],
)
def test_an_s_that_serves_is_to_be_kept(policy: str, first: str, offers: bool, runs_root: Path) -> None:
    runs = (r for r in RunStore.at(SAMPLES).list_runs() if r.config.task == "sigmoid-mlp")
    run = next(r for r in runs if r.config.policy == policy)
    found = judge_run(run).asked[1]
    assert found.serves(float(run.steps()["loss_scale"].iloc[-1])) != offers
    app = open_page("whatif", seen=run.run_id)
    assert app.header[0].value == first
    assert ("lsviz run" in words(app)) == offers
    assert words(app).replace("\\", "").count(f"sigmoid-mlp, {policy}: ") == 1


def test_a_link_to_fp16_is_followed_after_another_format(runs_root: Path) -> None:
    app = open_page("whatif", format="BF16")
    assert app.segmented_control(key="format").value == "BF16"
    app.switch_page(PAGES["policies"]).run()
    app.query_params["format"] = "FP16"
    app.switch_page(PAGES["whatif"]).run()
    assert app.segmented_control(key="format").value == "FP16"
    app.segmented_control(key="format").set_value("E5M2").run()
    assert app.segmented_control(key="format").value == "E5M2"


def test_another_run_can_be_chosen(runs_root: Path) -> None:
    app = open_page("whatif")
    first = words(app)
    other = app.selectbox(key="seen").options[-1]
    app.selectbox(key="seen").select_index(len(app.selectbox(key="seen").options) - 1).run()
    assert not app.exception
    assert app.query_params["seen"] == app.selectbox(key="seen").value
    chosen = RunStore.at(SAMPLES).find(app.selectbox(key="seen").value).config
    assert other.startswith(f"{chosen.task} · {run_label(chosen)}")
    assert words(app) != first


@pytest.mark.parametrize(("asked", "exact"), [("2^6", True), ("1000", False)])
def test_any_s_can_be_asked_for_and_comes_with_bounds(asked: str, exact: bool, runs_root: Path) -> None:
    run = next(r for r in RunStore.at(SAMPLES).list_runs() if r.config.policy == "none")
    app = open_page("whatif", seen=run.run_id, ask=asked)
    table = app.dataframe[0].value
    rows = load_histograms(run).pooled()
    frame = whatif_frame(rows, [float(parse_number(asked))], FP16)
    assert table["tensor"].tolist() == frame["tensor"].tolist()
    assert bool(frame["exact"].all()) == exact
    for told, row in zip(table["flushed"], frame.to_dict("records"), strict=True):
        low, high = (format_percent(row[f"flushed_{end}"]) for end in ("low", "high"))
        assert told == (low if low == high else f"{low} to {high}")
    assert table["flushed"].str.contains(" to ").any() != exact
    assert ("Bounds:" in words(app)) != exact


@pytest.mark.parametrize(
    ("asked", "reason"), [("many", "is no number such as 1000"), ("2^50", "from 2^-10 to 2^40")]
)
def test_an_s_that_is_none_is_told(asked: str, reason: str, runs_root: Path) -> None:
    app = open_page("whatif", ask=asked)
    assert reason in words(app).replace("\\", "")
    assert charts(app) == 2


def test_an_unknown_run_in_the_link_is_told(runs_root: Path) -> None:
    app = open_page("whatif", seen="../../etc")
    assert "The link asks for a run that is not here" in words(app)
    assert charts(app) == 2


def test_without_any_run_it_says_how_to_get_one(runs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSVIZ_SAMPLES", str(runs_root / "none"))
    app = open_page("whatif")
    assert "No run to ask yet" in words(app)


def test_a_censored_run_is_shown_with_a_word_of_caution(runs_root: Path, no_samples: None) -> None:
    run = train_run(runs_root, task="sigmoid-mlp", policy="none", steps=3, record_every=1, reference_every=0)
    app = open_page("whatif", seen=run.run_id)
    assert "no FP32 reference" in words(app)
    assert "Only 3 recorded steps of the first 3 stand behind this" in words(app)
    assert "how small it may be only an FP32 reference tells" in words(app)
    assert "no other S brings them back" in words(app)
    assert charts(app) == 2
    with_reference = train_run(runs_root, task="sigmoid-mlp", policy="none", steps=3)
    assert "no FP32 reference" not in words(open_page("whatif", seen=with_reference.run_id))


def test_a_run_without_gradients_is_told(runs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSVIZ_SAMPLES", str(runs_root / "none"))
    with RunWriter(create_run(runs_root, CONFIG.model_copy(update={"reference_every": 0}))):
        pass
    app = open_page("whatif")
    assert "Nothing can be told of this run" in words(app)
    assert "--reference-every" in words(app)
    assert charts(app) == 0
