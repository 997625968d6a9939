"""What stands under every figure: PNG and SVG, drawn by the browser, and CSV of what it shows.

The two buttons are a component of their own, which also draws what is marked over the figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pandas as pd
import streamlit as st

from lsviz.runs.tables import csv_text
from lsviz.ui.marking import MARKING_JS, Marks

Data = pd.DataFrame | Callable[[], pd.DataFrame]

# Plotly keeps its own saver, fonts and all, behind the button of its mode bar, for one format at a time.
_JS: Final = (
    f"""{MARKING_JS}
export default function(component) {{
  offerSaving(component);
  return mark(component);
}}
"""
    + """
function offerSaving({ data, parentElement }) {
  const save = (format) => () => {
    const plot = document.querySelector(`.st-key-${data.figure} .js-plotly-plot`);
    const button = plot && plot.querySelector('.modebar-btn[data-title^="Download"]');
    if (!button) return;
    plot._context.toImageButtonOptions = { format, scale: 2, filename: data.file };
    const { shapes } = plot.layout;
    plot.layout.shapes = [...(shapes ?? []), ...(plot.lsvizMarks?.shapes ?? [])];
    button.click();
    plot.layout.shapes = shapes;
  };
  for (const button of parentElement.querySelectorAll('button')) button.onclick = save(button.value);
}
"""
)
_HTML: Final = """<button value="png" title="Save this figure as a PNG picture">PNG</button>
<button value="svg" title="Save this figure as an SVG drawing">SVG</button>"""
_CSS: Final = """
:host { display: block }
button { font: 400 0.875rem var(--st-font); color: var(--st-text-color); background: none; border: none;
  padding: .25rem .4rem; cursor: pointer; border-radius: .25rem }
button:hover, button:focus-visible { background: var(--st-secondary-background-color) }
"""


def show_saving(key: str, data: Data, marks: Marks | None = None) -> None:
    """Offer a figure as PNG and SVG, and its numbers as CSV.

    Args:
        key: The figure's key.
        data: What it shows, a row a mark, or how to make that, once it is asked for.
        marks: What is drawn over it, and clicks on it.
    """
    file = f"lsviz-{key.replace('_', '-')}"
    with st.container(
        horizontal=True,
        gap="xxsmall",
        key=f"save-{key}",
        horizontal_alignment="right",
        vertical_alignment="center",
    ):
        st.markdown(":material/download:", width="content")
        told: dict[str, Any] = {"figure": key, "file": file}
        called: dict[str, Callable[[], None]] = {}
        if marks is not None:
            told |= {"shapes": list(marks.shapes), "rows": list(marks.rows)}
            if marks.on_row is not None:
                called["on_row_change"] = lambda: _tell_row(saver, marks.on_row)
        saver = f"saver-{key}"
        _saver()(key=saver, data=told, width="content", **called)

        def make() -> bytes:
            return csv_text(data() if callable(data) else data).encode()

        st.download_button(
            "CSV",
            make,
            f"{file}.csv",
            "text/csv",
            key=f"csv-{key}",
            type="tertiary",
            help="The numbers behind this figure.",
            on_click="ignore",
        )


def _tell_row(saver: str, on_row: Callable[[str], None]) -> None:
    row = st.session_state[saver].row
    if row is not None:
        on_row(row)


@st.cache_resource(show_spinner=False)
def _saver() -> Any:
    """Register the two buttons once a server."""
    return st.components.v2.component("lsviz_saver", html=_HTML, css=_CSS, js=_JS)
