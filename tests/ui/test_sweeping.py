"""Sweeps on a Ray cluster, on Launch: where to train, a panel from real files, acts, and who may do them."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest
from filelock import FileLock
from streamlit.testing.v1 import AppTest

from lsviz.jobs.launching import RAY_ADDRESS
from lsviz.jobs.sweep import LOCK as SWEEP_LOCK
from lsviz.jobs.sweeping import list_sweeps
from lsviz.runs.config import RunConfig
from lsviz.runs.process import own_mark
from lsviz.runs.reader import Run
from lsviz.runs.sweeps import Part, read_sweep, write_sweep
from lsviz.ui import access, sweeping
from lsviz.ui.access import READ_ONLY
from tests.jobs.test_sweeping import put, wait_for
from tests.ui.opening import copy_of, open_page, words

pytestmark = pytest.mark.usefixtures("no_samples")


@pytest.fixture
def ray_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of a machine that has Ray, also where this one has not."""
    monkeypatch.setattr(sweeping, "has_ray", lambda: True)


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def bars(app: AppTest) -> list[tuple[int, str]]:
    found = [element.proto for element in app.get("progress")]
    return [(bar.value, bar.text.replace("\u2060", "").replace("\\", "")) for bar in found]


def parts_of(run: Run) -> list[Part]:
    return [
        Part(
            config=run.config,
            state="finished",
            step=41,
            run_id=run.run_id,
            metric_name="accuracy",
            metric=0.1,
        ),
        Part(config=RunConfig.build(task="digits-mlp", seed=1, steps=400), state="running", step=100),
        Part(config=RunConfig.build(task="digits-mlp", seed=2), state="running"),
        Part(config=RunConfig.build(task="digits-mlp", seed=3)),
    ]


def press(app: AppTest, start: str) -> AppTest:
    (button,) = [button for button in app.button if (button.key or "").startswith(start)]
    button.click().run()
    assert not app.exception, app.exception
    return app


def test_without_ray_there_is_no_choice(runs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "has_ray", lambda: False)
    app = open_page("launch", engine="ray")
    assert "Train on" not in [control.label for control in app.segmented_control]
    assert (runs_root / ".sweeps").exists() is False


def test_the_choice_names_the_owners_cluster(
    runs_root: Path, ray_there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RAY_ADDRESS, raising=False)
    control = open_page("launch").segmented_control(key="engine")
    assert (control.options, control.value) == (["This machine", "Ray: CPUs", "Ray: GPUs"], "local")
    assert "of this machine alone" in control.help
    monkeypatch.setenv(RAY_ADDRESS, "10.0.0.1:6379")
    app = open_page("launch", engine="ray")
    assert app.segmented_control(key="engine").value == "ray"
    assert app.query_params["engine"] in ("ray", ["ray"])
    assert "at 10.0.0.1" in app.segmented_control(key="engine").help.replace("\u2060", "")
    app.segmented_control(key="engine").set_value("local").run()
    assert "engine" not in app.query_params
    assert "unknown engine 'slurm'" in words(open_page("launch", engine="slurm"))
    hidden = open_page("launch", hide="engine")
    assert any(".st-key-engine" in style for style in (h.proto.body for h in hidden.get("html")))


def test_start_makes_a_sweep_that_waits_and_is_cancelled_and_goes_on(
    runs_root: Path, ray_there: None, unscaled_run: Run
) -> None:
    """It waits for another sweep, which holds the folder, and then finds its one run there already."""
    path = copy_of(unscaled_run, runs_root)
    asked = {"task": "sigmoid-mlp", "steps": "41", "policy": "none", "engine": "ray"}
    with FileLock(runs_root / SWEEP_LOCK):
        app = open_page("launch", **asked)
        app.button(key="start").click().run()
        assert not app.exception, app.exception
        wait_for(lambda: list_sweeps(runs_root)[0][0].record.state == "waiting")
        app = open_page("launch")
        assert "1 run on Ray: waiting for another sweep to end" in words(app)
        press(app, "cancel-")
        wait_for(lambda: list_sweeps(runs_root)[0][0].record.state == "cancelled")
        app = open_page("launch")
        assert "1 run on Ray: cancelled, 0 of 1 done" in words(app)
        assert {"Go on", "Dismiss"} <= set(labels(app))
        press(app, "go_on-")
    wait_for(lambda: list_sweeps(runs_root)[0][0].record.state == "finished")
    app = open_page("launch")
    assert "1 run on Ray: finished" in words(app)
    done = f"finished with accuracy {unscaled_run.status.metric:.3f}"
    assert (100, f"no scaling on sigmoid-mlp, seed 0: {done}") in bars(app)
    assert {"Go on", "Cancel"}.isdisjoint(labels(app))
    press(app, "dismiss-")
    assert list_sweeps(runs_root) == ([], [])
    assert path.exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_without_gpus_refuses_on_the_page_what_asks_for_one(
    runs_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RAY_ADDRESS, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    app = open_page("launch", engine="ray-gpu", task="digits-mlp", steps="3")
    app.button(key="start").click().run()
    wait_for(lambda: list_sweeps(runs_root)[0][0].record.state == "failed")
    assert "No node of this machine has the 1 CPU and 1 GPU that a run takes" in words(open_page("launch"))
    assert list_sweeps(runs_root)[0][0].record.parts[0].config.device == "cuda"


def test_a_sweep_under_way_has_a_bar_a_run(runs_root: Path, unscaled_run: Run) -> None:
    copy_of(unscaled_run, runs_root)
    parts = parts_of(unscaled_run)
    note = "this Ray cluster asks for no token: whoever reaches it can run any code on it"
    put(runs_root, state="running", cluster="10.0.0.1:6379", parts=parts, notes=[note], **own_mark())
    app = open_page("launch")
    assert "4 runs on Ray: under way, 1 of 4 done" in words(app)
    assert "Cluster at 10.0.0.1:6379." in words(app).replace("\\", "")
    assert bars(app) == [
        (100, "no scaling on sigmoid-mlp, seed 0: finished with accuracy 0.100"),
        (25, "no scaling on digits-mlp, seed 1: step 100 of 400"),
        (0, "no scaling on digits-mlp, seed 2: loading torch and the data"),
        (0, "no scaling on digits-mlp, seed 3: waiting for room"),
    ]
    assert "This Ray cluster asks for no token" in words(app)
    (link,) = [link.proto for link in app.get("page_link") if link.proto.label == "See it"]
    assert unscaled_run.run_id in str(link)
    assert "Cancel" in labels(app)
    assert {"Go on", "Dismiss"}.isdisjoint(labels(app))


def test_a_sweep_whose_driver_died_says_so_and_what_was_not_trained(
    runs_root: Path, unscaled_run: Run
) -> None:
    copy_of(unscaled_run, runs_root)
    parts = parts_of(unscaled_run)
    parts[1] = parts[1].model_copy(update={"state": "failed", "error": "RuntimeError: out of <b>memory</b>"})
    path = put(runs_root, state="running", parts=parts, **{**own_mark(), "start_ticks": 1})
    (path / "log.txt").write_text("last line of the log\n")
    app = open_page("launch")
    assert "4 runs on Ray: interrupted, 1 of 4 done" in words(app)
    assert "Its process died without a word" in words(app)
    assert [text.rpartition(": ")[2] for _, text in bars(app)] == [
        "finished with accuracy 0.100", "failed", "not trained", "not trained",
    ]  # fmt: skip
    code = [element.value for element in app.code]
    assert "RuntimeError: out of <b>memory</b>" in code
    assert "last line of the log" in code
    assert {"Go on", "Dismiss"} <= set(labels(app))


def test_an_error_of_the_whole_sweep_is_one_line(runs_root: Path) -> None:
    put(runs_root, state="failed", error="no Ray cluster answers at '10.0.0.1:6379' (timed out)")
    app = open_page("launch")
    (error,) = [element.value.replace("\u2060", "").replace("\\", "") for element in app.error]
    assert error == "No Ray cluster answers at '10.0.0.1:6379' (timed out). Go on trains what is missing."


def test_a_page_learns_that_a_sweep_has_ended(runs_root: Path) -> None:
    path = put(runs_root, state="running", **own_mark())
    app = open_page("launch")
    assert "Cancel" in labels(app)
    ended = {"state": "cancelled", "pid": None, "updated": time.time()}
    write_sweep(path, read_sweep(path).model_copy(update=ended))
    app.run()
    assert "cancelled, 0 of 1 done" in words(app)
    assert "Cancel" not in labels(app)


def test_a_damaged_sweep_is_named_and_the_page_stands(runs_root: Path) -> None:
    path = put(runs_root)
    (path / "sweep.json").write_text("{}")
    app = open_page("launch")
    assert "holds no sweep: remove its folder" in words(app)
    assert "Start" in labels(app)


def test_who_may_only_look_can_do_nothing_to_sweeps(
    runs_root: Path, ray_there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disabled on the page, and refused where a page forgot that."""
    monkeypatch.setenv(READ_ONLY, "1")
    live, dead = put(runs_root, "20260102-0", state="running", **own_mark()), put(runs_root, state="failed")
    app = open_page("launch", engine="ray")
    keys = ("start", "cancel-", "go_on-", "dismiss-")
    buttons = [button for button in app.button if (button.key or "").startswith(keys)]
    assert len(buttons) == 4
    assert all(button.disabled for button in buttons)

    monkeypatch.setattr(sweeping, "changing", lambda words=None: {"help": words})
    monkeypatch.setattr("lsviz.ui.launching.changing", lambda words=None: {})
    before = {path: path.stat().st_mtime_ns for path in runs_root.rglob("*")}
    for start in keys:  # cancelling would end this very process
        app = press(open_page("launch", engine="ray"), start)
        assert any("only shows runs" in error.value for error in app.error), start
    assert {path: path.stat().st_mtime_ns for path in runs_root.rglob("*")} == before
    assert live.exists()
    assert dead.exists()
    assert access.why_not() == "This server only shows runs."
