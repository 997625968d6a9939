"""lsviz figure: one figure of a report as a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from lsviz.cli_analysis import RunName, Runs, find_run
from lsviz.errors import UserError

SCHEMES = ("light", "dark")


def figure(
    run: RunName,
    name: Annotated[
        str,
        typer.Argument(
            metavar="FIGURE",
            help="spectra, layers (exponents of every layer at a step), timelines, flushed, whatif, scales "
            "(every layer at every S), headroom, reaction, metric, curve (the metric over S) or history.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The file to write: .png, .svg, .pdf, .html or .json.")
    ],
    others: Annotated[
        list[str] | None, typer.Option("--with", metavar="RUN", help="A run beside it; may be given again.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Of spectra and layers: a recorded step.")] = None,
    scheme: Annotated[str, typer.Option(help="light or dark.")] = "light",
    width: Annotated[int, typer.Option(help="Pixels.")] = 1000,
    height: Annotated[int | None, typer.Option(help="Pixels; by default what its rows need.")] = None,
    scale: Annotated[float, typer.Option(help="Pixels of a PNG for each of these, up to 10.")] = 2.0,
    runs: Runs = None,
) -> None:
    """Write one figure to a file, without a window: PNG, SVG and PDF take the extra export and a Chromium."""
    from lsviz.charts.theme import Mode
    from lsviz.figurefiles import Size, write_figure
    from lsviz.figures import Subject

    if scheme not in SCHEMES:
        raise UserError(f"unknown scheme {scheme!r}; choose one of: {', '.join(SCHEMES)}")
    size = Size(width, height, scale)
    found = [find_run(each, runs) for each in (run, *(others or []))]
    write_figure(name, Subject(found, cast(Mode, scheme), step), out, size)
    print(out.resolve())
