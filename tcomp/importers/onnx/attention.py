"""Attention, and rotary places."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import cut, product, scaled
from .node import Node
from .table import MICROSOFT, converts
from .types import dtype_of


def heads_of(c: Node, x: Operand, heads: int) -> Operand:
    """(batch, length, heads * features) -> (batch, heads, length, features); what has four axes stays."""
    if x.type.ndim == 4:
        return x
    if heads < 1:
        raise c.refuse("its tensors have three axes, and it does not say how many heads they hold")
    batch, length, whole = x.type.shape
    return c.transpose(c.reshape(x, (batch, length, heads, whole // heads)), (0, 2, 1, 3))


@converts("Attention")
def attention(c: Node) -> Any:
    g = c.g
    is_flat = c.type_of(0).ndim == 3
    q = heads_of(c, c[0], c.attr("q_num_heads", 0))
    k, v = (heads_of(c, c[i], c.attr("kv_num_heads", 0)) for i in (1, 2))
    if c.has(4):
        k, v = g.op("concat", c[4], k, axis=2), g.op("concat", c[5], v, axis=2)
    present = (k, v)
    groups = q.type.shape[1] // k.type.shape[1]
    if groups > 1:
        k, v = (repeated(c, t, groups) for t in (k, v))
    scale = c.attr("scale", 1 / sqrt(q.type.shape[-1]))
    mask = _mask(c, q, k)
    y, scores = _attended(c, q, k, v, mask, scale)
    if is_flat:
        batch, heads, length, features = y.type.shape
        y = c.reshape(c.transpose(y, (0, 2, 1, 3)), (batch, length, heads * features))
    return (y, *present, scores)[: max(c.num_outputs, 1)] if c.num_outputs > 1 else y


def repeated(c: Node, x: Operand, times: int) -> Operand:
    """Each head several times, one after another."""
    batch, heads, length, features = x.type.shape
    wide = c.g.op(
        "broadcast_to", c.reshape(x, (batch, heads, 1, length, features)), shape=(batch, heads, times, length, features)
    )
    return c.reshape(wide, (batch, heads * times, length, features))


def _mask(c: Node, q: Operand, k: Operand) -> Operand | None:
    """What is added to the scores: the mask given, padding, that no query sees later keys, and windows around each query."""
    g, d = c.g, q.type.dtype
    total: Operand | None = None
    low = c.constant(-np.inf, d)
    keys, queries = k.type.shape[2], q.type.shape[2]

    def hide(mask: Operand | None, seen: Operand) -> Operand:
        base = c.constant(0, d) if mask is None else mask
        return g.op("where", seen, base, low)

    if c.has(3):
        given = c[3]
        if given.type.shape[-1] != keys:  # the last keys are hidden
            more = keys - given.type.shape[-1]
            widths = tuple((0, more if i == given.type.ndim - 1 else 0) for i in range(given.type.ndim))
            given = g.op("pad", given, pad_width=widths, value=False if given.type.dtype.is_bool else -np.inf)
        total = hide(None, given) if given.type.dtype.is_bool else c.cast(given, d)
    steps = c.constant(np.arange(keys).reshape(1, 1, 1, keys))
    lengths = c.cast(c.reshape(c[6], (c.shape(6)[0], 1, 1, 1)), "int64") if c.has(6) else None
    own = c.constant(np.arange(queries).reshape(1, 1, queries, 1))
    if c.has(4):
        places = g.op("add_scalar", own, scalar=int(c.static(4)[2]))
    elif lengths is not None:
        places = g.op("add", own, g.op("add_scalar", lengths, scalar=-queries))
    else:
        places = own
    left, right = c.attr("left_window_size", -1), c.attr("right_window_size", -1)
    right = min(right, 0) if c.attr("is_causal", 0) and right >= 0 else 0 if c.attr("is_causal", 0) else right
    if right >= 0:
        total = hide(total, g.op("less_equal", steps, g.op("add_scalar", places, scalar=right)))
    if left >= 0:
        total = hide(total, g.op("greater_equal", steps, g.op("add_scalar", places, scalar=-left)))
    if lengths is not None:
        total = hide(total, g.op("less", steps, lengths))
    return total


def _attended(
    c: Node, q: Operand, k: Operand, v: Operand, mask: Operand | None, scale: float
) -> tuple[Operand, Operand | None]:
    """The result, and the scores where they are asked for."""
    g, d = c.g, q.type.dtype
    softcap, wanted = c.attr("softcap", 0.0), c.num_outputs > 3
    if not softcap and not wanted and "softmax_precision" not in c.attrs:
        args = [q, k, v] if mask is None else [q, k, v, mask]
        return g.op("attention", *args, scale=scale), None
    root = sqrt(scale)
    raw = product(c, scaled(c, q, root), c.transpose(scaled(c, k, root), (0, 1, 3, 2)))
    stage = c.attr("qk_matmul_output_mode", 0)
    capped = raw
    if softcap:
        inner = g.op("tanh", g.op("multiply_scalar", raw, scalar=1 / softcap))
        capped = g.op("multiply_scalar", inner, scalar=softcap)
    masked = capped if mask is None else g.op("add", capped, mask)
    kind = dtype_of(c.attrs["softmax_precision"]) if "softmax_precision" in c.attrs else d
    weights = c.cast(_softmax(c, c.cast(masked, kind), mask is not None), d)
    y = product(c, weights, v)
    return y, (raw, capped, masked, weights)[stage]


def _softmax(c: Node, x: Operand, may_be_hidden: bool) -> Operand:
    """A softmax of rows; one that is hidden as a whole becomes zeros."""
    y: Operand = c.g.op("softmax", x, axis=x.type.ndim - 1)
    if not may_be_hidden:
        return y
    top = c.g.op("max", x, axes=(x.type.ndim - 1,), keepdims=True)
    hidden = c.g.op("equal", top, c.constant(-np.inf, x))
    return c.g.op("where", hidden, c.constant(0, x), y)


@converts("RotaryEmbedding")
def rotary_embedding(c: Node) -> Operand:
    x = c[0]
    is_flat = x.type.ndim == 3
    x = heads_of(c, x, c.attr("num_heads", 0))
    cos, sin = c[1], c[2]
    if c.has(3):
        cos, sin = (c.g.op("take", t, c[3], axis=0) for t in (cos, sin))
    y = rotated(c, x, cos, sin, c.attr("rotary_embedding_dim", 0), bool(c.attr("interleaved", 0)))
    if is_flat:
        y = c.reshape(c.transpose(y, (0, 2, 1, 3)), c.shape(0))
    return y


def rotated(c: Node, x: Operand, cos: Operand, sin: Operand, dims: int, interleaved: bool) -> Operand:
    """Pairs of features turned by angles (J. Su et al., RoFormer, 2021).

    Args:
        x: (batch, heads, length, features); cos, sin: (batch or 1, length, half of `dims`).
        dims: how many features are turned; all where it is 0. interleaved: whether neighbours are pairs.
    """
    g, last = c.g, 3
    batch, heads, length, features = x.type.shape
    dims = dims or features
    head, rest = (
        (cut(c, x, [a], [b], [last]) for a, b in ((0, dims), (dims, features))) if dims < features else (x, None)
    )
    cos, sin = (c.reshape(t, (t.type.shape[0], 1, length, dims // 2)) for t in (cos, sin))
    if interleaved:
        pairs = c.reshape(head, (batch, heads, length, dims // 2, 2))
        a, b = (c.reshape(cut(c, pairs, [i], [i + 1], [4]), (batch, heads, length, dims // 2)) for i in range(2))
    else:
        a, b = (cut(c, head, [s], [e], [last]) for s, e in ((0, dims // 2), (dims // 2, dims)))
    real = g.op("subtract", g.op("multiply", a, cos), g.op("multiply", b, sin))
    imaginary = g.op("add", g.op("multiply", a, sin), g.op("multiply", b, cos))
    if interleaved:
        parts = [c.reshape(t, (batch, heads, length, dims // 2, 1)) for t in (real, imaginary)]
        y = c.reshape(g.op("concat", *parts, axis=4), (batch, heads, length, dims))
    else:
        y = g.op("concat", real, imaginary, axis=last)
    return y if rest is None else g.op("concat", y, rest, axis=last)


@converts("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(c: Node) -> Any:
    """Queries, keys and values apart; what packs them, biases or caches is not read."""
    if any(c.has(i) for i in (3, 4, 6, 7)) or not (c.has(1) and c.has(2)):
        raise c.refuse("only queries, keys, values and an attention bias are read")
    heads = c.needed("num_heads", int)
    q, k, v = (heads_of(c, c[i], heads) for i in range(3))
    args = [q, k, v] + ([c[5]] if c.has(5) else [])
    y = c.g.op("attention", *args, scale=c.attr("scale", 0.0) or None)
    batch, _, length, features = y.type.shape
    return c.reshape(c.transpose(y, (0, 2, 1, 3)), (batch, length, heads * features))
