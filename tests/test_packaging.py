"""What people install: the sdist and the wheel made of it, away from this repository."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

from lsviz.runs.config import RunConfig
from tests.conftest import REPOSITORY, SAMPLES, clean_environment
from tests.serving import wait_until_served

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")


def built(kind: str, source: Path, into: Path) -> Path:
    """Build an sdist or a wheel as pip does, and return it."""
    command = [sys.executable, "-W", "ignore", "-c", BUILD.format(kind=kind), str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made of what the sdist holds."""
    root = tmp_path_factory.mktemp("package")
    shutil.copytree(REPOSITORY, root / "source", ignore=LEFT_OUT)
    shutil.copytree(REPOSITORY / "lsviz" / "runs", root / "source" / "lsviz" / "runs", dirs_exist_ok=True)
    with tarfile.open(built("sdist", root / "source", root)) as file:
        file.extractall(root / "unpacked", filter="data")
    (unpacked,) = (root / "unpacked").iterdir()
    return built("wheel", unpacked, root)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `lsviz` of an environment that has the wheel, and of this one only what it depends on."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
    python = root / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, env=clean_environment())
    site = next((root / "lib").glob("python*/site-packages"))
    # A plain line in a .pth file does not bring along what makes this repository importable.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return root / "bin" / "lsviz"


def answer(command: Path, *arguments: str, cwd: Path) -> str:
    environment = clean_environment(LSVIZ_RUNS=str(cwd / "runs"))
    done = subprocess.run(
        [command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_holds_all_that_the_program_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in ((REPOSITORY / "lsviz", "lsviz"), (SAMPLES, "lsviz/sample_runs")):
        files = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert {f"{inside}/{path.relative_to(folder)}" for path in files} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "runs"))]


def test_a_wheel_runs_away_from_the_repository(installed: Path, tmp_path: Path) -> None:
    python = installed.with_name("python")
    place = answer(python, "-c", "import lsviz; print(lsviz.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parents[1])
    sample = next(SAMPLES.glob("*/run.json")).parent.name
    assert "window" in json.loads(answer(installed, "recommend", sample, "--json", cwd=tmp_path))
    settings = ("--task", "digits-mlp", "--policy", "constant:128", "--steps", "3", "--json")
    made = json.loads(answer(installed, "run", *settings, cwd=tmp_path).splitlines()[-1])
    assert Path(made["path"]).parent == tmp_path / "runs"
    assert made["policy"] == RunConfig.build(task="digits-mlp", policy="constant:128").policy


def test_a_wheel_serves_the_dashboard(installed: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [installed, "dash", "--no-browser", "--port", str(port)],
            cwd=tmp_path,
            env=clean_environment(LSVIZ_RUNS=str(tmp_path / "runs")),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_served(process, f"http://127.0.0.1:{port}", log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/whatif", timeout=60) as page:
            assert b"<title>" in page.read()
    finally:
        process.terminate()
        process.wait()
