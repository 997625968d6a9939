"""Watching runs on Launch: one or several, live, paused and in every end."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from lsviz.jobs.manager import cancel_run, live_status, submit_run
from lsviz.jobs.pausing import is_pausing
from lsviz.runs.config import RunConfig
from lsviz.runs.files import RunFolderError
from lsviz.runs.reader import Run, open_run
from lsviz.runs.schema import CANCEL, OWN_LOOP
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from lsviz.ui.zooming import zoomed_axes
from tests.conftest import train_run
from tests.ui.opening import PAGES, charts, copy_of, make_running, open_page, put_status, words


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def watched(app: AppTest) -> list[str]:
    asked = app.query_params["run"]
    return (asked if isinstance(asked, str) else asked[0]).split(",")


def press(app: AppTest, label: str) -> None:
    next(button for button in app.button if button.label == label).click()
    app.run()
    assert not app.exception, app.exception


def test_a_running_run_shows_progress_and_cancel(runs_root: Path, unscaled_run: Run) -> None:
    path = copy_of(unscaled_run, runs_root)
    make_running(path)
    app = open_page("launch", run=path.name)
    assert "Cancel" in [button.label for button in app.button]
    assert charts(app) == 2
    assert [metric.label for metric in app.metric] == ["Loss", "Loss scale S", "Skipped", "Flushed"]
    for page in ("compare", "explore"):
        assert charts(open_page(page)) >= 1


@pytest.mark.parametrize(
    ("ended", "word"),
    [
        ("finished", "Finished with accuracy"),
        ("cancelled", "Cancelled"),
        ("failed", "Failed"),
        ("interrupted", "Interrupted"),
    ],
)
def test_every_end_has_its_own_face(ended: str, word: str, runs_root: Path, unscaled_run: Run) -> None:
    path = copy_of(unscaled_run, runs_root)
    error = "RuntimeError: out of <b>memory</b>" if ended in ("failed", "interrupted") else None
    put_status(path, state=ended, error=error)
    (path / "log.txt").write_text("first\nlast line of the log\n")
    app = open_page("launch", run=path.name)
    assert word in words(app)
    assert "Close" in [button.label for button in app.button]
    if error:
        assert error in [code.value for code in app.code]
        assert any("last line of the log" in code.value for code in app.code)


def test_a_failed_run_without_rows_is_shown(runs_root: Path) -> None:
    path = create_run(runs_root, RunConfig.build(task="sigmoid-mlp"))
    put_status(path, state="failed", error="DeviceError: none")
    app = open_page("launch", run=path.name)
    assert "Failed" in words(app)
    assert charts(app) == 0
    assert not open_page("compare", runs=path.name).exception


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize("asked", ["nothing", "../../etc/passwd", "<img src=x>"])
def test_an_unknown_run_in_the_url_is_told(asked: str) -> None:
    assert "no run" in words(open_page("launch", run=asked))


def test_the_watched_run_is_still_there_when_one_comes_back(runs_root: Path, unscaled_run: Run) -> None:
    path = copy_of(unscaled_run, runs_root)
    app = open_page("launch", run=path.name)
    for page in ("lsviz/ui/pages/compare.py", "lsviz/ui/pages/launch.py"):
        app.switch_page(page)
        app.query_params.clear()
        app.run()
    assert "Finished with accuracy" in words(app)


def test_a_paused_run_says_so_and_can_go_on(runs_root: Path, unscaled_run: Run) -> None:
    path = copy_of(unscaled_run, runs_root)
    make_running(path)
    app = open_page("launch", run=path.name)
    press(app, "Pause")
    assert is_pausing(open_run(path))
    assert "pausing after the step in hand" in app.get("progress")[0].proto.text
    put_status(path, paused=True)
    app.run()
    assert "Paused at step 20 of 41" in app.get("progress")[0].proto.text
    assert "Cancel" in labels(app)
    press(app, "Resume")
    assert not is_pausing(open_run(path))
    assert "Pause" in labels(app)


def test_a_run_that_was_asked_to_end_says_so_and_can_be_asked_no_more(
    runs_root: Path, unscaled_run: Run
) -> None:
    path = copy_of(unscaled_run, runs_root)
    make_running(path)
    (path / CANCEL).touch()
    app = open_page("launch", run=path.name)
    told = app.get("progress")[0].proto.text
    assert told == "Step 20 of 41, cancelled: it ends after the step in hand"
    assert not {"Pause", "Cancel"} & set(labels(app))


def test_what_can_not_be_done_is_told_beside_the_run(
    runs_root: Path, unscaled_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(unscaled_run, runs_root)
    make_running(path)

    def refuse(run: Run) -> bool:
        raise RunFolderError("can't pause it (no space left)")

    monkeypatch.setattr("lsviz.ui.livestates.pause_run", refuse)
    app = open_page("launch", run=path.name)
    press(app, "Pause")
    assert [error.value for error in app.error] == ["can't pause it (no space left)"]
    assert not app.toast, "shown from a part of the page, it would take the place of the page's style"
    app.run()
    assert not app.error


def test_several_runs_are_watched_together(runs_root: Path, unscaled_run: Run, scaled_run: Run) -> None:
    going, ended = copy_of(unscaled_run, runs_root), copy_of(scaled_run, runs_root)
    make_running(going)
    app = open_page("launch", run=f"{going.name},{ended.name},nothing")
    assert charts(app) == 2, "one figure of all maps, one of all lines"
    assert {"Pause", "Cancel", "Close"} <= set(labels(app))
    assert "Finished with accuracy" in words(app)
    assert "no run 'nothing'" in words(app)
    assert "step 20 of 41" in app.get("progress")[0].proto.text.lower()
    numbers = re.search(r"skipped 0 · flushed (\d+) %", app.get("progress")[0].proto.text)
    assert numbers, "its numbers stand in the same line"
    assert 35 <= int(numbers[1]) <= 45, "39 or 40, as torch's version has it"
    app.button(key=f"close-{ended.name}").click()
    app.run()
    assert watched(app) == [going.name, "nothing"]
    assert "Finished with accuracy" not in words(app)


def test_a_recorded_loop_offers_no_cancel(runs_root: Path) -> None:
    path = create_run(runs_root, RunConfig.build(task="mine", record_every=1, reference_every=0))
    with RunWriter(path, open_ended=True) as writer:
        writer.describe(
            versions={}, device="cpu", device_name="", engine=OWN_LOOP, metric_name=None, whole=True
        )
        app = open_page("launch", run=path.name)
        assert "Close" in labels(app)
        assert not {"Cancel", "Pause"} & set(labels(app))
        assert "stop it where it runs" in app.get("progress")[0].proto.text


def test_without_references_the_map_is_explained_away(runs_root: Path) -> None:
    run = train_run(runs_root, task="digits-mlp", steps=4, record_every=2, reference_every=0)
    app = open_page("launch", run=run.run_id)
    assert charts(app) == 1
    assert "No FP32 reference is recorded" in words(app)


def test_what_was_cut_short_can_be_started_again(
    runs_root: Path, unscaled_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(unscaled_run, runs_root)
    put_status(path, state="interrupted", step=12, error="it died")
    app = open_page("launch", run=path.name)
    assert "Interrupted at step 12 of 41. What was recorded so far is kept." in words(app)
    press(app, "Start it again")
    again = next(run for run in RunStore.at(runs_root).list_runs() if run.run_id != path.name)
    try:
        assert again.config == unscaled_run.config
        assert watched(app) == [again.run_id]
    finally:
        wait_for_end(again)


def test_policies_beside_it_start_together(runs_root: Path) -> None:
    app = open_page("launch", task="digits-mlp", steps="8", policy="none", also="fp32;constant:2^7;nonsense")
    assert "unknown policy" in words(app), "told, and left out"
    press(app, "Start 3 runs")
    runs = RunStore.at(runs_root).list_runs()
    try:
        asked = {(run.config.policy, run.config.precision) for run in runs}
        assert asked == {("none", "fp16"), ("none", "fp32"), ("constant:128", "fp16")}
        assert {run.config.steps for run in runs} == {8}
        assert set(watched(app)) == {run.run_id for run in runs}
    finally:
        for run in runs:
            wait_for_end(run)


def test_one_bad_policy_starts_nothing(runs_root: Path) -> None:
    app = open_page("launch", also="layerwise", update="none", task="digits-mlp")
    press(app, "Start 2 runs")
    assert "layerwise" in app.error[0].value
    assert not runs_root.exists()


def wait_for_end(run: Run) -> None:
    end = time.monotonic() + 120
    while live_status(run).live:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert live_status(run).state == "finished"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"xaxis": [1, 2.5], "yaxis3": [0, 1]}, {"xaxis": [1.0, 2.5], "yaxis3": [0.0, 1.0]}),
        ({"xaxis": [1], "title": [0, 1], "yaxis": ["a", 2], "yaxis2": [0, float("nan")], 7: [1, 2]}, {}),
        ("xaxis", {}),
        (None, {}),
    ],
)
def test_of_a_zoom_only_axes_with_two_ends_pass(told: object, kept: dict[str, list[float]]) -> None:
    assert zoomed_axes(told) == kept


def test_pages_that_ask_one_run_begin_with_the_one_last_chosen(
    runs_root: Path, unscaled_run: Run, scaled_run: Run
) -> None:
    older = copy_of(unscaled_run, runs_root)
    copy_of(scaled_run, runs_root)
    app = open_page("whatif", seen=older.name)
    for page in ("launch", "blame", "explore", "whatif"):
        app.switch_page(PAGES[page] or "lsviz/ui/pages/explore.py")
        app.query_params.clear()
        app.run()
        assert not app.exception, app.exception
        if page in ("blame", "whatif"):
            assert app.selectbox(key="seen").value == older.name


@pytest.mark.usefixtures("no_samples")
def test_a_run_that_waits_tells_its_place_and_can_leave(
    runs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSVIZ_SLOTS", "1")
    config = RunConfig.build(task="digits-mlp", steps=8)
    with RunWriter(create_run(runs_root, config, queued=1.0)):  # trains, and has the only slot
        first = submit_run(runs_root, config, owner="another")
        app = open_page("launch", task="digits-mlp", steps="8")
        press(app, "Start")
        mine = next(
            run for run in RunStore.at(runs_root).list_runs() if (run.record.owner or "").startswith("page-")
        )
        assert "Queued, 2nd: it starts when its turn comes (1 under way, 1 at once)" in progress(app)
        assert open_page("launch", run=first.run_id).get("progress")[0].proto.text.startswith("Queued, 1st")
        table = next(frame.value for frame in open_page("runs").dataframe)
        assert set(table["state"]) == {"running", "queued, 1st", "queued, 2nd"}
        press(app, "Cancel")
        assert "Cancelled" in words(app)
        assert mine.status.state == "cancelled"
        monkeypatch.setenv("LSVIZ_MAX_QUEUED", "1")
        app = open_page("launch", task="digits-mlp", steps="8")
        press(app, "Start")
        assert "1 run waits in" in app.error[0].value
        assert cancel_run(first)


def progress(app: AppTest) -> str:
    return str(app.get("progress")[0].proto.text)
