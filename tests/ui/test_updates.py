"""The Updates page: the shipped lab, one's own, none, and a broken one."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from lsviz import cli
from lsviz.analysis.lab import lab_finding
from lsviz.jobs import queue
from lsviz.runs.config import RunConfig
from lsviz.runs.lab import Lab, load_lab
from lsviz.runs.reader import Run
from lsviz.training.lab import LabSettings, planned_variants
from lsviz.ui.updating import launch_query, variant_command
from tests.conftest import SAMPLES, train_run
from tests.ui.opening import charts, open_page, words


def shipped() -> Lab:
    document = load_lab(SAMPLES / "lab.json")
    assert document is not None
    return document


def test_the_shipped_lab_is_that_of_this_version() -> None:
    plan = {variant.name: config for variant, config in planned_variants(LabSettings())}
    document = shipped()
    assert [result.name for result in document.variants] == list(plan)
    assert not any(result.error for result in document.variants)
    for variant, _ in planned_variants(LabSettings()):
        (result,) = [r for r in document.variants if r.name == variant.name]
        assert (result.shows, result.settings) == (variant.shows, dict(variant.settings))


@pytest.mark.usefixtures("runs_root")
def test_it_opens_on_the_shipped_lab() -> None:
    app = open_page("updates")
    document = shipped()
    assert app.header[0].value == lab_finding(document)
    table = app.table[0].value
    assert list(table.index) == [r.name.replace(" ", "\u00a0") for r in document.variants]
    assert "1,024 times too small" in table.loc["fold-lr\u00a0(Adam)", "Verdict"]
    assert charts(app) == 2
    assert "Updates that leave their weight as it was" in words(app)


@pytest.mark.usefixtures("runs_root")
def test_a_link_tells_of_one_variant() -> None:
    app = open_page("updates", rule="clip before")
    assert app.selectbox(key="rule").value == "clip before"
    said = words(app)
    assert "it is S times too strict" in said
    assert "--clip 0.5 --clip-order before --check-update" in said
    app.selectbox(key="rule").set_value("FP16 weights").run()
    assert not app.exception
    assert "--no-master-weights" in words(app)


@pytest.mark.usefixtures("runs_root")
def test_a_link_to_launch_asks_for_the_same_run() -> None:
    plan = {variant.name: config for variant, config in planned_variants(LabSettings())}
    document = shipped()
    for result in document.variants:
        query = launch_query(document, result)
        app = open_page("launch", **query)
        shown = {key: app.session_state[key] for key in query if key in app.session_state}
        expected = plan[result.name].model_dump()
        assert shown["check_update"] is True
        for key, value in shown.items():
            if key != "policy":
                assert value == expected[key], (result.name, key)
        assert set(result.settings) <= set(shown)


def test_a_command_makes_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunConfig] = []

    class StopError(Exception):
        pass

    def note(root: Path, config: RunConfig, **more: object) -> Run:
        asked.append(config)
        raise StopError

    monkeypatch.setattr(queue, "enqueue", note)
    monkeypatch.setenv("LSVIZ_DEBUG", "1")
    plan = {variant.name: config for variant, config in planned_variants(LabSettings())}
    document = shipped()
    for result in document.variants:
        with pytest.raises(StopError):
            cli.main(shlex.split(variant_command(document, result))[1:])
        recording = {"record_every": 10, "reference_every": 10}
        assert asked[-1] == plan[result.name].model_copy(update=recording)


def test_launch_tells_what_a_checked_run_came_to(runs_root: Path) -> None:
    settings = {"task": "digits-mlp", "policy": "constant:8", "optimizer": "sgd", "steps": 6}
    run = train_run(runs_root, **settings, update="none", check_update=True, record_every=0)
    app = open_page("launch", run=run.run_id)
    assert "Its weight updates beside float64: its steps are 8 times too large" in words(app)
    plain = train_run(runs_root, **settings, record_every=0)
    assert "beside float64" not in words(open_page("launch", run=plain.run_id))


@pytest.mark.usefixtures("runs_root")
def test_it_survives_a_strange_url() -> None:
    assert charts(open_page("updates", rule="<b>")) == 2


@pytest.mark.usefixtures("no_samples")
def test_without_a_lab_it_says_how_to_make_one(runs_root: Path) -> None:
    app = open_page("updates")
    assert "No updates compared yet" in words(app)
    assert "lsviz lab --task" in words(app)
    assert not runs_root.exists()


def write_own(runs_root: Path, document: dict[str, object]) -> None:
    folder = runs_root / "lab"
    folder.mkdir(parents=True)
    (folder / "lab.json").write_text(json.dumps(document))


def test_ones_own_lab_comes_first_and_means_nothing_to_the_page(runs_root: Path) -> None:
    document = json.loads((SAMPLES / "lab.json").read_text())
    document |= {"task": "<b>mine</b>", "variants": document["variants"][:2]}
    document["variants"][0] |= {"name": "<i>a</i>", "error": "gone", "weight_error": None, "curve": []}
    write_own(runs_root, document)
    app = open_page("updates")
    assert app.header[0].value == "1 of 1 ways to update the weights ends where float64 does."
    assert "\\<b>mine\\</b>" in words(app)
    assert app.table[0].value.loc["\\<i>a\\</i>", "Verdict"] == "gone"
    assert charts(app) == 1


def test_an_empty_lab_breaks_nothing(runs_root: Path) -> None:
    document = json.loads((SAMPLES / "lab.json").read_text())
    write_own(runs_root, {**document, "variants": []})
    assert "Nothing can be told" in words(open_page("updates"))


def test_a_broken_lab_is_told_and_the_shipped_one_shown(runs_root: Path) -> None:
    folder = runs_root / "lab"
    folder.mkdir(parents=True)
    (folder / "lab.json").write_text("{")
    app = open_page("updates")
    assert "holds no result" in app.warning[0].value
    assert charts(app) == 2
