"""Parts that several pages share: figures, notes, glossary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lsviz.analysis.findings import RunShares, finding
from lsviz.analysis.lessons import load_glossary
from lsviz.analysis.view import RunView
from lsviz.charts.views import spectra_frame, view_labels
from lsviz.runs.reader import Run
from lsviz.runs.showing import showable
from lsviz.runs.store import BrokenRun, RunStore
from lsviz.ui.drawing import drawn_spectra
from lsviz.ui.links import link_page
from lsviz.ui.marking import Marks
from lsviz.ui.painting import comes_later, is_first_picture, keep_place
from lsviz.ui.saving import Data, show_saving
from lsviz.ui.state import colour_mode, run_store
from lsviz.ui.text import plain

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

GLOSSARY_HEIGHT: Final = 460
FEW_ROWS: Final = 100
"""Up to which `show_rows` is the table to take."""
HOW_TO_READ: Final = "Dotted: what FP32 has. Filled: what the run keeps. Pale: what FP16 flushes to zero."

_PLOTLY_CONFIG: Final = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2, "filename": "lsviz"},
    "showSendToCloud": False,
}


def heading_place(page: str) -> DeltaGenerator:
    """Return where a page says first what it has found; the frame's style keeps room there for long answers.

    Args:
        page: Its name; below, nothing moves when another answer takes another line.
    """
    return st.container(key=f"heading_{page}")


def show_figure(
    figure: go.Figure,
    key: str,
    alt: str,
    data: Data,
    marks: Marks | None = None,
    *,
    second: bool = False,
) -> None:
    """Draw a figure in its own colours, with a text for those who can't see it and ways to save it.

    Args:
        figure: What to draw.
        key: Its own on the page.
        alt: What one sees.
        data: The numbers that it shows, for its CSV, or how to make them.
        marks: What is drawn over it and moves without it, and what a click on a row does.
        second: Whether it stands under the page's first figure, which need not wait for it.
    """
    if second and comes_later(key):
        _show_later(figure, key, alt, data, marks)
    else:
        _draw(figure, key, alt, data, marks)


def _draw(figure: go.Figure, key: str, alt: str, data: Data, marks: Marks | None) -> None:
    st.plotly_chart(figure, theme=None, key=key, alt=alt, config=_PLOTLY_CONFIG)
    show_saving(key, data, marks)


@st.fragment
def _show_later(figure: go.Figure, key: str, alt: str, data: Data, marks: Marks | None) -> None:
    """Keep a figure's place; this part alone runs again, so that what the page said the first time stays."""
    if is_first_picture():
        keep_place(key, figure.layout.height)
        show_saving(key, data)
    else:
        _draw(figure, key, alt, data, marks)


def show_spectra(views: Sequence[RunView], shares: Sequence[RunShares], step: int, key: str) -> None:
    """Draw the exponent figure of one to four runs at one step."""
    alt = f"Gradient exponents per layer at step {step}. {finding(shares)}"
    show_figure(drawn_spectra(views, step, colour_mode()), key, alt, lambda: spectra_frame(views, step))


def show_pictures(views: Sequence[RunView]) -> None:
    """Show what the models drew beside what they should, where the task is one to be seen."""
    drawn = [(label, v) for label, v in zip(view_labels(views), views, strict=True) if v.picture]
    if not drawn:
        return
    originals = {v.original: v.record.config.task for _, v in drawn if v.original}
    pictures = [(picture, "original") for picture in originals]
    for label, view in drawn:
        metric = view.last_metric
        value = "" if metric is None else f": {view.record.metric_name} {metric:.3g}"
        pictures.append((view.picture, f"{label}{value}"))
    for column, (picture, caption) in zip(st.columns(max(4, len(pictures))), pictures, strict=False):
        alt = "What was to be learned" if caption == "original" else f"What the model drew with {caption}"
        column.image(picture, caption=plain(caption), width="stretch", alt=alt)


def show_cautions(cautions: Sequence[str]) -> None:
    """Say what to mind before one follows what a page found."""
    for caution in cautions:
        st.warning(plain(caution), icon=":material/info:")


def show_glossary() -> None:
    """Offer the words of the page."""
    popover = st.popover("Glossary", icon=":material/help:", type="tertiary")
    with popover, st.container(height=GLOSSARY_HEIGHT, border=False):
        # One element: thirty would cost each visitor's browser thirty times what one does.
        st.markdown("\n\n".join(f"**{word}** {meaning}" for word, meaning in load_glossary().items()))


def show_rows(frame: pd.DataFrame, alt: str, *, height: int | None = None) -> None:
    """Show a table of few rows, literally. What Streamlit has for many takes a browser longer to load.

    Args:
        frame: What it says, in words and numbers; its first column names the rows.
        alt: What one sees.
        height: Of the whole, in pixels, to be scrolled.
    """
    shown = frame.astype(object).map(plain).rename(columns=plain)
    st.table(shown, border="horizontal", hide_index=True, alt=alt, height=height or "content")


def show_command(command: str) -> None:
    """Offer a command to copy. What is shut needs no browser's highlighter, which is a third of Plotly."""
    with st.popover("As a command", icon=":material/terminal:", type="tertiary"):
        st.code(command, language=None, wrap_lines=True)


def runs_or_stop(title: str, words: str) -> tuple[RunStore, list[Run]]:
    """Return all runs, newest first, and where they are from; without any say so, and end the page.

    Args:
        title: That there is none yet.
        words: What belongs on the page and how to get it.
    """
    store = run_store()
    runs = store.list_runs()
    if not runs:
        st.header(title)
        st.write(words)
        link_page("launch", "Launch a run")
        show_problems([], store.list_broken())
        st.stop()
    return store, runs


def show_problems(
    views: Sequence[RunView], broken: Sequence[BrokenRun] = (), others: Sequence[str] = ()
) -> None:
    """Tell what could not be read, and which runs were made of other programs' logs; the rest stands."""
    for view in views:
        if view.record.source:
            st.caption(plain(f"{view.record.run_id}: {view.record.source}"))
    lines = [*others]
    lines += [f"{view.record.run_id}: {problem}" for view in views for problem in view.problems]
    lines += [b.reason for b in broken]
    if lines:
        title = "1 file can't be read" if len(lines) == 1 else f"{len(lines)} files can't be read"
        with st.expander(title, icon=":material/broken_image:"):
            st.code(showable("\n".join(lines)), language=None, wrap_lines=True)
