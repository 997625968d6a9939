"""Who may change things: every act behind one question, and pages that say why it is refused."""

from __future__ import annotations

import ast
import inspect
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from lsviz.jobs.sweeping import Sweep
from lsviz.runs.config import RunConfig
from lsviz.runs.exchange import export_zip
from lsviz.runs.labels import Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.store import RunStore
from lsviz.runs.sweeps import Part, SweepRecord, write_sweep
from lsviz.ui import access, acting, importing, launching, livestates, running
from lsviz.ui.access import MIN_TOKEN, READ_ONLY, TOKEN, AccessError
from tests.conftest import REPOSITORY, SAMPLES
from tests.runs.test_store import CONFIG
from tests.ui.opening import PAGES, copy_of, make_running, open_page, put_status, words

SECRET = "a-token-of-some-length"
UI = REPOSITORY / "lsviz" / "ui"
READING = {
    "lsviz.jobs.exporting": {"DASHBOARDS", "MAX_RUNS", "dashboard_zip", "installed_dashboards"},
    "lsviz.jobs.manager": {"check_room", "is_ending", "is_ours", "live_status"},
    "lsviz.jobs.queue": {"live_jobs", "places", "tend"},  # tending starts only what was asked for before
    "lsviz.jobs.slots": {"slots"},
    "lsviz.jobs.pausing": {"is_pausing"},
    "lsviz.jobs.removal": {"refuse_to_delete"},
    "lsviz.jobs.sweeping": {"Sweep", "cluster_address", "has_ray", "list_sweeps"},
    "lsviz.runs.bundle": {"MAX_RUNS", "export_bundle"},
    "lsviz.runs.exchange": {"TABLE_FORMATS", "export_tables", "export_zip"},
    "lsviz.runs.lab": {"FILE_NAME", "Lab", "LabError", "VariantResult", "load_lab"},
    "lsviz.runs.reproduction": {"FILE_NAME", "Reproduction", "ReproductionError", "load_reproduction"},
    "lsviz.runs.sweeps": {"Part", "SweepRecord"},
}
"""What pages take of the modules that also write; these have nothing that does."""
HARMLESS = {"config", "injection", "labels", "reader", "schema", "showing", "store", "tables", "updates"}
WRITING_CALLS = {"write_text", "write_bytes", "unlink", "mkdir", "rmdir", "touch", "symlink_to"}
WRITING_MODULES = {"shutil", "subprocess", "signal", "tempfile", "socket"}


@pytest.fixture
def own(runs_root: Path, no_samples: None) -> Run:
    return open_run(copy_of(RunStore.at(SAMPLES).list_runs()[0], runs_root))


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(READ_ONLY, "1")


@pytest.fixture
def option(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Give an option another value for the test."""
    values: dict[str, object] = {}
    real = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: values[name] if name in values else real(name))
    return values.__setitem__


def modules() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(UI.rglob("*.py"))}


def test_only_acting_imports_what_writes() -> None:
    found = []
    for path, tree in modules().items():
        if path.name in ("acting.py", "serving.py"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
                found += [(path.name, name) for name in names & WRITING_MODULES]
                found += [(path.name, alias.name) for alias in node.names if "lsviz" in alias.name]
            if isinstance(node, ast.ImportFrom) and node.module:
                module, names = node.module, {alias.name for alias in node.names}
                found += [(path.name, module)] if module.partition(".")[0] in WRITING_MODULES else []
                _, _, part = module.partition("lsviz.")
                if part.split(".")[0] not in ("jobs", "runs") or module.split(".")[-1] in HARMLESS:
                    continue
                found += [(path.name, f"{module}.{name}") for name in names - READING.get(module, set())]
    assert found == [], "what these do must go through lsviz/ui/acting.py, or is it reading?"


def test_no_page_writes_files_itself() -> None:
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert name not in WRITING_CALLS, f"{path.name}:{node.lineno}"
                assert name != "open" or path.name == "serving.py", f"{path.name}:{node.lineno}"


def put_sweep(root: Path) -> Sweep:
    """A sweep whose driver was killed: one that can be gone on with, and dismissed."""
    parts = [Part(config=RunConfig.build(**CONFIG.model_dump()))]
    record = SweepRecord(created=0, updated=0, cluster="local", state="interrupted", parts=parts)
    folder = root / ".sweeps" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    write_sweep(folder, record)
    return Sweep(folder, record, ending=False)


def test_every_act_is_refused_before_it_begins(own: Run, read_only: None) -> None:
    store = RunStore.at(own.path.parent)
    sweep = put_sweep(own.path.parent)
    arguments = {
        "submit_run": (own.path.parent, RunConfig.build(**CONFIG.model_dump())),
        "cancel_run": (own,),
        "pause_run": (own,),
        "resume_run": (own,),
        "delete_run": (own,),
        "set_labels": (own, Labels.build(name="x")),
        "pin_run": (own, store),
        "import_file": (io.BytesIO(), store),
        "start_sweep": (own.path.parent, [RunConfig.build(**CONFIG.model_dump())]),
        "cancel_sweep": (sweep,),
        "resume_sweep": (sweep,),
        "dismiss_sweep": (sweep,),
    }
    acts = {
        name: act
        for name, act in vars(acting).items()
        if inspect.isfunction(act) and not name.startswith("_") and name != "require_change"
    }
    assert set(acts) == set(arguments)
    before = {path: path.stat().st_mtime_ns for path in own.path.parent.rglob("*")}
    for name, act in acts.items():
        with pytest.raises(AccessError, match="only shows"):
            act(*arguments[name])
    assert {path: path.stat().st_mtime_ns for path in own.path.parent.rglob("*")} == before


@pytest.fixture
def unhindered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that forgot to disable what they must: only the acts themselves are left to refuse."""
    for module in (importing, launching, livestates, running):
        monkeypatch.setattr(module, "changing", lambda words=None: {"help": words})
    monkeypatch.setattr(importing, "may_change", lambda: True)


def refusals(app: AppTest) -> list[str]:
    """Return the errors and toasts of a page that say so; the line at its top is a caption."""
    assert not app.exception
    told = [*(error.value for error in app.error), *(toast.value for toast in app.toast)]
    return [words for words in told if "only shows runs" in words]


def test_a_start_starts_nothing(runs_root: Path, read_only: None, unhindered: None) -> None:
    app = open_page("launch")
    assert refusals(app.button(key="start").click().run())
    assert not runs_root.exists()


def test_pin_name_and_delete_do_nothing(own: Run, read_only: None, unhindered: None) -> None:
    app = open_page("runs", marked=own.run_id)
    assert refusals(app.button(key="pin_run").click().run())
    app = open_page("runs", marked=own.run_id)
    app.button(key="label_run").click().run()
    app.text_input(key=f"name-{own.run_id}").set_value("Mine")
    app.button(key="label_run").click()
    assert refusals(app.button(key="save_labels").click().run())
    assert own.labels == Labels()
    app = open_page("runs", marked=own.run_id)
    app.button(key="delete_runs").click().run()
    app.button(key="delete_runs").click()
    assert refusals(app.button(key="delete_for_good").click().run())
    assert own.path.exists()


def test_an_upload_is_not_imported(own: Run, read_only: None, unhindered: None) -> None:
    file = io.BytesIO()
    export_zip(own, file)
    app = open_page("runs")
    app.file_uploader(key="imported-0").upload("run.zip", file.getvalue(), "application/zip").run()
    assert refusals(app.button(key="import_now").click().run())
    assert len(RunStore.at(own.path.parent).list_runs()) == 1


def test_pause_cancel_and_start_again_do_nothing(own: Run, read_only: None, unhindered: None) -> None:
    make_running(own.path)
    for label in ("pause", "cancel"):  # cancelling would end this very process
        app = open_page("launch", run=own.run_id)
        assert refusals(app.button(key=f"{label}-{own.run_id}").click().run())
    assert not (own.path / "pause").exists()
    put_status(own.path, state="failed", pid=None)
    app = open_page("launch", run=own.run_id)
    assert refusals(app.button(key=f"again-{own.run_id}").click().run())
    assert len(RunStore.at(own.path.parent).list_runs()) == 1


def test_controls_that_change_things_are_disabled_and_say_why(own: Run, read_only: None) -> None:
    put_status(own.path, state="failed", error="it broke")
    seen = {}
    for page, query in (("runs", {"marked": own.run_id}), ("launch", {"run": own.run_id})):
        app = open_page(page, **query)
        seen |= {button.key: button for button in app.button if button.disabled and button.help}
        assert page != "runs" or app.file_uploader(key="imported-0").disabled
    assert set(seen) == {"pin_run", "label_run", "delete_runs", "start", f"again-{own.run_id}"}
    assert all(button.help.startswith("View only. This server only shows") for button in seen.values())


def test_downloads_and_links_stay(own: Run, read_only: None) -> None:
    app = open_page("runs", marked=own.run_id)
    assert "The run, as a zip to import elsewhere" in {b.proto.label for b in app.get("download_button")}
    assert not any(b.proto.disabled for b in app.get("download_button"))
    assert {link.proto.label for link in app.get("page_link")} >= {"What-if", "Blame", "Replay", "Layers"}


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_why_it_is_view_only(page: str, read_only: None, runs_root: Path) -> None:
    assert "**View only.** This server only shows runs" in words(open_page(page))


def test_without_any_of_it_everything_can_be_changed(own: Run) -> None:
    app = open_page("runs", marked=own.run_id)
    assert "View only" not in words(app)
    assert not any(button.disabled for button in app.button if button.key != "import_now")
    app.button(key="pin_run").click().run()
    assert own.labels.pinned


def test_the_token_is_asked_for_and_opens_this_session_alone(
    own: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    app = open_page("runs", marked=own.run_id)
    for given, shown in (
        ("wrong", "not this server"),
        ("", "not this server"),
        ("é\x00", "not this server"),
    ):
        app.text_input(key="token_given").set_value(given)
        app.button(key="token_send").click().run()
        assert shown in words(app)
        assert app.button(key="pin_run").disabled
    app.text_input(key="token_given").set_value(SECRET)
    app.button(key="token_send").click().run()
    assert not app.exception
    assert "View only" not in words(app)
    app.button(key="pin_run").click().run()
    assert own.labels.pinned
    held = app.session_state._state.filtered_state
    assert SECRET not in repr(held)
    assert "View only" in words(open_page("runs"))


def test_a_token_in_the_address_is_taken_out_of_it(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    app = open_page("runs", marked=own.run_id, token=SECRET)
    assert "token" not in app.query_params
    assert app.query_params["marked"] == own.run_id
    assert "View only" not in words(app)
    app.button(key="pin_run").click().run()
    assert own.labels.pinned
    app = open_page("runs", token=f"{SECRET}x")
    assert "token" not in app.query_params
    assert "View only" in words(app)
    assert "not this server" in words(app)


def test_a_short_token_opens_nothing(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "x" * (MIN_TOKEN - 1))
    assert f"fewer than {MIN_TOKEN} characters" in words(open_page("runs", token="x" * (MIN_TOKEN - 1)))


def test_read_only_stays_so_with_the_token(
    own: Run, monkeypatch: pytest.MonkeyPatch, read_only: None
) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    app = open_page("runs", token=SECRET)
    assert "only shows runs" in words(app)
    assert "token_given" not in {field.key for field in app.text_input}


@pytest.mark.parametrize("value", ["", "0", "no", "false"])
def test_read_only_can_be_set_to_no(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(READ_ONLY, value)
    assert access.server_reason() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.address", None),
        ("server.address", "0.0.0.0"),
        ("server.address", "::"),
        ("server.address", "192.168.1.4"),
        ("server.address", "unix:///run/lsviz"),
        ("server.allowedHosts", []),
        ("server.allowedHosts", ["localhost", "*"]),
        ("server.allowedHosts", ["lab.example.org"]),
        ("server.corsAllowedOrigins", ["https://example.org"]),
        ("server.enableCORS", False),
        ("server.enableXsrfProtection", False),
        ("server.enableAgentApi", True),
    ],
)
def test_a_server_that_others_reach_is_view_only_without_a_token(
    name: str,
    value: object,
    option: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
    own: Run,
) -> None:
    assert access.start_line() is None
    option(name, value)
    line = access.start_line()
    assert line is not None
    assert "\n" not in line
    assert name in line
    assert "view only, since LSVIZ_TOKEN is not set" in line
    app = open_page("runs", marked=own.run_id)
    assert name in words(app).replace("\\", "")
    assert app.button(key="pin_run").disabled
    with pytest.raises(AccessError, match=name):
        acting.pin_run(own, RunStore.at(own.path.parent))
    monkeypatch.setenv(TOKEN, SECRET)
    assert "View only" not in words(open_page("runs", token=SECRET))
    told = access.start_line()
    assert told is not None
    assert SECRET not in told
    assert "view only" not in told


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LocalHost."])
def test_loopback_in_other_words_is_loopback(address: str, option: Callable[[str, object], None]) -> None:
    option("server.address", address)
    assert access.start_line() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("client.showErrorDetails", "full"),
        ("server.fileWatcherType", "auto"),
        ("browser.gatherUsageStats", True),
    ],
)
def test_what_is_weaker_and_opens_nothing_is_told(
    name: str, value: object, option: Callable[[str, object], None]
) -> None:
    option(name, value)
    line = access.start_line()
    assert line is not None
    assert name in line
    assert "view only" not in line
    assert access.server_reason() is None
