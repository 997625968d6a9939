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
from torch.autograd.function import once_differentiable


class _Attention(torch.autograd.Function):
    """One node in place of a dozen: a third of the time, which goes into passes over the scores."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        blind: Tensor | None,
        kept: Tensor | None,
        factor: float,
    ) -> Tensor:
        """Attend.

        Args:
            ctx: For backward.
            query: (..., length, width), half.
            key: (..., source length, width), half.
            value: (..., source length, value width), half.
            bias: FP32, added to the scores; broadcastable to them.
            blind: Where True a query sees nothing and gets zeros; (..., length, 1).
            kept: Factor on each probability: 0 where dropout drops it.
            factor: On the scores, before the bias.
        """
        single = query.float(), key.float(), value.float()
        scores = single[0] @ single[1].transpose(-2, -1)
        if bias is None:
            scores.mul_(factor)
        else:
            torch.add(bias, scores, alpha=factor, out=scores)
        weights = torch.softmax(scores, dim=-1)
        if blind is not None:
            weights.masked_fill_(blind, 0.0)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.factor = factor
        ctx.bias = None if bias is None or not ctx.needs_input_grad[3] else bias.shape
        return (_rounded(_dropped(weights, kept), query.dtype) @ single[2]).to(query.dtype)

    @staticmethod
    @once_differentiable  # as torch's own fused kernels
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the tensors, each rounded once to half."""
        query, key, value, weights, kept = ctx.saved_tensors
        half = query.dtype
        with torch.autocast(query.device.type, enabled=False):
            single = gradient.float()
            by_value = (_rounded(_dropped(weights, kept), half).transpose(-2, -1) @ single).to(half)
            by_weight = _dropped(single @ value.float().transpose(-2, -1), kept)
            by_score = torch.ops.aten._softmax_backward_data(by_weight, weights, -1, torch.float32)
            by_bias = None if ctx.bias is None else by_score.sum_to_size(ctx.bias)
            by_score = _rounded(by_score, half)
            by_query = (by_score @ key.float()).mul_(ctx.factor).to(half)
            by_key = (by_score.transpose(-2, -1) @ query.float()).mul_(ctx.factor).to(half)
        return by_query, by_key, by_value, by_bias, None, None, None


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).float()


def _dropped(x: Tensor, kept: Tensor | None) -> Tensor:
    return x if kept is None else x * kept


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

    It can be differentiated once, as torch's fused kernels can.

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
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    leading = torch.broadcast_shapes(*(t.shape[:-2] for t in (query, key, value)))  # type: ignore[no-untyped-call]
    query, key, value = (t.expand(*leading, *t.shape[-2:]) for t in (query, key, value))
    shape = (*leading, query.size(-2), key.size(-2))

    bias: Tensor | None = None
    if is_causal:
        bias = torch.full(shape[-2:], -math.inf, device=query.device).triu(1)
    blind = None
    if attn_mask is not None:
        added = attn_mask.float()
        if attn_mask.dtype == torch.bool:
            added = torch.zeros_like(added).masked_fill(~attn_mask, -math.inf)
            # A query that may attend to nothing gets zeros, as torch's own kernels give.
            blind = ~attn_mask.any(-1, keepdim=True)
        bias = added if bias is None else bias + added
    kept = None
    if dropout_p > 0:
        kept = torch.nn.functional.dropout(torch.ones(shape, device=query.device), dropout_p)
    factor = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    attended: Tensor = _Attention.apply(query, key, value, bias, blind, kept, factor)  # type: ignore[no-untyped-call]
    return attended
