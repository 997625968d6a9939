"""What logs of other programs call a loss, a loss scale or a gradient: one table for every kind of log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from lsviz.runs.schema import Kind

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "loss": ("loss", "train_loss", "training_loss", "total_loss", "loss_total"),
    "loss_scale": (
        *("loss_scale", "grad_scale", "amp_scale", "scaler_scale", "lossscale", "current_loss_scale"),
        *("scaler", "grad_scaler", "loss_scaler", "scale"),
    ),
    "skipped": ("skipped", "found_inf", "overflow", "overflowed", "skip", "step_skipped", "skipped_step"),
    "lr": ("lr", "learning_rate", "learningrate"),
    "grad_norm": ("grad_norm", "gradient_norm", "global_grad_norm", "total_norm", "gnorm"),
    "metric": ("metric", "accuracy", "acc", "val_accuracy", "eval_accuracy", "val_acc", "test_accuracy"),
}
"""Column of the steps table -> the last part of a tag or key that means it, the surest first."""
_SCALERS: Final = frozenset(["amp", "train", "scaler", "grad_scaler", "loss", "optimizer", "optim", "fp16"])
"""What a bare ``scale`` must stand under: layers have scales too."""
_HELD_OUT: Final = re.compile(r"val|valid|validation|test|eval|evaluation|dev")
_GRADIENT: Final = re.compile(r"(?:[a-z]+_)*grad(?:ient)?s?(?:_[a-z]+)*")
_OUTPUT: Final = re.compile(r"activation|output|act_|_act\b")
_AT_AN_END: Final = re.compile(r"^grad(?:ient)?s?[._ ]|[._ ]grad(?:ient)?s?$", re.IGNORECASE)


def column_of(tag: str) -> tuple[str, int] | None:
    """Return which column a tag or key means, and how surely (0 is the surest); None where it means none.

    The last part of ``train/loss`` counts, whatever it stands under; but a loss on held-out data is not the
    step's, and a bare ``scale`` is S only at the top or under what scales losses.
    """
    *above, name = [re.sub(r"[\s.-]+", "_", part.strip().lower()) for part in tag.split("/")]
    for column, names in COLUMNS.items():
        if name not in names:
            continue
        if column == "loss" and any(_HELD_OUT.fullmatch(part) for part in above):
            continue
        if name in ("scale", "scaler") and above and above[-1] not in _SCALERS:
            continue
        return column, names.index(name) * 10 + len(above)
    return None


def choose_columns(tags: Iterable[str]) -> dict[str, str]:
    """Return column -> the tag that means it most surely; of equals the first."""
    best: dict[str, tuple[int, str]] = {}
    for tag in tags:
        found = column_of(tag)
        if found is not None and (found[0] not in best or found[1] < best[found[0]][0]):
            best[found[0]] = found[1], tag
    return {column: tag for column, (_, tag) in best.items()}


def gradient_of(tag: str) -> tuple[str, Kind] | None:
    """Return the tensor and kind that a histogram's tag names; None where nothing in it says gradient.

    ``grad/layer1.weight``, ``layer1.weight.grad``, ``gradients/layer1/weight`` and the like are the weight
    gradient ``layer1.weight``; with a word for activations or outputs it is an activation's.
    """
    parts = [part for part in tag.split("/") if part]
    kept = [part for part in parts if not _GRADIENT.fullmatch(part.lower())]
    tensor = ".".join(kept)
    bare = _AT_AN_END.sub("", tensor)
    if len(kept) == len(parts) and bare == tensor:
        return None
    kind: Kind = "activation_grad" if _OUTPUT.search(tag.lower()) else "weight_grad"
    return (bare or tag), kind
