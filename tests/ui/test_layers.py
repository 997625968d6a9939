"""The Layers page."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import lsviz
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import SAMPLES, train_run
from tests.runs.test_folder import CONFIG
from tests.ui.opening import charts, open_page, words


def sample(policy: str) -> str:
    runs = RunStore.at(SAMPLES).list_runs()
    return next(r.run_id for r in runs if (r.config.task, r.config.policy) == ("sigmoid-mlp", policy))


def test_a_link_shows_its_runs_step_layer_and_finding(runs_root: Path) -> None:
    pair = f"{sample('none')},{sample('constant:1024')}"
    app = open_page("layers", runs=pair, step="40", layer="layer3")
    assert charts(app) == 2
    assert app.select_slider(key="step").value == 40
    assert app.selectbox(key="layer").value == "layer3"
    assert "With S = 1,024, no layer loses more than" in words(app)
    titles = [json.loads(chart.proto.spec)["layout"] for chart in app.get("plotly_chart")]
    assert {"xaxis", "xaxis2"} <= set(titles[0])
    app.selectbox(key="layer").select("layer1").run()
    assert not app.exception
    frames, lines = (json.loads(part.proto.json)["shapes"] for part in app.get("bidi_component"))
    assert [(s["y0"], s["y1"]) for s in frames] == [(-0.5, 0.5)] * 2, "the row chosen is framed in both"
    assert [s["x0"] for s in lines] == [40, 40], "and the history marks the step"


def test_a_step_that_is_not_recorded_becomes_the_nearest_and_buttons_go_on(runs_root: Path) -> None:
    app = open_page("layers", runs=sample("none"), step="55")
    assert app.select_slider(key="step").value == 40
    history = app.get("plotly_chart")[1].proto.id
    app.button(key="step_on").click().run()
    assert app.select_slider(key="step").value == 80
    assert "Step 80." in words(app)
    assert app.get("plotly_chart")[1].proto.id == history, "a browser need not draw it anew"
    app.button(key="step_back").click().run()
    app.button(key="step_back").click().run()
    assert app.select_slider(key="step").value == 0
    assert app.button(key="step_back").disabled


def _map(app: object) -> dict:  # type: ignore[type-arg]
    layout: dict = json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]  # type: ignore[type-arg, attr-defined]
    return layout


def test_weights_and_recorded_values_can_be_asked_for_and_filtered(runs_root: Path) -> None:
    app = open_page(
        "layers", runs=sample("constant:1024"), kind="weights", values="recorded", layers="layer1, output"
    )
    names = app.selectbox(key="layer").options
    assert names == ["layer1.weight", "layer1.bias", "output.weight", "output.bias"]
    assert sorted(_map(app)["yaxis"]["ticktext"]) == sorted(names)
    app.text_input(key="layers").set_value("nowhere").run()
    assert "No weight here is named like 'nowhere'" in words(app).replace("\\", "")
    assert charts(app) == 0


def test_unknown_runs_and_layers_in_the_link_are_told(runs_root: Path) -> None:
    app = open_page("layers", runs=f"../../etc,{sample('none')}", layer="nothing")
    assert "The link asks for a run that is not here" in words(app)
    assert "There is no such layer among these" in words(app)
    assert charts(app) == 2


def test_without_a_reference_what_was_recorded_is_shown(runs_root: Path, no_samples: None) -> None:
    train_run(runs_root, task="sigmoid-mlp", policy="none", steps=3, record_every=1, reference_every=0)
    app = open_page("layers")
    assert charts(app) == 2
    assert "without an FP32 reference nobody can tell" in words(app)


def test_marks_that_turn_text_are_left_out_of_the_list_of_layers(runs_root: Path, no_samples: None) -> None:
    model = torch.nn.Sequential(
        OrderedDict([("a\u202eb", torch.nn.Linear(2, 2)), ("c", torch.nn.Linear(2, 1))])
    )
    with lsviz.record(model, runs_root / "own") as rec:
        loss = model(torch.ones(3, 2)).sum()
        loss.backward()
        rec.step(loss)
    app = open_page("layers")
    box = app.selectbox(key="layer")
    assert box.options == ["ab", "c"]
    box.select("ab").run()
    assert not app.exception
    assert app.selectbox(key="layer").value == "a\u202eb"


def test_a_run_without_gradients_is_told(runs_root: Path, no_samples: None) -> None:
    with RunWriter(create_run(runs_root, CONFIG)):
        pass
    app = open_page("layers")
    assert "no gradients were recorded in this run" in words(app)
    assert charts(app) == 0


def test_without_any_run_it_says_how_to_get_one(runs_root: Path, no_samples: None) -> None:
    assert "No layers to show yet" in words(open_page("layers"))


@pytest.mark.parametrize("page", ["compare", "explore"])
def test_other_pages_lead_to_it(page: str, runs_root: Path) -> None:
    links = [link.proto.label for link in open_page(page).get("page_link")]
    assert "See all exponents as a map" in links
