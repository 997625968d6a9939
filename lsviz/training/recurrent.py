"""Recurrent layers on half tensors as cuDNN runs them: on a CPU, torch refuses half or returns FP32.

Products accumulate in FP32 and round once; gates are added and squashed in FP32; what passes from one time
step to the next is half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """Run one direction of an LSTM's layer with the arguments of ``aten::mkldnn_rnn_layer``.

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


Cell = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What input, recurrent product and state before, all FP32, make of the state."""


def gru_cell(inputs: Tensor, recurrent: Tensor, state: Tensor) -> Tensor:
    """Return the next state of a GRU, whose reset gate acts on the recurrent product as in cuDNN."""
    (r, z, n), (r_hidden, z_hidden, n_hidden) = inputs.chunk(3, dim=-1), recurrent.chunk(3, dim=-1)
    update = torch.sigmoid(z + z_hidden)
    return (1 - update) * torch.tanh(n + torch.sigmoid(r + r_hidden) * n_hidden) + update * state


def tanh_cell(inputs: Tensor, recurrent: Tensor, state: Tensor) -> Tensor:
    """Return the next state of an Elman network."""
    return torch.tanh(inputs + recurrent)


def relu_cell(inputs: Tensor, recurrent: Tensor, state: Tensor) -> Tensor:
    """Return the next state of an Elman network with ReLU."""
    return torch.relu(inputs + recurrent)


def recurrent_layers(
    cell: Cell,
    sequence: Tensor,
    hidden: Tensor,
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """Run all layers of a GRU or plain RNN with the arguments of ``aten::gru.input`` after the cell.

    Args:
        cell: What makes a state of the one before.
        sequence: (time, batch, features), or (batch, time, features) with ``batch_first``; FP16 or BF16.
        hidden: States before the first step, (layers x directions, batch, hidden).
        weights: A layer and direction after another: weight_ih, weight_hh, then their biases.
        has_biases: Whether ``weights`` holds biases.
        num_layers: Number of layers.
        dropout: Probability of dropping a value between layers.
        train: Whether dropout applies.
        bidirectional: Whether each layer also runs from the end.
        batch_first: Whether the batch is the first dimension.

    Returns:
        Outputs of the last layer in the layout of ``sequence``, and the last states, like ``hidden``.
    """
    x = sequence.transpose(0, 1) if batch_first else sequence
    directions = 2 if bidirectional else 1
    each = 4 if has_biases else 2
    last = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            found = weights[place * each : (place + 1) * each]
            states = _states(cell, x, hidden[place], found, reverse=direction == 1)
            outputs.append(torch.stack(states))
            last.append(states[0] if direction else states[-1])
        x = torch.cat(outputs, dim=-1)
        if dropout and train and layer < num_layers - 1:
            x = torch.nn.functional.dropout(x, dropout)
    return (x.transpose(0, 1) if batch_first else x), torch.stack(last)


def _states(
    cell: Cell, x: Tensor, state: Tensor, weights: Sequence[Tensor], *, reverse: bool
) -> list[Tensor]:
    """Return one direction's states in the order of time."""
    weight_ih, weight_hh = weights[:2]
    bias_ih, bias_hh = weights[2:] if len(weights) == 4 else (None, None)
    inputs = _linear(x, weight_ih, bias_ih).float()
    states: list[Tensor] = []
    for t in range(len(x) - 1, -1, -1) if reverse else range(len(x)):
        recurrent = _linear(state, weight_hh, bias_hh).float()
        state = cell(inputs[t], recurrent, state.float()).to(x.dtype)
        states.append(state)
    return states[::-1] if reverse else states


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result = torch.nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    return result.to(x.dtype)
