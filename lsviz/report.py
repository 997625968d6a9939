"""One self-contained HTML file about some runs: it opens offline, and holds every figure."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import plotly.graph_objects as go
import plotly.io

from lsviz import __version__
from lsviz.analysis.compare import difference_frame, run_label, settings_and_results
from lsviz.analysis.view import RunView
from lsviz.charts.theme import FONT, PALETTES, Mode
from lsviz.charts.views import view_labels
from lsviz.errors import UserError
from lsviz.figures import (
    MAX_FACETS,
    MAX_RUNS,
    Section,
    Subject,
    curves,
    headroom,
    history,
    reaction,
    spectra,
    timelines,
    whatif,
)
from lsviz.runs.files import writing_whole
from lsviz.runs.reader import Run

_CONFIG: Final = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
_STYLE: Final = """
body {{ font-family: {font}; color: {text}; background: {paper}; max-width: 1240px; margin: 2rem auto;
  padding: 0 1rem; line-height: 1.45 }}
h1 {{ font-size: 1.8rem }} h2 {{ font-size: 1.25rem; margin: 2.2rem 0 .3rem }}
p, figcaption, footer {{ color: {muted}; margin: .2rem 0 }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .92rem }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid {grid}; white-space: nowrap }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1rem }} figure {{ margin: 0; max-width: 256px }}
figure img {{ width: 100%; image-rendering: pixelated; border-radius: 4px }}
"""


class ReportError(UserError):
    """No report can be made of these runs; the message says why."""


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write a report about runs to an HTML file, as a whole or not at all.

    Raises:
        ReportError: There are no runs, or too many.
        RunError: A run can't be read.
        RunFolderError: The file can't be written.
    """
    document = report_html(runs)
    with writing_whole(path) as temporary:
        temporary.write_text(document, encoding="utf-8")


def report_html(runs: Sequence[Run]) -> str:
    """Return the report as HTML: figures of the first four runs, curves and tables of all.

    Raises:
        ReportError: There are no runs, or too many.
        RunError: A run can't be read.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ReportError(f"a report takes 1 to {MAX_RUNS} runs, got {len(runs)}")
    subject = Subject(runs)
    sections = [
        section
        for make in (spectra, whatif, timelines, headroom, reaction, curves, history)
        for section in make(subject)
    ]
    sections += [*_pictures(subject.shown), _differences(subject.views)]
    return page(sections, subject.views)


def _pictures(views: Sequence[RunView]) -> list[Section]:
    drawn = [(label, v) for label, v in zip(view_labels(views), views, strict=True) if v.picture]
    if not drawn:
        return []
    originals = {view.original: "original" for _, view in drawn if view.original}
    items = [*originals.items(), *((view.picture, label) for label, view in drawn)]
    figures = [
        f'<figure><img alt="{html.escape(label)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture).decode()}"><figcaption>{html.escape(label)}</figcaption></figure>'
        for picture, label in items
        if picture
    ]
    return [Section("What each run learned", f'<div class="pictures">{"".join(figures)}</div>')]


def _differences(views: Sequence[RunView]) -> Section:
    rows = [settings_and_results(v.record, v.steps, v.status) for v in views]
    frame = difference_frame(view_labels(views), rows)
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in ["", *frame.columns])
    body = "".join(
        f"<tr><th>{html.escape(str(key).replace('_', ' '))}</th>"
        + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row)
        + "</tr>"
        for key, row in zip(frame.index, frame.astype(object).to_numpy(), strict=True)
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return Section("What differs" if len(views) > 1 else "Settings and results", table)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:,.5g}" if isinstance(value, float) else str(value)


def page(sections: Sequence[Section], views: Sequence[RunView], mode: Mode = "light") -> str:
    """Return parts of a report as one HTML page that needs nothing else.

    Args:
        sections: From top to bottom.
        views: The runs that they are of.
        mode: ``light`` or ``dark``, as their figures were drawn.
    """
    palette = PALETTES[mode]
    style = _STYLE.format(
        font=FONT, text=palette.text, muted=palette.muted, grid=palette.grid, paper=palette.paper
    )
    title = html.escape(
        ", ".join(dict.fromkeys(run_label(view.record.config) for view in views[:MAX_FACETS]))
    )
    tasks = html.escape(", ".join(dict.fromkeys(view.record.config.task for view in views)))
    parts, library = [], True
    for section in sections:
        body = section.body
        if isinstance(body, go.Figure):
            body = plotly.io.to_html(body, include_plotlyjs=library, full_html=False, config=_CONFIG)
            library = False
        caption = f"<p>{html.escape(section.caption)}</p>" if section.caption else ""
        parts.append(f"<section><h2>{html.escape(section.title)}</h2>{caption}{body}</section>")
    problems = [f"{view.record.run_id}: {problem}" for view in views for problem in view.problems]
    told = "".join(f"<p>{html.escape(problem)}</p>" for problem in problems)
    left = (
        f"<p>Figures show the first {MAX_FACETS} of {len(views)} runs.</p>" if len(views) > MAX_FACETS else ""
    )
    made = f"Made by lsviz {__version__}: {', '.join(view.record.run_id for view in views)}."
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lsviz: {tasks}</title><style>{style}</style></head><body>"
        f"<h1>{tasks}: {title}</h1>{left}{told}{''.join(parts)}"
        f"<footer><p>{html.escape(made)}</p></footer></body></html>\n"
    )
