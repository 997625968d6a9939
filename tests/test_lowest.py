"""The pins of the lowest versions, which `make test-lowest` installs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.lowest import lowest_versions


def test_every_dependency_but_rays_is_pinned_once_to_its_lowest_version() -> None:
    pins, tools = lowest_versions(REPOSITORY / "pyproject.toml")
    names = [pin.partition("==")[0] for pin in [*pins, *tools]]
    assert len(names) == len(set(names))
    assert {"torch", "pandas", "kaleido", "wandb", "accelerate", "pytest", "setuptools"} <= set(names)
    assert not {"ray", "playwright", "mypy"} & set(names)
    declared = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    for pin in pins:
        assert f'"{pin.replace("==", ">=")}"' in declared


def test_a_dependency_without_a_lowest_version_is_told(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\ndependencies = ["torch<3"]\n[project.optional-dependencies]\ntest = []\n')
    with pytest.raises(ValueError, match="'torch<3' should name a lowest version"):
        lowest_versions(file)
