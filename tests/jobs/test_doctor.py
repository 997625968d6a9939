"""What `lsviz doctor` tells of extras."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import pytest

from lsviz.console_doctor import doctor_table
from lsviz.jobs import doctor
from tests.conftest import REPOSITORY


def report() -> dict[str, object]:
    nothing = dict.fromkeys(("cpu", "gpu", "device", "engine", "kernel", "runs"), "")
    return {"versions": {}, **nothing, "missing": [], "extras": doctor.extras()}


def test_every_extra_but_the_tests_is_told_with_all_its_packages() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        name: tuple(re.split(r"[>=]", line)[0] for line in lines)
        for name, lines in declared["optional-dependencies"].items()
        if name != "test"
    }
    assert {extra.name: extra.packages for extra in doctor.EXTRAS} == extras


def test_an_extra_that_is_here_tells_its_version_alone() -> None:
    (found,) = (extra for extra in doctor.extras() if extra["name"] == "tensorboard")
    assert found["versions"] == {"tensorboard": installed_version("tensorboard")}
    assert found["get"] is None


@pytest.mark.parametrize("package", ["kaleido", "accelerate"])
def test_one_that_lacks_a_package_tells_how_to_get_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return installed_version(name)

    monkeypatch.setattr(doctor, "version", version)
    (lacking,) = (extra for extra in doctor.extras() if package in extra["versions"])
    assert lacking["versions"][package] is None
    assert lacking["get"] == f"pip install 'lsviz[{lacking['name']}]'"
    doctor_table(report())
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(lacking["name"]))
    assert "missing" in line
    assert lacking["get"] in line
