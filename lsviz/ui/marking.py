"""What is drawn over a figure without drawing it anew, and clicks on its rows.

Streamlit makes a figure anew wherever it differs in anything, which takes a browser a tenth of a second
and more. A line or a frame that moves with a control is therefore drawn by the page itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Marks:
    """What belongs over a figure.

    Attributes:
        shapes: Lines and rectangles as Plotly takes them: ``type``, ends, the axes they refer to (``x2``,
            ``y domain``), and ``line`` with colour, width and dash.
        rows: Where given, what is told of a click on a mark at y = 0, 1, and so on.
        on_row: Called with that.
    """

    shapes: Sequence[dict[str, Any]] = ()
    rows: Sequence[str] = ()
    on_row: Callable[[str], None] | None = None


MARKING_JS: Final = """
const SVG = 'http://www.w3.org/2000/svg';

function place(layout, ref, value) {
  const axis = layout[`${ref[0]}axis${ref.slice(1).split(' ')[0]}`];
  if (!axis) return NaN;
  const share = ref[0] === 'x' ? value : 1 - value;
  const inside = ref.endsWith('domain') ? share * axis._length : axis.l2p(axis.r2l(value));
  return axis._offset + Math.min(Math.max(inside, -1), axis._length + 1);
}

function drawShapes(plot) {
  const svg = plot.querySelector('.main-svg');
  const layout = plot._fullLayout;
  if (!svg || !layout) return;
  svg.querySelector('.lsviz-marks')?.remove();
  const group = document.createElementNS(SVG, 'g');
  group.setAttribute('class', 'lsviz-marks');
  group.setAttribute('pointer-events', 'none');
  for (const { type, xref, yref, x0, x1, y0, y1, line } of plot.lsvizMarks.shapes) {
    const [a, b] = [place(layout, xref, x0), place(layout, xref, x1)];
    const [c, d] = [place(layout, yref, y0), place(layout, yref, y1)];
    if ([a, b, c, d].some(Number.isNaN)) continue;
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', type === 'line' ? `M${a},${c}L${b},${d}` : `M${a},${c}H${b}V${d}H${a}Z`);
    path.setAttribute('fill', 'none');
    path.setAttribute('stroke', line.color);
    path.setAttribute('stroke-width', line.width);
    if (line.dash) path.setAttribute('stroke-dasharray', '9 9');
    group.append(path);
  }
  svg.append(group);
}

// The figure may come later than this, and another in its place: whatever stands there is marked.
function mark({ data, setTriggerValue, parentElement }) {
  parentElement.lsvizLeave?.(); // Streamlit calls this again for other data without having left
  if (!data.shapes) return;
  let plot = null;
  const look = () => {
    const now = document.querySelector(`.st-key-${data.figure} .js-plotly-plot`);
    if (!now?.on || now === plot) return;
    plot = now;
    const known = plot.lsvizMarks;
    plot.lsvizMarks = { ...data, tell: (row) => setTriggerValue('row', row) };
    if (!known) listen(plot);
    drawShapes(plot);
  };
  const observer = new MutationObserver(look);
  const main = document.querySelector('[data-testid="stMain"]') ?? document.body;
  observer.observe(main, { childList: true, subtree: true });
  parentElement.lsvizLeave = () => observer.disconnect();
  look();
  return parentElement.lsvizLeave;
}

function listen(plot) {
  plot.on('plotly_afterplot', () => drawShapes(plot));
  plot.on('plotly_click', ({ points }) => {
    const row = plot.lsvizMarks.rows[points[0].y];
    if (row !== undefined) plot.lsvizMarks.tell(row);
  });
}
"""
"""Beside the component's own script, which calls ``mark`` with what Streamlit gives it."""
