"""The Reproduce page: shipped results, one's own, none, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsviz.runs.reproduction import load_reproduction
from lsviz.ui.reproducing import FIGURE_3
from tests.conftest import SAMPLES
from tests.ui.opening import charts, open_page, words


@pytest.mark.usefixtures("runs_root")
def test_it_opens_on_the_shipped_results() -> None:
    app = open_page("reproduce")
    assert "need no loss scaling" in app.header[0].value
    table = app.table[0].value
    assert "fails" in table.loc["sigmoid-mlp: accuracy", "Finding"]
    assert "76.9" in table.loc["sigmoid-mlp: accuracy", "The paper's"]
    assert charts(app) == 2
    assert "falls behind late" in words(app)
    assert "about as FP32 does" in words(app)
    assert len(app.get("image")) >= 4


@pytest.mark.usefixtures("runs_root")
def test_the_gradients_over_a_training_are_the_other_picture() -> None:
    app = open_page("reproduce", picture=FIGURE_3)
    assert "non-zero values lie below FP16's range" in words(app)
    assert charts(app) == 2


@pytest.mark.usefixtures("runs_root")
def test_every_experiment_can_be_drawn() -> None:
    app = open_page("reproduce")
    document = load_reproduction(SAMPLES / "reproduce.json")
    assert document is not None
    for name in dict.fromkeys(r.experiment for r in document.results):
        app.selectbox(key="experiment").set_value(name).run()
        assert not app.exception
        assert charts(app) == 2


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize(
    "query",
    [
        {"experiment": "<b>"},
        {"rescue": "7", "picture": FIGURE_3},
        {"rescue": "x", "picture": FIGURE_3},
        {"picture": "x"},
    ],
)
def test_it_survives_a_strange_url(query: dict[str, str]) -> None:
    assert charts(open_page("reproduce", **query)) == 2


@pytest.mark.usefixtures("no_samples")
def test_without_results_it_says_what_to_do(runs_root: Path) -> None:
    app = open_page("reproduce")
    assert "No results yet" in words(app)
    assert "lsviz reproduce" in words(app)
    assert not runs_root.exists()


def test_ones_own_results_come_first(runs_root: Path) -> None:
    folder = runs_root / "reproduce"
    folder.mkdir(parents=True)
    document = json.loads((SAMPLES / "reproduce.json").read_text())
    document["machine"]["cpu"] = "<b>My</b> processor"
    document["results"] = [r for r in document["results"] if r["experiment"] == "digits-cnn"]
    (folder / "reproduce.json").write_text(json.dumps(document))
    app = open_page("reproduce")
    assert app.header[0].value == "1 of 1 experiments need no loss scaling."
    assert "\\<b>My\\</b> processor" in words(app)


def test_results_of_unknown_experiments_break_nothing(runs_root: Path) -> None:
    folder = runs_root / "reproduce"
    folder.mkdir(parents=True)
    document = json.loads((SAMPLES / "reproduce.json").read_text())
    for row in document["results"]:
        row |= {"experiment": "another", "task": "gone"}
    (folder / "reproduce.json").write_text(json.dumps(document))
    assert "None of these results" in words(open_page("reproduce"))
    (folder / "reproduce.json").write_text(json.dumps({**document, "results": [], "curve": []}))
    assert "Nothing was trained yet." in words(open_page("reproduce"))


def test_broken_results_are_told_and_the_shipped_ones_shown(runs_root: Path) -> None:
    folder = runs_root / "reproduce"
    folder.mkdir(parents=True)
    (folder / "reproduce.json").write_text("{")
    app = open_page("reproduce")
    assert "holds no result" in app.warning[0].value
    assert charts(app) == 2


@pytest.mark.usefixtures("runs_root")
def test_explore_has_a_setting_for_every_pair_of_samples() -> None:
    app = open_page("explore")
    names = app.selectbox(key="setting").options
    assert names[0] == "sigmoid-mlp"
    assert "shapes-ssd, loss x 2^-14" in names
    for name in names:
        app.selectbox(key="setting").set_value(name).run()
        assert not app.exception
        assert charts(app) == 1
        assert name.partition(",")[0] in words(app)


@pytest.mark.usefixtures("runs_root")
def test_explore_shows_the_pictures_that_were_learned() -> None:
    assert not open_page("explore").get("image")
    app = open_page("explore", setting="image-fit, loss x 2^-8")
    assert len(app.get("image")) == 3  # the original, and one a run
