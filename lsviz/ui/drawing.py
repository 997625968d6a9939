"""Figures that many visitors look at, made once: a class that opens the same page at the same moment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import plotly.graph_objects as go
import streamlit as st

from lsviz.analysis.findings import RunShares
from lsviz.analysis.view import RunView
from lsviz.charts.theme import Mode
from lsviz.charts.views import spectra_figure, view_shares
from lsviz.ui.ahead import beside

Key = tuple[tuple[object, ...], ...]


def drawn_shares(views: Sequence[RunView], step: int) -> list[RunShares]:
    """Return `view_shares`, from memory where these runs have not changed since. Never change it."""
    return _shares(_key(views), step, views)


def drawn_spectra(views: Sequence[RunView], step: int, mode: Mode) -> go.Figure:
    """Return `spectra_figure`, from memory where these runs have not changed since. Never change it."""
    return _spectra(_key(views), step, mode, views)


def steps_beside(
    views: Sequence[RunView], steps: Sequence[int], step: int, mode: Mode
) -> list[partial[go.Figure]]:
    """Return what draws the steps after and before one, to be done while a visitor looks at it.

    Args:
        views: The runs.
        steps: All that can be shown, in order.
        step: The one that is shown.
        mode: ``light`` or ``dark``.
    """
    return [partial(drawn_spectra, views, other, mode) for other in beside(steps, steps.index(step))]


def _key(views: Sequence[RunView]) -> Key:
    """What tells these runs' contents apart from others'."""
    return tuple(
        (v.record.model_dump_json(), v.status.model_dump_json(), len(v.steps), len(v.exponents))
        for v in views
    )


@st.cache_resource(max_entries=256, show_spinner=False)
def _shares(key: Key, step: int, _views: Sequence[RunView]) -> list[RunShares]:
    return view_shares(_views, step)


@st.cache_resource(max_entries=128, show_spinner=False)
def _spectra(key: Key, step: int, mode: Mode, _views: Sequence[RunView]) -> go.Figure:
    return spectra_figure(_views, drawn_shares(_views, step), step, mode)
