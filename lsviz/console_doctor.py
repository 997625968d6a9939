"""What `lsviz doctor` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lsviz.console import Text, open_console


def doctor_table(report: Mapping[str, Any]) -> None:
    """Print the report of ``lsviz doctor``."""
    console = open_console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in report["versions"].items():
        table.add_row(name, Text(value or "missing"))
    for name in ("cpu", "gpu", "device", "engine", "kernel", "runs"):
        table.add_row(name, Text(str(report[name] or "none")))
    console.print(table)
    extras = Table("extra", "", "gives", "get it with", box=None, pad_edge=False)
    for extra in report["extras"]:
        versions = ", ".join(number or f"{name} missing" for name, number in extra["versions"].items())
        here = "missing" if not any(extra["versions"].values()) else versions
        extras.add_row(extra["name"], Text(here), Text(extra["gives"]), Text(extra["get"] or ""))
    console.print("")
    console.print(extras)
    for line in report["missing"]:
        console.print(Text(f"missing: {line}"))
    if not report["missing"]:
        console.print("Everything lsviz needs is here.")
