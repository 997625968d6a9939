"""One direction of one LSTM layer on half tensors, for CPUs whose own kernel refuses half."""

from __future__ import annotations

import torch
from torch import Tensor


def lstm_layer(
    sequence: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    hidden: Tensor,
    cell: Tensor,
    reverse: bool,
    batch_sizes: list[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the layer with the arguments of ``aten::mkldnn_rnn_layer``, which torch calls a direction.

    Products accumulate in FP32 and round once; gates are added and squashed in FP32; hidden and cell
    state are half between time steps, as cuDNN keeps them.

    Args:
        sequence: (time, batch, features), FP16 or BF16.
        weight_ih: (4 hidden, features), gates in the order i, f, g, o.
        weight_hh: (4 hidden, hidden).
        bias_ih: (4 hidden,), unused where ``has_biases`` is false.
        bias_hh: (4 hidden,), likewise.
        hidden: State before the first step, (batch, hidden) or (1, batch, hidden).
        cell: Likewise.
        reverse: Whether time runs backwards.
        batch_sizes: Unused: torch sends packed sequences another way.
        mode: 2, LSTM: the only mode torch sends here.
        hidden_size: Width of the state.
        num_layers: Always one layer a call.
        has_biases: Whether the biases hold anything.
        bidirectional: Unused: each direction is a call of its own.
        batch_first: Unused: torch brings time to the front before the call.
        train: Whether a backward pass may follow.

    Returns:
        Outputs (time, batch, hidden), last hidden state, last cell state, and an empty workspace.

    Raises:
        NotImplementedError: ``mode`` is no LSTM.
    """
    if mode != 2:
        raise NotImplementedError(f"recurrent mode {mode} is not an LSTM")
    dtype = sequence.dtype
    h = hidden.reshape(hidden.shape[-2:])
    c = cell.reshape(cell.shape[-2:])
    inputs = _linear(sequence, weight_ih, bias_ih if has_biases else None)
    outputs: list[Tensor] = []
    order = range(len(sequence) - 1, -1, -1) if reverse else range(len(sequence))
    for t in order:
        recurrent = _linear(h, weight_hh, bias_hh if has_biases else None)
        i, f, g, o = (inputs[t].float() + recurrent.float()).chunk(4, dim=-1)
        c = (torch.sigmoid(f) * c.float() + torch.sigmoid(i) * torch.tanh(g)).to(dtype)
        h = (torch.sigmoid(o) * torch.tanh(c.float())).to(dtype)
        outputs.append(h)
    if reverse:
        outputs.reverse()
    workspace = torch.empty(0, dtype=dtype)
    return torch.stack(outputs), h.reshape(hidden.shape), c.reshape(cell.shape), workspace


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result = torch.nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    return result.to(x.dtype)
