"""Attention on half tensors against torch's own in float64, in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.training.test_engine import ENGINE


def attend(*inputs: Tensor, **settings: Any) -> tuple[Tensor, list[Tensor]]:
    """Return what attention gives and, from a fixed output gradient, its inputs' gradients."""
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]
    out = nn.functional.scaled_dot_product_attention(
        leaves[0], leaves[1], leaves[2], attn_mask=leaves[3] if len(leaves) > 3 else None, **settings
    )
    generator = torch.Generator().manual_seed(7)
    out.backward(torch.randn(out.shape, generator=generator).to(out.dtype))  # type: ignore[no-untyped-call]
    return out.detach(), [t.grad for t in leaves if t.grad is not None]


def attend_in_half(*inputs: Tensor, **settings: Any) -> tuple[Tensor, list[Tensor]]:
    with ENGINE.active(), ENGINE.autocast():
        return attend(*inputs, **settings)


def assert_attends_as_float64(*inputs: Tensor, **settings: Any) -> None:
    double = [t.double() if t.is_floating_point() else t for t in inputs]
    expected, expected_gradients = attend(*double, **settings)
    ours, gradients = attend_in_half(*inputs, **settings)
    assert len(gradients) == len(expected_gradients) >= 3
    for mine, theirs in zip([ours, *gradients], [expected, *expected_gradients], strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine.double(), theirs.nan_to_num(), rtol=1e-2, atol=1e-2)


def test_masked_attention_is_float64s() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8).half() for _ in range(3))
    mask = torch.rand(6, 6) > 0.4
    mask[:, 0] = True
    assert_attends_as_float64(q, k, v)
    assert_attends_as_float64(q, k, v, is_causal=True)
    assert_attends_as_float64(q, k, v, mask)
    assert_attends_as_float64(q, k, v, mask.expand(2, 1, 6, 6), scale=0.7)
    assert_attends_as_float64(q, k, v, torch.randn(6, 6))  # whose gradient is wanted too
    assert_attends_as_float64(q, k, v, torch.randn(1, 4, 1, 6))


def test_attention_shapes_broadcast_and_groups_share() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 6, 8).half(), torch.randn(1, 4, 5, 8).half(), torch.randn(2, 1, 5, 3).half()
    assert_attends_as_float64(q, k, v)
    assert_attends_as_float64(
        q, torch.randn(2, 2, 5, 8).half(), torch.randn(2, 2, 5, 3).half(), enable_gqa=True
    )
    assert_attends_as_float64(*(torch.randn(7, 8).half() for _ in range(3)), is_causal=True)


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    q, k, v = (torch.randn(2, 4, 6, 8).half() for _ in range(3))
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[2] = False
    ours, gradients = attend_in_half(q, k, v, mask)
    assert not ours[:, :, 2].any()
    assert not gradients[0][:, :, 2].any()
    assert all(torch.isfinite(g).all() for g in gradients)


def test_dropped_weights_take_no_part_in_either_direction() -> None:
    torch.manual_seed(3)
    q, k = torch.randn(2, 3, 40, 8).half(), torch.randn(2, 3, 40, 8).half()
    v = torch.eye(40).half().expand(2, 3, 40, 40)  # shows the weights themselves
    torch.manual_seed(4)
    shown, gradients = attend_in_half(q, k, v, dropout_p=0.25)
    kept = (shown > 0).double() / 0.75
    assert abs(float((shown > 0).float().mean()) - 0.75) < 0.02

    leaves = [t.double().clone().requires_grad_() for t in (q, k, v)]
    weights = torch.softmax(leaves[0] @ leaves[1].mT / 8**0.5, -1) * kept
    out = weights @ leaves[2]
    generator = torch.Generator().manual_seed(7)
    out.backward(torch.randn(out.shape, generator=generator).double())  # type: ignore[no-untyped-call]
    torch.testing.assert_close(shown.double(), out.detach(), rtol=1e-2, atol=1e-3)
    for mine, leaf in zip(gradients, leaves, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(mine.double(), leaf.grad, rtol=2e-2, atol=2e-2)
