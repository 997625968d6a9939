"""The reference pages, from the program itself: ``python docs/reference.py`` writes docs/reference/."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

REPOSITORY: Final = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

import lsviz  # noqa: E402
from lsviz.cli import app  # noqa: E402
from lsviz.policies import POLICIES  # noqa: E402

FOLDER: Final = REPOSITORY / "docs" / "reference"
MADE: Final = "Made by `python docs/reference.py` from the program itself.\n"


def cli_page() -> str:
    """Return every command with its arguments and options."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = ["# Commands", "", MADE]
    for name, command in commands.items():
        lines += [f"## lsviz {name}", "", inspect.cleandoc(command.help or ""), ""]
        rows = [_row(param) for param in command.params if param.name != "help"]
        if rows:
            lines += ["| | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(param: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    if param.param_type_name == "argument":
        names = f"`{param.metavar or param.name.upper()}`"
    default = "required" if param.required else "" if param.default in (None, "") else f"`{param.default}`"
    return f"| {names} | {default} | {_cell(param.help or '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def python_page() -> str:
    """Return what the package's door offers, by its docstrings."""
    lines = ["# Python", "", MADE]
    for name in lsviz.__all__:
        thing = getattr(lsviz, name)
        if name.startswith("__") or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        lines += list(_entry(f"lsviz.{name}", thing, 2))
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                function = value.__func__ if isinstance(value, classmethod) else value
                if member.startswith("_") or not (
                    inspect.isfunction(function) or isinstance(value, property)
                ):
                    continue
                lines += list(_entry(f"{name}.{member}", function, 3))
    return "\n".join(lines)


def _entry(name: str, thing: Any, level: int) -> Iterator[str]:
    is_call = inspect.isfunction(thing)
    yield f"{'#' * level} {name}"
    yield ""
    if is_call:
        yield from (
            "```python",
            f"{name.rpartition('.')[2]}{inspect.signature(thing)}".replace("'", ""),
            "```",
            "",
        )
    yield from ("```text", inspect.getdoc(thing) or "", "```", "")


def policies_page() -> str:
    """Return every policy with its rule, settings and source."""
    lines = ["# Policies", "", MADE]
    for name, policy in POLICIES.items():
        lines += [f"## {name}", "", policy.rule, "", f"Read in: {policy.source}", ""]
        fields = {key: policy.model_fields[key] for key in policy.settings()}
        if fields:
            lines += ["| setting | default | |", "|---|---|---|"]
            lines += [
                f"| `{key}` | {'required' if field.is_required() else f'`{field.default}`'} "
                f"| {_cell(field.description or '')} |"
                for key, field in fields.items()
            ]
            lines.append("")
    return "\n".join(lines)


PAGES: Final = {"cli": cli_page, "python": python_page, "policies": policies_page}


def main() -> None:
    """Write all pages and say where they are."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path = FOLDER / f"{name}.md"
        path.write_text(page().rstrip() + "\n")
        print(path)


if __name__ == "__main__":
    main()
