"""The lowest versions that pyproject.toml allows, as pip takes them: `make test-lowest` tests those.

Run as ``python tests/lowest.py FOLDER``: writes ``constraints.txt``, a pin a dependency of lsviz and of its
extras, and ``tools.txt``, what the tests take besides, at the versions that they are pinned to.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = {"ray", "playwright", "ruff", "mypy", "pandas-stubs", "types-psutil"}
"""What only `make check` and the tests of Ray and of browsers need: they do not run with lowest versions."""
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(>=|==)([0-9][0-9.]*)")


def lowest_versions(project: Path) -> tuple[list[str], list[str]]:
    """Return the pins of the lowest versions, and the pins of what tests take besides.

    Args:
        project: The pyproject.toml.

    Raises:
        ValueError: A dependency has no lowest version.
    """
    document = tomllib.loads(project.read_text("utf-8"))
    told = document["project"]
    extras = told["optional-dependencies"]
    ranges = [*told["dependencies"], *(line for name in extras if name != "test" for line in extras[name])]
    floors = {name: number for name, number in map(_parsed, ranges) if name not in LEFT_OUT}
    tools = [line for line in extras["test"] if _parsed(line)[0] not in {*floors, *LEFT_OUT}]
    # What builds it is needed by the tests that build a wheel.
    tools += [line.replace(">=", "==") for line in document["build-system"]["requires"]]
    return [f"{name}=={number}" for name, number in floors.items()], tools


def _parsed(requirement: str) -> tuple[str, str]:
    found = _REQUIREMENT.fullmatch(requirement)
    if found is None:
        raise ValueError(f"{requirement!r} should name a lowest version, as package>=1.2")
    return found[1], found[3]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, pins in zip(("constraints", "tools"), lowest_versions(Path("pyproject.toml")), strict=True):
        (folder / f"{name}.txt").write_text("".join(f"{pin}\n" for pin in pins), "utf-8")
