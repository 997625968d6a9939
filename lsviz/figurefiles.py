"""Figures as files: drawings by kaleido, which lets the Chromium at hand draw, pages, and Plotly's JSON.

Nothing is fetched: Plotly's script lies beside its Python half, no formulas are set, and the browser is given
a proxy that does not exist, so that it reaches nobody either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import plotly.io

from lsviz import figures
from lsviz.errors import UserError
from lsviz.figures import CURVE_POINTS, MAX_FACETS, MAX_RUNS, Section, Subject
from lsviz.jobs.browser import NO_BROWSER, find_browser
from lsviz.report import page
from lsviz.runs.files import writing_whole

DRAWN: Final = ("png", "svg", "pdf")
KINDS: Final = (*DRAWN, "html", "json")
"""Endings of file names; those of DRAWN take kaleido and a browser."""
DEFAULT_WIDTH: Final = 1000
SIZES: Final = (100, 10_000)
"""Pixels of a side, at scale 1."""
SCALES: Final = (0.1, 10.0)
MAX_PIXELS: Final = 16_000
"""Of a PNG's side: past it Chromium draws nothing."""
_NOWHERE: Final = "http://127.0.0.1:9"
_DEADLINE: Final = 180.0


@dataclass(frozen=True, slots=True)
class Named:
    """A figure that one can ask for by name.

    Attributes:
        make: Draws it: a part for each figure that there is to draw, none where there is nothing.
        missing: What to say where there is none.
        most: Of how many runs it is drawn.
    """

    make: Callable[[Subject], list[Section]]
    missing: str
    most: int = MAX_FACETS


_GRADIENTS: Final = "recorded gradients, at a step that all of its runs share"
_ASKED: Final = "gradients that can be asked; record some with --record-every 10"
_REFERENCE: Final = "an FP32 reference; record some with --reference-every 10"
_CURVE: Final = f"{CURVE_POINTS} constant scales of one task; name more runs with --with"
FIGURES: Final = {
    "spectra": Named(figures.spectra, _GRADIENTS),
    "layers": Named(figures.layers, _GRADIENTS),
    "timelines": Named(figures.timelines, "steps"),
    "flushed": Named(figures.flushed, _REFERENCE),
    "whatif": Named(figures.whatif, _ASKED, 1),
    "scales": Named(figures.scales, _ASKED, 1),
    "headroom": Named(figures.headroom, _ASKED, 1),
    "reaction": Named(figures.reaction, "an injected fault, as --inject 20:layer3:inf", MAX_RUNS),
    "metric": Named(figures.metric, "a measured metric", MAX_RUNS),
    "curve": Named(figures.curve, _CURVE, MAX_RUNS),
    "history": Named(figures.history, _REFERENCE, 1),
}


def named_figure(name: str, subject: Subject) -> Section:
    """Return the figure of a name, with title and caption.

    Raises:
        UserError: There is none of that name, or nothing to draw in these runs.
        RunError: A run can't be read.
    """
    figure = find_figure(name)
    if len(subject.runs) > figure.most:
        number = "1 run" if figure.most == 1 else f"1 to {figure.most} runs"
        raise UserError(f"figure {name} is drawn of {number}, got {len(subject.runs)}")
    made = figure.make(subject)
    if not made:
        raise UserError(f"nothing to draw: {name} needs {figure.missing}")
    if len(made) > 1:
        tasks = ", ".join(dict.fromkeys(run.config.task for run in subject.runs))
        raise UserError(f"figure {name} is drawn of runs of one task, got {tasks}")
    return made[0]


def find_figure(name: str) -> Named:
    """Return what draws the figure of a name.

    Raises:
        UserError: There is none.
    """
    if name not in FIGURES:
        raise UserError(f"unknown figure {name!r}; choose one of: {', '.join(FIGURES)}")
    return FIGURES[name]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a figure is drawn.

    Attributes:
        width: Pixels.
        height: Pixels; as many as the figure itself asks for where None.
        scale: Pixels of a PNG for each of them.
    """

    width: int = DEFAULT_WIDTH
    height: int | None = None
    scale: float = 2.0

    def check(self, height: int) -> None:
        """Raise UserError where a side is out of bounds.

        Args:
            height: What is drawn where none is asked for.
        """
        if not SCALES[0] <= self.scale <= SCALES[1]:
            raise UserError(f"scale: should be {SCALES[0]:g} to {SCALES[1]:g}, got {self.scale:g}")
        for name, value in (("width", self.width), ("height", self.height or height)):
            if not SIZES[0] <= value <= SIZES[1]:
                raise UserError(f"{name}: should be {SIZES[0]} to {SIZES[1]} pixels, got {value}")
            if value * self.scale > MAX_PIXELS:
                most = f"{MAX_PIXELS / value:.3g}"
                raise UserError(f"scale: at {name} {value} it should be at most {most}, got {self.scale:g}")


def file_kind(path: Path) -> str:
    """Return which kind of file a name asks for.

    Raises:
        UserError: None that there is.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise UserError(f"can't tell what {path.name!r} should be; end it in: .{', .'.join(KINDS)}")
    return kind


def write_figure(name: str, subject: Subject, path: Path, size: Size) -> None:
    """Write a figure to a file, as a whole or not at all; the ending of its name tells the kind.

    Raises:
        UserError: There is no such figure or nothing to draw, or what draws it is missing.
        RunError: A run can't be read.
        RunFolderError: The file can't be written.
    """
    kind = file_kind(path)
    find_figure(name)
    size.check(SIZES[0])
    draw = drawing_with(kind) if kind in DRAWN else None
    section = named_figure(name, subject)
    if draw is None:
        data = _told(section, subject, kind, size)
    else:
        figure = _sized(section, size)
        size.check(figure["layout"]["height"])
        data = draw(figure, {"format": kind, "scale": size.scale if kind == "png" else 1})
    with writing_whole(path) as temporary:
        temporary.write_bytes(data)


def _told(section: Section, subject: Subject, kind: str, size: Size) -> bytes:
    """Return a page, which is as wide as its window, or Plotly's JSON."""
    if kind == "html":
        return page([section], subject.views, subject.mode).encode()
    return f"{plotly.io.to_json(_sized(section, size), validate=False)}\n".encode()


def _sized(section: Section, size: Size) -> dict[str, Any]:
    if isinstance(section.body, str):
        raise TypeError("a table is no figure")
    figure: dict[str, Any] = section.body.to_dict()
    layout = figure["layout"]
    figure["layout"] = {**layout, "width": size.width, "height": size.height or layout.get("height", 450)}
    return figure


Draw = Callable[[dict[str, Any], dict[str, Any]], bytes]


def drawing_with(kind: str) -> Draw:
    """Return what makes a file's bytes of a figure and kaleido's options.

    Raises:
        UserError: kaleido or a browser is missing; the message tells how to get it.
    """
    try:
        import kaleido
        from choreographer.errors import ChromeNotFoundError
    except ImportError:
        raise UserError(
            f".{kind} needs the package kaleido: pip install 'lsviz[export]'; .html and .json need nothing"
        ) from None
    browser = find_browser()

    def draw(figure: dict[str, Any], options: dict[str, Any]) -> bytes:
        given = {"path": browser, "mathjax": False, "proxy_server": _NOWHERE, "timeout": _DEADLINE}
        try:
            # Without a browser of ours kaleido looks for one that it was told to download before.
            drawn: bytes = kaleido.calc_fig_sync(figure, opts=options, kopts=given)
        except ChromeNotFoundError:
            raise UserError(f".{kind} needs a browser: {NO_BROWSER}; .html and .json need none") from None
        except Exception as error:  # whatever a browser that does not start or answer makes of it
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{browser or 'the browser'} did not draw the figure: {said}") from None
        return drawn

    return draw
