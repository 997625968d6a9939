"""Attention on half tensors with FP32 arithmetic, rounded to half where a GPU's flash kernel rounds.

Flash attention (FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2) keeps scores and softmax in
FP32, but feeds tensor cores with half operands: the probabilities P in the forward pass and the score
gradient dS in the backward pass are rounded to half. Small dS underflow there, so both are kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class _RoundValues(torch.autograd.Function):
    """Round to a half type and back; the gradient passes unrounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _RoundGradients(torch.autograd.Function):
    """Pass the values unrounded; round their gradient to a half type and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = dtype
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].to(ctx.dtype).float(), None


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend as ``torch.nn.functional.scaled_dot_product_attention`` does, on half tensors.

    Args:
        query: (..., heads, length, width), FP16 or BF16.
        key: (..., heads, source length, width), same dtype.
        value: (..., heads, source length, value width), same dtype.
        attn_mask: Boolean (True attends) or floating (added to the scores), broadcastable.
        dropout_p: Probability of dropping a weight.
        is_causal: Whether position i sees only positions up to i.
        scale: Factor on the scores; 1/sqrt(width) by default.
        enable_gqa: Whether key and value have fewer heads, each shared by several of query's.

    Returns:
        (..., heads, length, value width) in query's dtype.
    """
    dtype = query.dtype
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    factor = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    products = query.float() @ key.float().transpose(-2, -1)
    scores = _RoundGradients.apply(products * factor, dtype)  # type: ignore[no-untyped-call]
    if is_causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~visible, -math.inf)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        else:
            scores = scores + attn_mask.float()
    weights = torch.softmax(scores, dim=-1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # A query that may attend to nothing gets zeros, as torch's own kernels give.
        weights = weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)
    if dropout_p > 0:
        weights = torch.nn.functional.dropout(weights, dropout_p)
    rounded = _RoundValues.apply(weights, dtype)  # type: ignore[no-untyped-call]
    attended: Tensor = (rounded @ value.float()).to(dtype)
    return attended
