"""Scaled dot-product attention.

softmax(Q K^T * scale + mask) V, of A. Vaswani et al., Attention Is All You Need, 2017. The scores of some rows of queries at a time
stay in L2, from the first product to the second: their rows are whole, so that nothing need be rescaled as in the
online softmax of M. Milakov and N. Gimelshein, 2018, which GPUs need for their smaller shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr, as_expr, call
from ..ir.graph import TensorType
from ..ir.query import is_const
from ..ir.stmt import Attrs
from .common import broadcast_shape, element, float_only, plain, quotient, same_dtype, same_extent, widened
from .registry import Operator, mismatch, register

_DEFAULTS = {"scale": None, "causal": False, "empty": "zeros", "panel": 0}
"""scale: None for 1 / sqrt(features); causal: a query sees no key after its own place: True or "lower_right" puts the last ones of
both in line, "upper_left" the first ones. empty: what a query gets that sees no key at all, or whose scores are all -inf: "zeros", as in
flash attention, "nan", as a softmax of them, or "guard": weights of zero, as where a softmax is NaN it is set to zero, and so they are
where a score is NaN or +inf. panel: pack the keys into panels of so many, inside the kernel."""
_EMPTY = ("zeros", "nan", "guard")


def _batch(args: Sequence[TensorType]) -> tuple[Any, ...]:
    return broadcast_shape("attention", [TensorType(t.shape[:-2], t.dtype) for t in args])


def _infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    if len(args) not in (3, 4):
        raise mismatch("attention", "it takes queries, keys, values, and perhaps a mask to add", *args)
    same_dtype("attention", args)
    float_only("attention", args[0])
    if attrs["causal"] not in (False, True, "lower_right", "upper_left"):
        raise ShapeError(
            f"attention: causal={attrs['causal']!r}", hint="False, True (as lower_right), 'lower_right' or 'upper_left'"
        )
    if attrs["empty"] not in _EMPTY:
        raise ShapeError(f"attention: empty={attrs['empty']!r}", hint=f"one of {', '.join(map(repr, _EMPTY))}")
    q, k, v = args[:3]
    if any(t.ndim < 2 for t in args[:3]):
        raise mismatch("attention", "queries, keys and values need at least two dimensions", *args)
    if not same_extent(q.shape[-1], k.shape[-1]):
        raise mismatch("attention", f"queries have {q.shape[-1]} features, keys {k.shape[-1]}", *args)
    if not same_extent(k.shape[-2], v.shape[-2]):
        raise mismatch("attention", f"there are {k.shape[-2]} keys, but {v.shape[-2]} values", *args)
    batch = _batch(args[:3])
    scores = (*batch, q.shape[-2], k.shape[-2])
    if len(args) == 4 and broadcast_shape("attention", [TensorType(scores, q.dtype), args[3]]) != scores:
        raise mismatch("attention", f"the mask does not broadcast to the scores' shape {scores}", *args)
    return TensorType((*batch, q.shape[-2], v.shape[-1]), q.dtype)


def _shift(causal: bool | str, rows: Any, keys: Any) -> Any:
    """How many keys behind its own place a query sees."""
    return 0 if causal == "upper_left" else keys - rows


def _at(t: te.Tensor, batch: Sequence[Expr], *rest: Expr) -> Expr:
    """An element of one matrix of a (broadcast) stack, given its place in the matrix (which may have more axes)."""
    own = t.ndim - len(rest)
    zero = [e * 0 if is_const(s, 1) else e for e, s in zip(batch[len(batch) - own :], t.shape)]
    return t[(*zero, *rest)]


def _keys(k: te.Tensor, width: int) -> te.Tensor:
    """The keys in panels of `width`: (..., panel, feature, key); the last one filled up with zeros."""
    count, features = plain(k.shape[-2]), plain(k.shape[-1])
    panels = plain((count + (width - 1)) // width)

    def at(*index: Expr) -> Expr:
        *batch, panel, feature, key = index
        j = panel * width + key
        inside = k[(*batch, j, feature)]
        return (
            inside
            if isinstance(count, int) and count % width == 0
            else te.select(j < count, inside, as_expr(0, k.dtype))
        )

    return te.compute((*k.shape[:-2], panels, features, width), at, name="attention_keys", role="attention_keys")


def _attention(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    q, k, v = args[:3]
    batch, rows, count = out.shape[:-2], plain(q.shape[-2]), plain(k.shape[-2])
    shift = plain(_shift(attrs["causal"], rows, count))
    wide = q.dtype.accumulator
    scale = as_expr(_scale(attrs["scale"], q.shape[-1].value), wide)
    width = attrs["panel"]
    d, j = te.reduce_axis(q.shape[-1], "d"), te.reduce_axis(count, "j")
    packed = _keys(k, width) if width else None

    def product(*index: Expr) -> Any:
        *b, i, key = index
        other = _at(k, b, key, d) if packed is None else _at(packed, b, key // width, d, key % width)
        return te.sum(te.cast(_at(q, b, i, d), wide) * te.cast(other, wide), axis=d)

    columns = count if packed is None else plain(packed.shape[-3] * width)
    raw = te.compute((*batch, rows, columns), product, name="attention_product", role="attention_product")

    def score(*index: Expr) -> Expr:
        value = raw[index] * scale
        if len(args) == 4:
            value = value + te.cast(element(args[3], index), wide)
        if attrs["causal"]:
            value = te.select(index[-1] <= index[-2] + shift, value, as_expr(-np.inf, wide))
        return value

    scores = te.compute((*batch, rows, count), score, name="attention_scores", role="attention_scores")
    top = te.compute(
        (*batch, rows), lambda *i: te.max(scores[(*i, j)], axis=j), name="attention_top", role="attention_top"
    )
    no_keys = not (isinstance(count, int) and count > 0)
    hidden = len(args) == 4 or (attrs["causal"] and not (isinstance(shift, int) and shift >= 0))
    may_see_none = no_keys or attrs["empty"] == "guard" or (attrs["empty"] == "zeros" and hidden)
    weights = _weights(scores, top, attrs["empty"] if may_see_none else "nan")
    n = te.reduce_axis(count, "n")
    total = te.compute(
        (*batch, rows), lambda *i: te.sum(weights[(*i, n)], axis=n), name="attention_total", role="attention_total"
    )
    m = te.reduce_axis(count, "m")
    mixed = te.compute(
        out.shape,
        lambda *i: te.sum(weights[(*i[:-1], m)] * te.cast(_at(v, i[:-2], m, i[-1]), wide), axis=m),
        name="attention_mixed",
        role="attention_mixed",
    )

    def result(*i: Expr) -> Expr:
        value, whole = mixed[i], total[i[:-1]]
        if may_see_none:
            whole = te.select(te.equal(whole, as_expr(0, wide)), as_expr(1, wide), whole)
        return te.cast(quotient(value, whole), out.dtype)

    return te.compute(out.shape, result, name="attention", role="attention")


def _weights(scores: te.Tensor, top: te.Tensor, empty: str) -> te.Tensor:
    """exp(scores - top), where rows without a finite greatest score are `empty`."""
    infinity, zero = as_expr(np.inf, scores.dtype), as_expr(0, scores.dtype)

    def weight(*i: Expr) -> Expr:
        largest = top[i[:-1]]
        if empty == "guard":
            return te.select(call("abs", largest) < infinity, call("exp", scores[i] - largest), zero)
        if empty == "zeros":
            largest = te.select(te.equal(largest, -infinity), zero, largest)
        return call("exp", scores[i] - largest)

    return te.compute(scores.shape, weight, name="attention_weights", role="attention_weights")


def _scale(given: float | None, features: int) -> float:
    return features**-0.5 if given is None else float(given)


def _reference(q: Any, k: Any, v: Any, mask: Any = None, *, scale: Any, causal: bool, empty: str, panel: int) -> Any:
    scores = widened(q) @ np.swapaxes(widened(k), -1, -2) * widened(q).dtype.type(_scale(scale, q.shape[-1]))
    if mask is not None:
        scores = scores + mask
    if causal:
        m, n = scores.shape[-2:]
        scores = np.where(np.tril(np.ones((m, n), bool), _shift(causal, m, n)), scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(np.isneginf(top) & (empty == "zeros"), 0, top))
    if empty == "guard":
        e = np.where(np.isfinite(top), e, 0)
    total = e.sum(axis=-1, keepdims=True)
    return ((e / np.where(total == 0, 1, total)) @ widened(v)).astype(q.dtype)


def _flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    """Of the two products: both count all keys, masked or not."""
    q, k, v = args[:3]
    per_row = 2 * int(k.shape[-2]) * (int(q.shape[-1]) + int(v.shape[-1]))
    return out.size // max(int(v.shape[-1]), 1) * per_row


register(Operator("attention", _infer, _attention, _reference, "row_reduction", None, _DEFAULTS, _flops))
