"""The house itself: layers, door, settings that keep the dashboard safe, shipped runs."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lsviz
from lsviz.analysis.findings import format_percent, format_powers
from lsviz.analysis.lab import lab_frame
from lsviz.analysis.reproduction import paper_frame
from lsviz.runs.lab import load_lab
from lsviz.runs.reproduction import load_reproduction
from lsviz.runs.store import RunStore
from lsviz.training.catalog import TASKS
from lsviz.training.experiments import EXPERIMENTS
from tests.conftest import PATIENCE, REPOSITORY, SAMPLES


@pytest.mark.parametrize(
    "module",
    [
        "lsviz",
        "lsviz.cli",
        "lsviz.ui.frame.main",
        "lsviz.charts.exponents",
        "lsviz.runs.store",
        "lsviz.ui.launching",
    ],
)
def test_importing_loads_no_torch_and_no_ray(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'ray'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=False).returncode == 0


def test_the_door_alone_loads_nothing_heavy() -> None:
    code = (
        "import sys, lsviz; heavy = {'torch', 'streamlit', 'pandas', 'numpy', 'plotly', 'pyarrow'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=False).returncode == 0


def test_every_name_at_the_door_is_there() -> None:
    for name in lsviz.__all__:
        assert getattr(lsviz, name) is not None
    assert dir(lsviz) == sorted(lsviz.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lsviz.nothing


def test_imports_only_go_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False
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


def test_the_sample_runs_are_whole_and_small() -> None:
    runs = RunStore.at(SAMPLES).list_runs()
    assert {run.config.task for run in runs} == set(TASKS)
    for run in runs:
        assert run.status.state == "finished"
        assert run.status.metric is not None
        assert len(run.recorded_steps()) == 25
        assert run.problems == []
    assert sum(f.stat().st_size for f in SAMPLES.rglob("*") if f.is_file()) < 8_000_000
    # The newest are those that the pages open on.
    assert [(r.config.task, r.config.precision, r.config.policy) for r in runs[:4]] == [
        ("sigmoid-mlp", "fp16", "gradscaler"),
        ("sigmoid-mlp", "fp16", "constant:1024"),
        ("sigmoid-mlp", "fp16", "none"),
        ("sigmoid-mlp", "fp32", "none"),
    ]
    metrics = [run.status.metric or 0.0 for run in runs[:4]]
    assert metrics[2] < 0.15
    assert min(metrics[0], metrics[1], metrics[3]) > 0.85


def test_every_sample_run_comes_from_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for run in RunStore.at(SAMPLES).list_runs():
        config = run.config
        weight = "" if config.loss_weight == 1 else f"--loss-weight 2^{round(math.log2(config.loss_weight))} "
        what = "--precision fp32" if config.precision == "fp32" else f"--policy {config.policy}"
        steps = "" if config.steps == TASKS[config.task].steps else f" --steps {config.steps}"
        fault = f" --inject {config.inject}" if config.inject else ""
        line = f"{config.record_every} --task {config.task} {weight}{what}{steps}{fault}"
        alternatives = {line, line.replace("262144", "2^18").replace("4096", "2^12").replace("16384", "2^14")}
        assert any(f"$(SAMPLE) {words}\n" in makefile for words in alternatives), line
    assert "make samples" in (SAMPLES / "README.md").read_text()


def test_the_papers_table_is_the_shipped_result() -> None:
    document = load_reproduction(SAMPLES / "reproduce.json")
    assert document is not None
    readme = (REPOSITORY / "docs" / "paper.md").read_text().splitlines()
    frame = paper_frame(document)
    assert len(frame) == len(EXPERIMENTS)
    for row in frame.to_dict("records"):
        start = format_powers(f"| {row['experiment']}, {row['metric_name']} |")
        (line,) = [line for line in readme if line.startswith(start)]
        cells = ["fp32", "none", "constant", "gradscaler", "finding", "paper", "flushed", "worst"]
        for cell in (row[key] for key in cells):
            assert cell in line, (row["experiment"], cell)
    weights = frame.set_index("experiment").loc["digits-mlp, small steps", "fp16-weights"]
    assert f"FP16 weights end at {weights}" in "\n".join(readme)


def test_the_docs_tell_of_the_shipped_lab() -> None:
    document = load_lab(SAMPLES / "lab.json")
    assert document is not None
    readme = " ".join((REPOSITORY / "docs" / "command-line.md").read_text().split())
    rows = lab_frame(document).set_index("name")
    assert (len(rows), rows["right"].sum()) == (14, 8)
    assert "fourteen ways" in readme
    assert "eight of them end where float64 does" in readme
    for name in ("FP16 weights", "FP32 weights"):
        assert f"{format_percent(rows.loc[name, 'stalled'])}" in readme
    assert f"off by {format_percent(rows.loc['L2 before', 'weight_error'])} of the way" in readme
    assert rows.loc["L2 before", "metric"] == rows.loc["L2 after", "metric"]
    assert "1,024 times too small" in rows.loc["fold-lr (Adam)", "verdict"]
    assert "1,024 times too strict" in rows.loc["clip before", "verdict"]


def test_the_run_that_the_docs_open_is_there() -> None:
    (path,) = re.findall(r'open_run\("([^"]+)"\)', (REPOSITORY / "docs" / "record.md").read_text())
    run = lsviz.open_run(REPOSITORY / path)
    assert run.config.policy == "constant:1024"
    assert not run.exponents(tensor="layer1").empty
