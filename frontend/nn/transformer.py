"""Attention and transformers (A. Vaswani et al., Attention Is All You Need, 2017), normalised before each part."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import init, ops
from ..autograd import Tensor
from .basic import Dropout, Embedding, Linear, ReLU, Sequential
from .module import Module, Stack
from .norm import LayerNorm1d


class MultiHeadAttention(Module):
    """Attention of several heads: queries, keys, values (n, heads, steps, features) -> (result, weights).

    Args:
        dropout: of the weights, while training.
        causal: a query sees no later key.
    """

    def __init__(
        self, *, dropout: float = 0.0, causal: bool = False, device: Any = None, dtype: Any = "float32"
    ) -> None:
        super().__init__()
        self.causal = causal
        self.dropout = Dropout(dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weights = self.dropout(ops.attention_weights(q, k, mask, self.causal))
        return ops.matmul(weights, v), weights

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """The result alone: by one fused operator where no weight is dropped."""
        if self.training and self.dropout.p:
            return self(q, k, v, mask)[0]
        return ops.attention(q, k, v, mask, self.causal)


class AttentionLayer(Module):
    """Normalised queries, keys and values, projected to heads; attention; and the projection back.

    Args:
        k_features, v_features: of keys and values, by default q_features; out_features: of the result, by default q_features.
    """

    def __init__(
        self,
        q_features: int,
        num_head: int,
        dim_head: int,
        *,
        k_features: int | None = None,
        v_features: int | None = None,
        out_features: int | None = None,
        dropout: float = 0.0,
        causal: bool = True,
        device: Any = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.num_head, self.dim_head = num_head, dim_head
        inner, k_width, v_width = num_head * dim_head, k_features or q_features, v_features or q_features
        self.prenorm_q = LayerNorm1d(q_features, dtype=dtype)
        self.prenorm_k = LayerNorm1d(k_width, dtype=dtype)
        self.prenorm_v = LayerNorm1d(v_width, dtype=dtype)
        self.q_projection = Linear(q_features, inner, bias=False, dtype=dtype)
        self.k_projection = Linear(k_width, inner, bias=False, dtype=dtype)
        self.v_projection = Linear(v_width, inner, bias=False, dtype=dtype)
        self.attn = MultiHeadAttention(dropout=dropout, causal=causal)
        self.out_projection = Linear(inner, out_features or q_features, bias=False, dtype=dtype)

    def _heads(self, x: Tensor) -> Tensor:
        n, steps, _ = x.shape
        return ops.permute(x.reshape((n, steps, self.num_head, self.dim_head)), (0, 2, 1, 3))

    def forward(
        self, q: Tensor, k: Tensor | None = None, v: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Results (n, queries, out_features).

        Args:
            q: (n, queries, q_features); k, v: (n, keys, ...), by default q.
            mask: where a query may look, as truths (n, keys) or (..., queries, keys).
        """
        keys = q if k is None else k
        values = keys if v is None else v
        q_heads, k_heads, v_heads = (
            self._heads(project(norm(x)))
            for project, norm, x in (
                (self.q_projection, self.prenorm_q, q),
                (self.k_projection, self.prenorm_k, keys),
                (self.v_projection, self.prenorm_v, values),
            )
        )
        added = None if mask is None else additive(mask, q.dtype)
        mixed = ops.permute(self.attn.mix(q_heads, k_heads, v_heads, added), (0, 2, 1, 3))
        n, steps = q.shape[:2]
        return self.out_projection(mixed.reshape((n, steps, self.num_head * self.dim_head)))


def additive(mask: Tensor, dtype: Any) -> Tensor:
    """What is added to scores (n, heads, queries, keys): 0 where a mask of truths (n, keys) or (..., queries, keys) holds, else the
    lowest number (and not minus infinity: a row of nothing else has a softmax, too)."""
    wide = ops.reshape(mask, (mask.shape[0], 1, 1, mask.shape[1])) if mask.ndim == 2 else mask
    lowest = Tensor.make_const(np.asarray(np.finfo(dtype).min, dtype))
    return ops.where(wide, lowest * 0, lowest)


class TransformerLayer(Module):
    """x + attention(x), then x + two linear layers with a ReLU between them, each with dropout."""

    def __init__(
        self,
        q_features: int,
        num_head: int,
        dim_head: int,
        hidden_size: int,
        *,
        dropout: float = 0.0,
        causal: bool = True,
        device: Any = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.attention = AttentionLayer(q_features, num_head, dim_head, dropout=dropout, causal=causal, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.feed_forward = Sequential(
            LayerNorm1d(q_features, dtype=dtype), Linear(q_features, hidden_size, dtype=dtype), ReLU(), Dropout(dropout),
            Linear(hidden_size, q_features, dtype=dtype), Dropout(dropout),
        )  # fmt: skip

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(x, mask=mask))
        return x + self.feed_forward(x)


class LearnedPositions(Module):
    """A trained vector for each place, added to sequences (n, steps, features)."""

    def __init__(self, steps: int, features: int, device: Any = None, dtype: Any = "float32") -> None:
        super().__init__()
        self.steps = steps
        self.embedding = Embedding(steps, features, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.steps:
            raise ValueError(f"there are positions for {self.steps} steps, the sequence has {x.shape[1]}")
        return x + ops.slice_axis(self.embedding.weight, 0, 0, x.shape[1])


class SinusoidalPositions(Module):
    """Sines and cosines of each place, of wavelengths from 2 pi to 10000 * 2 pi, added to sequences (n, steps, features)."""

    def forward(self, x: Tensor) -> Tensor:
        steps, features = x.shape[1:]
        angles = np.arange(steps)[:, None] / 10000 ** (np.arange(0, features, 2) / features)
        table = np.zeros((steps, features))
        table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles[:, : features // 2])
        return x + Tensor.make_const(table.astype(x.dtype))


class Transformer(Stack):
    """Positions and transformer layers over sequences (steps, n, embedding_size).

    Args:
        batch_first: sequences are (n, steps, embedding_size).
        sequence_len: the most steps, of learned positions.
        positions: learned, sinusoidal, or none.
    """

    def __init__(
        self,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        num_head: int = 8,
        dim_head: int = 32,
        dropout: float = 0.0,
        causal: bool = True,
        device: Any = None,
        dtype: Any = "float32",
        batch_first: bool = False,
        sequence_len: int = 2048,
        positions: str = "learned",
    ) -> None:
        if positions not in ("learned", "sinusoidal", "none"):
            raise ValueError(f"unknown positions {positions!r}: learned, sinusoidal or none")
        places: Module | None = None  # drawn before the layers, as the course does
        if positions != "none":
            is_learned = positions == "learned"
            places = (
                LearnedPositions(sequence_len, embedding_size, dtype=dtype) if is_learned else SinusoidalPositions()
            )
        super().__init__(
            [
                TransformerLayer(
                    embedding_size, num_head, dim_head, hidden_size, dropout=dropout, causal=causal, dtype=dtype
                )
                for _ in range(num_layers)
            ]
        )
        self.batch_first = batch_first
        self.positions = places

    def forward(self, x: Tensor, h: Any = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Results as x, and zeros in place of the state that a recurrent layer has.

        Args:
            mask: which steps are there, as truths (n, steps).
        """
        y = x if self.batch_first else ops.permute(x, (1, 0, 2))
        if self.positions is not None:
            y = self.positions(y)
        y = self.run(y, mask)
        y = y if self.batch_first else ops.permute(y, (1, 0, 2))
        return y, init.zeros_like(y)
