"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .common import unbroadcast
from .promotion import in_float32


def causal_mask(queries: int, keys: int, dtype: Any, causal: bool | str = True) -> np.ndarray:
    """What is added to scores (queries, keys) so that no query sees a later key. Rows of queries that see none at all stay as they
    are: their softmax would not be a number (see `sees_none`)."""
    later = np.arange(keys) > np.arange(queries)[:, None] + _shift(queries, keys, causal)
    return np.where(later & ~later.all(axis=1, keepdims=True), -np.inf, 0.0).astype(dtype)


def sees_none(queries: int, keys: int, causal: bool | str) -> np.ndarray:
    """(queries, 1) truths: which queries see no key; their result is zero, as in flash attention."""
    return np.arange(queries)[:, None] + _shift(queries, keys, causal) < 0


def _shift(queries: int, keys: int, causal: bool | str) -> int:
    """How many keys behind its own place a query sees.

    Raises:
        ValueError: an unknown alignment.
    """
    if causal not in (True, "lower_right", "upper_left"):
        raise ValueError(f"causal is True (as 'lower_right'), 'lower_right' or 'upper_left', got {causal!r}")
    return 0 if causal == "upper_left" else keys - queries


class Attention(TensorOp):
    """softmax(Q K^T * scale + mask) V (A. Vaswani et al., Attention Is All You Need, 2017).

    The gradient computes the weights anew, instead of keeping them.
    """

    def __init__(self, scale: float, causal: bool | str) -> None:
        self.scale, self.causal = scale, causal

    def compute(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: np.ndarray) -> np.ndarray:
        scores = q @ k.swapaxes(-1, -2) * q.dtype.type(self.scale)
        for m in mask:
            scores = scores + m
        if self.causal:
            scores = scores + causal_mask(scores.shape[-2], scores.shape[-1], scores.dtype, self.causal)
        top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(top), 0, top).astype(scores.dtype))
        if self.causal:
            weights = np.where(
                sees_none(scores.shape[-2], scores.shape[-1], self.causal), weights.dtype.type(0), weights
            )
        total = weights.sum(axis=-1, keepdims=True)
        return (weights @ v) / np.where(total == 0, 1, total).astype(v.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, ...]:
        q, k, v, *mask = node.inputs
        weights = attention_weights(q, k, mask[0] if mask else None, self.causal, self.scale)
        to_weights = ops.matmul(out_grad, ops.transpose(v))
        weighted = to_weights * weights
        to_scores = weighted - weights * ops.summation(weighted, -1, True)
        to_products = to_scores * self.scale
        to_q, to_k = ops.matmul(to_products, k), ops.matmul(ops.transpose(to_products), q)
        found = [to_q, to_k, ops.matmul(ops.transpose(weights), out_grad), *([to_scores] if mask else [])]
        return tuple(unbroadcast(g, x.shape) for g, x in zip(found, node.inputs))

    def lower(self, g: Any, *args: Any) -> Any:
        return g.attention(*args, scale=self.scale, causal=self.causal)


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool | str = False, scale: float | None = None
) -> Tensor:
    """softmax(Q K^T * scale + mask): (..., queries, keys); zeros for a query that sees no key; see `attention`."""
    scores = ops.matmul(q, ops.transpose(k)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = scores + Tensor.make_const(causal_mask(scores.shape[-2], scores.shape[-1], scores.dtype, causal))
    empty = sees_none(scores.shape[-2], scores.shape[-1], causal) if causal else np.zeros(1, bool)
    blind = Tensor.make_const(empty) if empty.any() else None
    if mask is not None and scores.shape[-1]:
        masked = ops.equal(ops.max(scores, -1, True), -np.inf)
        blind = masked if blind is None else ops.logical_or(masked, blind)
        scores = ops.where(masked, 0, scores)  # any numbers, so that no softmax is NaN
    weights = ops.softmax(scores, -1)
    return weights if blind is None else ops.where(blind, 0, weights)


@in_float32
def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool | str = False, scale: float | None = None
) -> Tensor:
    """softmax(Q K^T * scale + mask) V as one operator.

    Args:
        q: (..., queries, features); k: (..., keys, features); v: (..., keys, width); leading axes are broadcast.
        mask: added to the scores (..., queries, keys), broadcast.
        causal: a query sees no key after its own place; True or "lower_right" puts the last query and the last key in line,
            "upper_left" the first ones. A query that sees no key gets zeros.
        scale: 1 / sqrt(features) by default.
    """
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit each other")
    chosen = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return Attention(chosen, causal)(q, k, v, *([] if mask is None else [mask]))
