"""Keeping a zoom where a figure is drawn anew: Streamlit makes a new plot of every figure that changed.

The browser tells which axes were zoomed, the session keeps them, and the next figure begins there.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import plotly.graph_objects as go
import streamlit as st

_AXIS: Final = re.compile(r"[xy]axis[1-9]?")
_LOOK_MS: Final = 250

_JS: Final = """
export default function({ data, setStateValue }) {
  let bound = null;
  const told = { ...data.zoom };
  const note = (change) => {
    for (const name of Object.keys(change)) {
      const [axis, part] = name.split('.');
      if (!/^[xy]axis[1-9]?$/.test(axis)) continue;
      if (part === 'autorange') delete told[axis];
      else if (part && part.startsWith('range')) told[axis] = [...bound.layout[axis].range];
    }
    setStateValue('zoom', { ...told });
  };
  // Whenever the plot is another one: bind to it.
  const look = () => {
    const plot = document.querySelector(`.st-key-${data.figure} .js-plotly-plot`);
    if (!plot || plot === bound || !plot.on) return;
    bound = plot;
    plot.on('plotly_relayout', note);
  };
  look();
  const timer = setInterval(look, data.every);
  return () => {
    clearInterval(timer);
    if (bound && bound.removeListener) bound.removeListener('plotly_relayout', note);
  };
}
"""


def keep_zoom(figure: go.Figure, key: str) -> None:
    """Draw a figure's axes as they were zoomed last. Call it before the figure is shown.

    Args:
        figure: Changed where it was zoomed; a double click in it shows all again.
        key: The figure's key, as `lsviz.ui.widgets.show_figure` takes it.
    """
    zoom = zoomed_axes(
        _component()(
            key=f"zoom-{key}",
            data={"figure": key, "zoom": _kept(key), "every": _LOOK_MS},
            default={"zoom": _kept(key)},
            on_zoom_change=lambda: None,
            height=1,
        ).zoom
    )
    drawn = {name: ends for name, ends in zoom.items() if name in figure.layout}
    figure.update_layout({name: {"range": ends, "autorange": False} for name, ends in drawn.items()})


def zoomed_axes(told: Any) -> dict[str, list[float]]:
    """Return which axes were zoomed to what, of what a browser tells: nothing else passes."""
    if not isinstance(told, dict):
        return {}
    return {
        name: [float(end) for end in ends]
        for name, ends in told.items()
        if isinstance(name, str)
        and _AXIS.fullmatch(name)
        and isinstance(ends, (list, tuple))
        and len(ends) == 2
        and all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends)
    }


def _kept(key: str) -> dict[str, list[float]]:
    state = st.session_state.get(f"zoom-{key}")
    return zoomed_axes(state.get("zoom") if state is not None else None)


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    return st.components.v2.component("lsviz_zoom", js=_JS)
