"""The house itself: layers, door, settings that keep the dashboard safe, shipped runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lsviz
from lsviz.runs.store import RunStore
from tests.conftest import REPOSITORY, SAMPLES


@pytest.mark.parametrize(
    "module", ["lsviz", "lsviz.cli", "lsviz.ui.frame.main", "lsviz.charts.exponents", "lsviz.runs.store"]
)
def test_importing_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_the_door_alone_loads_nothing_heavy() -> None:
    code = (
        "import sys, lsviz; heavy = {'torch', 'streamlit', 'pandas', 'numpy', 'plotly', 'pyarrow'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_every_name_at_the_door_is_there() -> None:
    for name in lsviz.__all__:
        assert getattr(lsviz, name) is not None
    assert dir(lsviz) == sorted(lsviz.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lsviz.nothing


def test_imports_only_go_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("server", "address", "127.0.0.1"),
        ("server", "allowedHosts", ["localhost", "127.0.0.1"]),
        ("server", "fileWatcherType", "none"),
        ("server", "enableCORS", True),
        ("server", "enableXsrfProtection", True),
        ("browser", "gatherUsageStats", False),
        ("client", "showErrorDetails", "none"),
    ],
)
def test_the_shipped_settings_keep_the_dashboard_at_home(section: str, key: str, value: object) -> None:
    settings = tomllib.loads((REPOSITORY / ".streamlit" / "config.toml").read_text())
    assert settings[section][key] == value


def test_lsviz_dash_has_the_same_settings() -> None:
    from lsviz.jobs.dashboard import SETTINGS

    shipped = tomllib.loads((REPOSITORY / ".streamlit" / "config.toml").read_text())
    for key, value in SETTINGS.items():
        expected: object = shipped
        for part in key.split("."):
            expected = expected[part]  # type: ignore[index]
        assert value == expected, key


def test_requirements_are_pinned_and_admit_what_pyproject_asks_for() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[>=]", requirement)[0] for requirement in project["dependencies"]}
    assert asked == set(pins)
    assert project["version"] == lsviz.__version__


def test_the_sample_runs_are_the_four_and_small() -> None:
    runs = RunStore.at(SAMPLES).list_runs()
    assert [(r.config.precision, r.config.policy) for r in runs] == [
        ("fp16", "gradscaler"),
        ("fp16", "constant:1024"),
        ("fp16", "none"),
        ("fp32", "none"),
    ]
    for run in runs:
        assert run.config.task == "sigmoid-mlp"
        assert run.status.state == "finished"
        assert not run.exponents(columns=["step"]).empty
        assert run.problems == []
    assert sum(f.stat().st_size for f in SAMPLES.rglob("*") if f.is_file()) < 1_000_000
    metrics = {(r.config.precision, r.config.policy): r.status.metric for r in runs}
    assert all(m is not None for m in metrics.values())
    assert metrics["fp16", "none"] < 0.15  # type: ignore[operator]
    assert metrics["fp16", "constant:1024"] > 0.85  # type: ignore[operator]


def test_the_readmes_run_is_there() -> None:
    (path,) = re.findall(r'open_run\("([^"]+)"\)', (REPOSITORY / "README.md").read_text())
    run = lsviz.open_run(REPOSITORY / path)
    assert run.config.policy == "constant:1024"
    assert not run.exponents(tensor="layer1").empty


def test_the_sample_runs_tell_how_they_were_made() -> None:
    text = (SAMPLES / "README.md").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "make samples" in text
    for words in (
        "--precision fp32 --policy none",
        "--policy constant:1024",
        "--policy gradscaler",
        "--seed 0",
    ):
        assert words in text
        assert words in makefile
