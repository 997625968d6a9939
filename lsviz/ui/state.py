"""Every key of URL and session in one table, and where runs lie.

A key is a widget's key and its name in the URL. Values from a URL are untrusted: each is checked where
it is read, against options or by `RunConfig`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import streamlit as st

import lsviz
from lsviz.charts.theme import Mode
from lsviz.runs.store import RunStore, default_root

KEYS: Final[dict[str, str]] = {
    "step": "Explore, Compare: the step shown",
    "setting": "Explore: what is trained",
    "beside": "Explore: the run beside the unscaled one",
    "runs": "Compare: run ids, comma-separated",
    "run": "Launch: the run watched",
    "task": "Launch: what to train",
    "policy": "Launch: loss-scaling policy, string form",
    "precision": "Launch: number format",
    "steps": "Launch: number of steps",
    "seed": "Launch: seed",
    "loss_weight": "Launch: factor on the loss",
    "init_gain": "Launch: factor on the initial weights",
    "optimizer": "Launch: optimizer",
    "lr": "Launch: learning rate",
    "update": "Launch: how the update undoes S",
    "clip": "Launch: gradient clipping threshold",
    "clip_order": "Launch: when gradients are clipped",
    "l2": "Launch: coupled L2 penalty",
    "l2_order": "Launch: when L2 joins",
    "on_overflow": "Launch: skip or retry",
    "master_weights": "Launch: FP32 weights",
    "check_update": "Launch: hold the update against float64",
    "record_every": "Launch: record every N steps",
    "reference_every": "Launch: reference every N steps",
    "seen": "What-if, Replay, Blame: the run asked",
    "replayed": "Replay: string forms of policies, semicolon-separated",
    "inject": "Launch: faults, step:layer:kind, comma-separated",
    "format": "What-if: the number format cast to",
    "ask": "What-if: the loss scale whose shares are listed",
    "policies": "Policies: string forms, semicolon-separated",
    "driven_by": "Policies: overflows or largest gradients",
    "pattern": "Policies: O for an overflow, . for a clean step",
    "amax": "Policies: largest unscaled gradient of each step",
    "same_start": "Policies: whether all begin alike",
    "experiment": "Reproduce: the experiment whose metric is drawn",
    "rescue": "Reproduce: the loss scale whose band is framed",
    "rule": "Updates: the way to update that is told closely",
}
"""URL keys and what they hold."""

MAX_COMPARED: Final = 4
_WATCHED: Final = "watched_run"


def samples_root() -> Path:
    """Return where the shipped runs lie: $LSVIZ_SAMPLES, or ``sample_runs`` beside the package."""
    return Path(os.environ.get("LSVIZ_SAMPLES") or Path(lsviz.__file__).resolve().parents[1] / "sample_runs")


def run_store() -> RunStore:
    """Return all runs a page can show: launched ones and samples."""
    return RunStore.at(default_root(), samples_root())


def colour_mode() -> Mode:
    """Return the theme that the browser shows."""
    return "dark" if st.context.theme.type == "dark" else "light"


def watched_run() -> str | None:
    """Return the run that Launch shows: from the URL, else the one last watched in this session."""
    run_id = st.query_params.get("run") or st.session_state.get(_WATCHED)
    watch(run_id)
    return run_id


def watch(run_id: str | None) -> None:
    """Make Launch show this run, or none, also when one comes back to the page."""
    st.session_state[_WATCHED] = run_id
    st.query_params.pop("runs", None)  # another page's
    if run_id:
        st.query_params["run"] = run_id
    else:
        st.query_params.pop("run", None)


def url_list(key: str, separator: str = ",") -> list[str]:
    """Return a separated URL value as a list, each part once."""
    parts = st.query_params.get(key, "").split(separator)
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def set_url_list(key: str, values: Sequence[str], separator: str = ",") -> None:
    """Write a list into the URL; an empty one removes the key."""
    if values:
        st.query_params[key] = separator.join(values)
    else:
        st.query_params.pop(key, None)
