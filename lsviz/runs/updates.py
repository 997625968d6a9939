"""From scaled gradients to weights: the rules one can choose, and what each breaks. No torch here.

US 2024/0078433 A1 lets the update take the gradient times 1/S, or adjust what else would feel S: the
learning rate, the clipping threshold, the L2 penalty. `lsviz.training.update` applies the rules.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

Update = Literal["unscale", "fold-lr", "none"]
Order = Literal["after", "before", "scaled"]
OnOverflow = Literal["skip", "retry"]
OptimizerName = Literal["task", "sgd", "momentum", "adam", "adamw"]

UPDATES: Final[tuple[str, ...]] = get_args(Update)
ORDERS: Final[tuple[str, ...]] = get_args(Order)
ON_OVERFLOW: Final[tuple[str, ...]] = get_args(OnOverflow)
OPTIMIZERS: Final[tuple[str, ...]] = get_args(OptimizerName)

UPDATE_RULES: Final[dict[str, str]] = {
    "unscale": "Every gradient is multiplied by 1/S in FP32 before anything else: right for every optimizer.",
    "fold-lr": (
        "Gradients stay scaled and the learning rate is divided by S: right for plain SGD, and for momentum "
        "while S stays the same. Adam does not feel the size of its gradients, so its step just shrinks by "
        "S, as AdamW's weight decay does."
    ),
    "none": (
        "1/S is left out: SGD takes steps S times too large. Adam hardly notices, which is why the slip "
        "often goes unseen."
    ),
}

CLIP_ORDERS: Final[dict[str, str]] = {
    "after": "The norm is clipped after unscaling: the threshold means what it says.",
    "before": "Scaled gradients are clipped: the threshold is S times too strict.",
    "scaled": "Scaled gradients are clipped at threshold x S: right again, up to the 1e-6 in the formula.",
}

L2_ORDERS: Final[dict[str, str]] = {
    "after": "L2 x weight joins the unscaled gradient: right.",
    "before": "L2 x weight joins the scaled gradient: the penalty is S times too weak.",
    "scaled": "L2 x S x weight joins the scaled gradient: right.",
}

OVERFLOW_RULES: Final[dict[str, str]] = {
    "skip": "A step with Inf or NaN leaves the weights as they are, and its batch is lost.",
    "retry": "The same batch is tried again with what the policy makes of S, as long as it still reduces it.",
}


def update_warnings(
    *, optimizer: str, update: str, clip: float | None, clip_order: str, l2: float, l2_order: str, policy: str
) -> list[str]:
    """Return one sentence for everything in a choice of rules that S makes wrong.

    Args:
        optimizer: ``sgd``, ``momentum``, ``adam`` or ``adamw``.
        update: The update rule.
        clip: Threshold of gradient clipping; None: off.
        clip_order: When it is clipped.
        l2: Coupled L2 penalty.
        l2_order: When it joins the gradient.
        policy: The policy's string form; with S = 1 nothing is wrong.
    """
    if policy in ("none", "constant:1"):
        return []
    warnings = []
    if update == "fold-lr" and optimizer in ("adam", "adamw"):
        warnings.append(
            "fold-lr with Adam: its step does not grow with the gradient, so it is S times too small"
        )
    if update == "fold-lr" and optimizer == "momentum":
        warnings.append("fold-lr with momentum is right only while S stays the same")
    if update == "none":
        effect = "hardly notices" if optimizer in ("adam", "adamw") else "takes steps S times too large"
        warnings.append(f"without 1/S, {optimizer} {effect}")
    # Without unscaling, "after" comes too early as well: the gradients are still scaled.
    clipped_scaled = clip is not None and (
        clip_order == "before" or (clip_order == "after" and update != "unscale")
    )
    if clipped_scaled:
        warnings.append("scaled gradients are clipped: the threshold is S times too strict")
    if l2 and (l2_order == "before" or (l2_order == "after" and update != "unscale")):
        warnings.append("the L2 penalty joins scaled gradients: it is S times too weak")
    return warnings
