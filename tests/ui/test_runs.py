"""The Runs page."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from lsviz.jobs import exporting
from lsviz.runs.bundle import export_bundle
from lsviz.runs.exchange import export_zip
from lsviz.runs.labelling import pin_run, set_labels
from lsviz.runs.labels import Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from lsviz.ui import running
from lsviz.ui.comparing import baseline_of
from tests.conftest import SAMPLES
from tests.runs.test_store import CONFIG
from tests.ui.opening import open_page, words

RAW = "**bold** [x](https://example.org) :red[y]"


@pytest.fixture
def own(runs_root: Path) -> list[Run]:
    """Copies of three samples, newest first."""
    runs_root.mkdir()
    for run in RunStore.at(SAMPLES).list_runs()[:3]:
        shutil.copytree(run.path, runs_root / run.run_id)
    return RunStore.at(runs_root).list_runs()


def labels(app: object) -> set[str]:
    return {button.label for button in app.button}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("runs_root", "no_samples")
def test_without_runs_it_says_what_belongs_here() -> None:
    app = open_page("runs")
    assert "No runs yet" in words(app)
    assert app.get("file_uploader")


@pytest.mark.usefixtures("no_samples")
def test_every_run_is_listed_and_a_search_narrows_it(own: list[Run]) -> None:
    set_labels(own[1], Labels.build(name="My try", tags=["class"]))
    app = open_page("runs")
    assert app.dataframe[0].value["run_id"].tolist() == [run.run_id for run in own]
    for asked in ("my TRY", "class", "constant:1024 finished", own[1].run_id):
        found = open_page("runs", search=asked).dataframe[0].value
        assert found["run_id"].tolist() == [own[1].run_id], asked
    app = open_page("runs", search="<b>nothing</b> *x*")
    assert "No run holds all of “<b>nothing</b> *x*”" in words(app).replace("\\", "")
    assert not app.dataframe


@pytest.mark.usefixtures("no_samples")
def test_ticked_runs_in_the_address_can_be_acted_on(own: list[Run]) -> None:
    set_labels(own[0], Labels.build(name=RAW))
    app = open_page("runs", marked=own[0].run_id)
    assert {"Name and tags", "Pin as baseline", "Delete"} <= labels(app)
    assert RAW in words(app).replace("\\", "")
    assert "**bold**" not in words(app)  # its marks are escaped
    assert {link.proto.label for link in app.get("page_link")} == {"What-if", "Blame", "Replay", "Layers"}
    app = open_page("runs", marked=f"{own[0].run_id},{own[1].run_id},../../etc")
    assert "2 runs ticked" in words(app)
    assert {link.proto.label for link in app.get("page_link")} == {"Compare", "Layers"}
    assert "2 runs, as a zip to import elsewhere" in {b.proto.label for b in app.get("download_button")}
    assert "Name and tags" not in labels(app)


def downloads(app: object) -> dict[str, str]:
    return {button.proto.id.split("-")[-1]: button.proto.label for button in app.get("download_button")}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_samples")
def test_exports_for_other_dashboards_are_offered_where_their_packages_are(
    own: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = f"{own[0].run_id},{own[1].run_id}"
    assert {"Event file, for TensorBoard", "An offline run, for W&B"} <= set(
        downloads(open_page("runs", marked=own[0].run_id)).values()
    )
    monkeypatch.setenv("LSVIZ_READ_ONLY", "1")  # an export changes nothing
    told = downloads(open_page("runs", marked=both))
    assert (told["export_tensorboard"], told["export_wandb"]) == (
        "Event files, for TensorBoard",
        "Offline runs, for W&B",
    )
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    assert not {"export_wandb"} & downloads(open_page("runs", marked=both)).keys()
    assert "export_tensorboard" in downloads(open_page("runs", marked=both))
    monkeypatch.setattr(running, "MAX_DASHBOARD_RUNS", 1)
    assert "export_tensorboard" not in downloads(open_page("runs", marked=both))


@pytest.mark.usefixtures("no_samples")
def test_a_run_is_pinned_named_and_deleted(own: list[Run]) -> None:
    app = open_page("runs", marked=own[0].run_id)
    app.button(key="pin_run").click().run()
    assert own[0].labels.pinned
    app = open_page("runs", marked=own[0].run_id)
    app.button(key="label_run").click().run()
    app.text_input(key=f"name-{own[0].run_id}").set_value("  The one ")
    app.button(key="label_run").click()  # a dialog of its own in a browser; here the page runs as a whole
    app.button(key="save_labels").click().run()
    assert own[0].labels == Labels.build(name="The one", pinned=True)
    app = open_page("runs", marked=own[0].run_id)
    app.button(key="delete_runs").click().run()
    assert own[0].path.exists(), "it asks first"
    app.button(key="delete_runs").click()
    app.button(key="delete_for_good").click().run()
    assert not app.exception
    assert not own[0].path.exists()
    assert app.dataframe[0].value["run_id"].tolist() == [run.run_id for run in own[1:]]


@pytest.mark.usefixtures("no_samples")
def test_a_live_run_shows_its_state_and_stays(runs_root: Path) -> None:
    with RunWriter(create_run(runs_root, CONFIG)) as writer:
        app = open_page("runs", marked=writer.path.name)
        assert app.dataframe[0].value["state"].tolist() == ["running"]
        assert "1 under way" in words(app)
        app.button(key="delete_runs").click().run()
        assert "cancel it first" in words(app).replace("\\", "")
        assert "delete_for_good" not in {button.key for button in app.button}


def test_samples_are_read_only(runs_root: Path) -> None:
    sample = RunStore.at(SAMPLES).list_runs()[0]
    app = open_page("runs", marked=sample.run_id)
    assert "shipped sample run: read-only" in words(app)
    assert not {"Name and tags", "Pin as baseline", "Delete"} & labels(app)
    assert set(app.dataframe[0].value["note"]) == {"sample"}


@pytest.mark.usefixtures("no_samples")
def test_an_uploaded_file_becomes_a_run_and_one_that_is_none_is_told(own: list[Run]) -> None:
    file = io.BytesIO()
    export_zip(own[0], file)
    app = open_page("runs")
    app.file_uploader(key="imported-0").upload("run.zip", file.getvalue(), "application/zip").run()
    app.button(key="import_now").click().run()
    assert not app.exception
    assert len(app.dataframe[0].value) == len(own) + 1
    several = io.BytesIO()
    export_bundle(own[:2], several)
    app.file_uploader(key="imported-1").upload("runs.zip", several.getvalue(), "application/zip").run()
    app.button(key="import_now").click().run()
    assert len(app.dataframe[0].value) == len(own) + 3
    log = b'{"step": 0, "loss": 1, "loss_scale": 8}'
    app.file_uploader(key="imported-2").upload("log.jsonl", log, "application/json").run()
    app.button(key="import_now").click().run()
    assert len(app.dataframe[0].value) == len(own) + 4
    assert "Made of a JSON log" in words(app)
    app.file_uploader(key="imported-3").upload("other.zip", b"PK no", "application/zip").run()
    app.button(key="import_now").click().run()
    assert "is no exported run" in words(app).replace("\\", "")
    assert len(app.dataframe[0].value) == len(own) + 4


@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize("scaled", [False, True])
def test_an_uploaded_event_file_is_read_as_it_was_logged(
    runs_root: Path, tmp_path: Path, *, scaled: bool
) -> None:
    with SummaryWriter(tmp_path / "log") as writer:
        writer.add_scalar("loss_scale", 8.0, 0)
        writer.add_histogram("grad/w", torch.tensor([1.5]), 0)
    (file,) = (tmp_path / "log").iterdir()
    app = open_page("runs")
    app.file_uploader(key="imported-0").upload(file.name, file.read_bytes(), "application/octet-stream").run()
    app.checkbox(key="imported-scaled-0").set_value(scaled).run()
    app.button(key="import_now").click().run()
    (run,) = RunStore.at(runs_root).list_runs()
    (row,) = run.exponents().to_dict("records")
    assert row["amax"] == (1.5 if scaled else 12.0)


def test_the_pinned_run_is_what_others_are_held_against(own: list[Run]) -> None:
    store = RunStore.at(own[0].path.parent)
    before = baseline_of(own[0], own)
    assert before is not None
    assert before.config.policy == "none"
    pin_run(own[1], store)
    runs = store.list_runs()
    beside = baseline_of(open_run(own[0].path), runs)
    assert beside is not None
    assert beside.run_id == own[1].run_id
    assert baseline_of(own[1], runs) is None
    set_labels(own[1], Labels.build(name="Mine", pinned=True))
    app = open_page("compare")
    assert app.session_state["chosen_runs"][0] == own[1].run_id
    assert any(
        option.startswith("Mine · constant:1024") for option in app.multiselect(key="chosen_runs").options
    )
    options = open_page("blame").selectbox(key="seen").options
    assert any(option.startswith("Mine · sigmoid-mlp · constant:1024") for option in options)
