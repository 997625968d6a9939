"""Every key of the URL in one table: what it holds, where it is asked for, and what hides it.

A key is a widget's key and its name in the URL. Values from a URL are untrusted: each is checked where
it is read, against options or by `RunConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Key:
    """One value that an address can hold.

    Attributes:
        pages: The pages that ask for it, by file name.
        words: What it holds.
        widgets: Beginnings of the keys of what is drawn to ask for it; the name itself where empty.
    """

    pages: tuple[str, ...]
    words: str
    widgets: tuple[str, ...] = ()


KEYS: Final[dict[str, Key]] = {
    "step": Key(("explore", "compare", "layers"), "the step shown", ("step_controls",)),
    "setting": Key(("explore",), "what is trained"),
    "beside": Key(("explore",), "the run beside the unscaled one"),
    "runs": Key(("compare", "layers"), "run ids, comma-separated", ("chosen_runs",)),
    "kind": Key(("layers",), "gradients of outputs or of weights"),
    "values": Key(("layers",), "FP32 times S, or what was recorded"),
    "layers": Key(("layers",), "parts of the names of the layers shown"),
    "layer": Key(("layers",), "the layer whose history is shown"),
    "run": Key(("launch",), "the runs watched, up to four, comma-separated"),
    "also": Key(("launch",), "policies started beside it, semicolon-separated", ("launch_also",)),
    "search": Key(("runs",), "words that a listed run holds"),
    "marked": Key(("runs",), "run ids that are ticked, comma-separated", ("runs_table", "run_actions")),
    "task": Key(("launch",), "what to train"),
    "policy": Key(("launch",), "loss-scaling policy, string form", ("policy-",)),
    "precision": Key(("launch",), "number format"),
    "steps": Key(("launch",), "number of steps"),
    "seed": Key(("launch",), "seed"),
    "engine": Key(("launch",), "this machine, or the CPUs or GPUs of a Ray cluster"),
    "loss_weight": Key(("launch",), "factor on the loss"),
    "init_gain": Key(("launch",), "factor on the initial weights"),
    "optimizer": Key(("launch",), "optimizer"),
    "lr": Key(("launch",), "learning rate"),
    "update": Key(("launch",), "how the update undoes S"),
    "clip": Key(("launch",), "gradient clipping threshold"),
    "clip_order": Key(("launch",), "when gradients are clipped"),
    "l2": Key(("launch",), "coupled L2 penalty"),
    "l2_order": Key(("launch",), "when L2 joins"),
    "on_overflow": Key(("launch",), "skip or retry"),
    "master_weights": Key(("launch",), "FP32 weights"),
    "check_update": Key(("launch",), "hold the update against float64"),
    "record_every": Key(("launch",), "record every N steps"),
    "reference_every": Key(("launch",), "reference every N steps"),
    "seen": Key(("whatif", "replay", "blame"), "the run asked"),
    "replayed": Key(("replay",), "string forms of policies, semicolon-separated", ("replayed_policies",)),
    "inject": Key(("launch",), "faults, step:layer:kind, comma-separated"),
    "format": Key(("whatif",), "the number format cast to"),
    "closer": Key(("whatif",), "what is drawn below the slider"),
    "ask": Key(("whatif",), "the loss scale whose shares are listed"),
    "policies": Key(
        ("policies",), "string forms, semicolon-separated", ("traced-overflows", "traced-largest-gradients")
    ),
    "driven_by": Key(("policies",), "overflows or largest gradients"),
    "pattern": Key(("policies",), "O for an overflow, . for a clean step"),
    "amax": Key(("policies",), "largest unscaled gradient of each step"),
    "same_start": Key(("policies",), "whether all begin alike"),
    "experiment": Key(("reproduce",), "the experiment whose metric is drawn"),
    "picture": Key(("reproduce",), "the U-curve or the gradients over a training"),
    "rescue": Key(("reproduce",), "the loss scale whose band is framed"),
    "rule": Key(("updates",), "the way to update that is told closely"),
    "lesson": Key(("learn",), "the lesson shown", ("learn_contents", "learn_neighbours")),
    "token": Key((), "the server's token, which is taken out of the address at once"),
    "hide": Key((), "controls to leave out, comma-separated"),
}
"""URL keys and what they hold."""

PARTS: Final[dict[str, Key]] = {
    "navigation": Key((), "the pages' names at the top"),
    "menu": Key((), "glossary, sharing and keys at the top right", ("page_menu",)),
    "save": Key((), "PNG, SVG and CSV under each figure", ("save-",)),
}
"""What can be hidden besides the controls of KEYS."""

_NAVIGATION: Final = '[data-testid="stTopNavLinkContainer"], [data-testid="stTopNavSection"]'


def hideable(page: str) -> dict[str, str]:
    """Return what a page has that can be hidden: name and words."""
    found = {name: key.words for name, key in KEYS.items() if page in key.pages}
    return found | {name: part.words for name, part in PARTS.items()}


def hiding_style(names: Sequence[str]) -> str:
    """Return the CSS that hides controls by name; names that there are not hide nothing."""
    selectors = []
    for name in dict.fromkeys(names):
        if name == "navigation":
            selectors.append(_NAVIGATION)
        key = KEYS.get(name) or PARTS.get(name)
        if key is None or name == "navigation":
            continue
        selectors += [f'[class*="st-key-{start}"]' for start in key.widgets] or [f".st-key-{name}"]
    return f"{', '.join(selectors)} {{display: none !important}}" if selectors else ""
