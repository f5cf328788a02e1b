"""Attention that is written as two products and a softmax -> one call, whose kernel keeps the scores in the second cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.graph import OpCall, Operand, TensorType
from .rewriter import Rewriter, rule

_SCALED = {"multiply_scalar": 1, "divide_scalar": -1, "multiply": 1, "divide": -1}
"""Operators that scale, and the power of the factor."""


@rule("matmul", symbolic=True, transposed=(False, False), panel=0, out_dtype=None)
def products_to_attention(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """softmax((q * a) @ (k * b)^T * c + mask) @ v is attention of scale a * b * c.

    Numbers move from an operand to the product, so that only floats of 32 bits and more are rewritten. A row whose softmax is NaN stays
    NaN, or becomes zeros where the graph says so.
    """
    weights, v = call.args
    if type_.dtype.bits < 32 or not type_.dtype.is_float or min(weights.type.ndim, v.type.ndim) < 2:
        return None
    empty = "nan"
    bare = _unguarded(g, weights)
    if bare is not None:
        weights, empty = bare, "guard"
    elif not g.is_used_once(weights):
        return None
    softmax = g.definition(weights, "softmax")
    if softmax is None or softmax.attrs["axis"] % weights.type.ndim != weights.type.ndim - 1:
        return None
    scores, mask = _unmasked(g, softmax.args[0])
    scores, scale = _unscaled(g, scores)
    product = g.definition(scores, "matmul")
    if product is None or not g.is_used_once(scores) or not _is_plain(product):
        return None
    (q, own), (k, other) = (_unscaled(g, a) for a in product.args)
    if min(q.type.ndim, k.type.ndim) < 2 or not np.isfinite(scale) or not _is_moderate(own * other):
        return None
    keys = g.op("transpose", k, axes=(*range(k.type.ndim - 2), k.type.ndim - 1, k.type.ndim - 2))
    args = [q, keys, v] if mask is None else [q, keys, v, mask]
    return g.op("attention", *args, scale=scale * own * other, empty=empty)


def _is_moderate(factor: float) -> bool:
    """Whether a product is about as large without the factor: one that is far from 1 may keep it from overflow, or from zero."""
    return 2.0**-16 <= abs(factor) <= 2.0**16


def _is_plain(product: OpCall) -> bool:
    return not any(product.attrs["transposed"]) and not product.attrs["panel"] and product.attrs["out_dtype"] is None


def _unguarded(g: Rewriter, weights: Operand) -> Operand | None:
    """What a softmax was before where(isnan(softmax), 0, softmax)."""
    guard = g.definition(weights, "where")
    if guard is None or not g.is_used_once(weights):
        return None
    question, zero, inner = guard.args
    asked, filled = g.definition(question, "isnan"), g.array(zero)
    if asked is None or asked.args[0] != inner or filled is None or np.any(filled) or g.uses(inner) > 2:
        return None
    return inner if inner.type.shape == weights.type.shape and g.is_used_once(question) else None


def _unmasked(g: Rewriter, x: Operand) -> tuple[Operand, Operand | None]:
    """Scores, and what was added to them."""
    call = g.definition(x, "add")
    if call is None or not g.is_used_once(x):
        return x, None
    for scores, mask in (call.args, call.args[::-1]):
        if scores.type.shape == x.type.shape and g.definition(_unscaled(g, scores)[0], "matmul") is not None:
            return scores, mask
    return x, None


def _unscaled(g: Rewriter, x: Operand) -> tuple[Operand, float]:
    """A tensor before it was multiplied by numbers, perhaps before it was moved, and their product."""
    call = g.definition(x)
    if call is None or not g.is_used_once(x):
        return x, 1.0
    if call.op in ("transpose", "reshape"):
        inner, scale = _unscaled(g, call.args[0])
        return (x, 1.0) if scale == 1 else (g.again(call, inner), scale)
    found = _factor(g, call, x.type) if call.op in _SCALED else None
    if found is None:
        return x, 1.0
    inner, scale = _unscaled(g, found[0])
    return inner, scale * found[1] ** _SCALED[call.op]


def _factor(g: Rewriter, call: OpCall, type_: TensorType) -> tuple[Operand, float] | None:
    if "scalar" in call.attrs:
        value: Any = float(call.attrs["scalar"])
        return (call.args[0], value) if value else None
    pairs = [call.args, call.args[::-1]] if call.op == "multiply" else [call.args]
    for y, number in pairs:
        array = g.array(number)
        if array is not None and array.size == 1 and array.item() and y.type.shape == type_.shape:
            return y, float(array.item())
    return None
