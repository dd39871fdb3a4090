"""Multi-head attention whose heads are fewer or narrower than its embedding.

``nn.MultiheadAttention`` can't hold such weights: it takes the head width for ``embed_dim / num_heads`` and the width
of its inner projections for ``embed_dim``. This one keeps PyTorch's parameter names, arguments and results.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from featherweight.contracts import ModelError


class NarrowAttention(nn.MultiheadAttention):
    """Attention with ``num_heads`` heads of ``head_dim`` channels in a stream of ``embed_dim``.

    Weights: ``in_proj_weight`` (3 · inner, embed_dim), or ``q_proj_weight`` (inner, embed_dim), ``k_proj_weight``
    (inner, kdim) and ``v_proj_weight`` (inner, vdim); ``out_proj`` (embed_dim, inner); inner = heads · width.
    ``scale`` is the one that the heads were trained with, whatever their width now.
    """

    scale: float

    @classmethod
    def narrowed(cls, full: nn.MultiheadAttention, num_heads: int, scale: float) -> NarrowAttention:
        """The given attention, whose weights were cut already, as a module that can run them.

        Raises:
            ModelError: it adds a key and value of its own to every sequence.
        """
        if full.bias_k is not None or full.add_zero_attn:
            raise ModelError(
                "Attention with added keys (add_bias_kv, add_zero_attn) keeps its channels.",
                type(full).__name__,
                "leave its unit as it is",
            )
        new = cls.__new__(cls)
        new.__dict__ = full.__dict__
        inner = full.out_proj.weight.shape[1]
        new.embed_dim = full.out_proj.weight.shape[0]
        new.num_heads, new.head_dim, new.scale = num_heads, inner // num_heads, scale
        packed = full.in_proj_weight is not None
        new.kdim = full.in_proj_weight.shape[1] if packed else full.k_proj_weight.shape[1]
        new.vdim = full.in_proj_weight.shape[1] if packed else full.v_proj_weight.shape[1]
        new.out_proj.in_features, new.out_proj.out_features = inner, new.embed_dim
        new._qkv_same_embed_dim = False  # keeps nn.TransformerEncoderLayer from its fused kernel, which knows one width
        return new

    def forward(  # noqa: PLR0913, PLR0917  # the arguments of nn.MultiheadAttention
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As ``nn.MultiheadAttention.forward``; inputs (batch, sequence, width) or as ``batch_first`` says."""
        batched = query.ndim == 3
        if batched and not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        if not batched:
            query, key, value = (tensor.unsqueeze(0) for tensor in (query, key, value))
        mask = self._mask(query, attn_mask, key_padding_mask)
        q, k, v = (self._heads(part) for part in self._project(query, key, value))
        rate = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.scale
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            mixed = F.dropout(weights, rate) @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, rate, scale=self.scale)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _project(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]

    def _heads(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(
        self, query: torch.Tensor, attn_mask: torch.Tensor | None, key_padding_mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Both masks as one that is added to the scores, broadcast to (batch, heads, queries, keys)."""
        mask = None if attn_mask is None else _additive(attn_mask, query)
        if mask is not None and mask.ndim == 3:
            mask = mask.view(query.shape[0], -1, *mask.shape[1:])
        if key_padding_mask is None:
            return mask
        padding = _additive(key_padding_mask, query).view(-1, 1, 1, key_padding_mask.shape[-1])
        return padding if mask is None else mask + padding


def _additive(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """True means "don't look": minus infinity."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
    return mask
