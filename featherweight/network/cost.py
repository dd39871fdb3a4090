"""Multiply-accumulates of one ATen call.

Counted: products of a weight or an activation with an activation (convolutions, linear layers, matrix products,
attention, recurrent cells). Not counted: additions, activations, normalisation, pooling – as the field does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

_aten = torch.ops.aten
Count = Callable[[Sequence[Any], torch.Tensor], int]


def _convolution(args: Sequence[Any], output: torch.Tensor) -> int:
    """Every output value takes in / groups · prod(kernel) products."""
    return output.numel() * math.prod(args[1].shape[1:])


def _transposed(args: Sequence[Any], output: torch.Tensor) -> int:
    """Every input value takes out / groups · prod(kernel) products."""
    return args[0].numel() * math.prod(args[1].shape[1:])


def _contraction(args: Sequence[Any], output: torch.Tensor) -> int:
    """(…, n, k) by (…, k, m): every output value takes k products."""
    return output.numel() * args[0].shape[-1]


def _added(args: Sequence[Any], output: torch.Tensor) -> int:
    return output.numel() * args[1].shape[-1]


def _attention(args: Sequence[Any], output: torch.Tensor) -> int:
    """QKᵀ and the product with V."""
    query, key, value = args[0], args[1], args[2]
    scores = math.prod(query.shape[:-1]) * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1])


def _recurrent(args: Sequence[Any], output: torch.Tensor) -> int:
    """Every step multiplies each layer's input and state by all gates: the weights' sizes, times the steps."""
    weights = next(arg for arg in args[1:] if isinstance(arg, (list, tuple)) and arg and arg[0].ndim == 2)
    steps = output.shape[0] * output.shape[1]
    return steps * sum(weight.numel() for weight in weights if weight.ndim == 2)


_COUNTS: Mapping[object, Count] = {
    _aten.linear.default: _contraction,
    _aten.mm.default: _contraction,
    _aten.bmm.default: _contraction,
    _aten.matmul.default: _contraction,
    _aten.addmm.default: _added,
    _aten.baddbmm.default: _added,
    _aten.conv1d.default: _convolution,
    _aten.conv1d.padding: _convolution,
    _aten.conv2d.default: _convolution,
    _aten.conv2d.padding: _convolution,
    _aten.conv3d.default: _convolution,
    _aten.conv3d.padding: _convolution,
    _aten.conv_transpose1d.default: _transposed,
    _aten.conv_transpose2d.input: _transposed,
    _aten.conv_transpose3d.input: _transposed,
    _aten.scaled_dot_product_attention.default: _attention,
    _aten.lstm.input: _recurrent,
    _aten.gru.input: _recurrent,
    _aten.rnn_tanh.input: _recurrent,
    _aten.rnn_relu.input: _recurrent,
}


def macs_of_node(target: object, args: Sequence[Any], output: torch.Tensor) -> int:
    """Multiply-accumulates of one ATen call on concrete tensors; 0 for operations that multiply nothing.

    Args:
        target: the ATen overload.
        args: its positional arguments.
        output: its (first) result.
    """
    count = _COUNTS.get(target)
    return count(args, output) if count else 0
