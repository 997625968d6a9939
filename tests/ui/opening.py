"""Opening a page with streamlit's own AppTest, and reading what it says."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psutil
from streamlit.testing.v1 import AppTest

from lsviz.runs.files import write_json
from lsviz.runs.reader import Run, open_run
from tests.conftest import PATIENCE, REPOSITORY

PAGES = {
    "explore": None,
    "learn": "lsviz/ui/pages/learn.py",
    "launch": "lsviz/ui/pages/launch.py",
    "runs": "lsviz/ui/pages/runs.py",
    "compare": "lsviz/ui/pages/compare.py",
    "layers": "lsviz/ui/pages/layers.py",
    "whatif": "lsviz/ui/pages/whatif.py",
    "replay": "lsviz/ui/pages/replay.py",
    "blame": "lsviz/ui/pages/blame.py",
    "policies": "lsviz/ui/pages/policies.py",
    "reproduce": "lsviz/ui/pages/reproduce.py",
    "updates": "lsviz/ui/pages/updates.py",
}


def open_page(name: str, **query: str) -> AppTest:
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=PATIENCE)
    page = PAGES[name]
    if page is not None:
        app.run()
        app.switch_page(page)
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception, app.exception
    return app


def words(app: AppTest) -> str:
    kinds = (
        "title",
        "header",
        "subheader",
        "markdown",
        "caption",
        "info",
        "warning",
        "error",
        "success",
        "code",
    )
    said = "\n".join(element.value for kind in kinds for element in getattr(app, kind))
    return said.replace("\u2060", "")  # what keeps addresses and emoji from being found, and nobody sees


def charts(app: AppTest) -> int:
    return len(app.get("plotly_chart"))


def put_status(path: Path, **values: object) -> None:
    status = open_run(path).status
    write_json(path / "status.json", status.model_copy(update=values).model_dump())


def copy_of(run: Run, root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copytree(run.path, root / run.run_id))


def make_running(path: Path) -> None:
    """Make a run look as if this process were writing it."""
    me = psutil.Process()
    put_status(
        path, state="running", step=20, pid=me.pid, process_start=me.create_time(), host=os.uname().nodename,
        updated=time.time(),
    )  # fmt: skip
