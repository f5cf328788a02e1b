"""Reductions, order, running sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Operand
from .node import Node
from .table import converts


@converts("mean", "sum", "prod", "amax", "amin")
def reduce_(c: Node, x: Any, axes: Any = None, keepdims: bool = False, **how: Any) -> Operand:
    name = {"amax": "max", "amin": "min"}.get(c.op.split(".")[0], c.op.split(".")[0])
    y = x if name in ("max", "min") else c.tensor(x)
    more = {"out_dtype": y.type.dtype.name} if y.type.dtype.is_int and name in ("sum", "prod") else {}
    return c.g.op(name, y, axes=c.axes(axes, x.type.ndim), keepdims=keepdims, **more)


@converts("max.default", "min.default")
def extreme(c: Node, x: Any) -> Operand:
    return c.g.op(c.op.split(".")[0], x)


@converts("max.dim", "min.dim")
def extreme_and_place(c: Node, x: Any, axis: int, keepdims: bool = False) -> tuple[Operand, Operand]:
    name, at = c.op.split(".")[0], c.place(axis, x.type.ndim)
    return (
        c.g.op(name, x, axes=(at,), keepdims=keepdims),
        c.g.op(f"arg{name}", x, axis=at, keepdims=keepdims),
    )


@converts("argmax", "argmin")
def arg(c: Node, x: Any, axis: Any = None, keepdims: bool = False) -> Operand:
    name = c.op.split(".")[0]
    if axis is None:
        return c.g.op(name, c.reshape(x, (x.type.size,)), axis=0)
    return c.g.op(name, x, axis=c.place(axis, x.type.ndim), keepdims=keepdims)


@converts("any", "all")
def quantified(c: Node, x: Any, axes: Any = None, keepdims: bool = False) -> Operand:
    kept = c.cast(c.cast(x, "bool"), "uint8")
    name = "max" if c.op.startswith("any") else "min"
    return c.cast(c.g.op(name, kept, axes=c.axes(axes, x.type.ndim), keepdims=keepdims), "bool")


@converts("var", "std")
def spread(
    c: Node, x: Any, axes: Any = None, *rest: Any, correction: Any = 1, keepdim: bool = False, **how: Any
) -> Operand:
    if rest and isinstance(axes, bool):
        raise c.refuse("this overload is not read")
    return c.g.op(
        c.op.split(".")[0],
        x,
        axes=c.axes(axes, x.type.ndim),
        keepdims=keepdim,
        correction=1 if correction is None else correction,
    )


@converts("var_mean")
def spread_and_mean(
    c: Node, x: Any, axes: Any = None, *, correction: Any = 1, keepdim: bool = False
) -> tuple[Operand, Operand]:
    how = {"axes": c.axes(axes, x.type.ndim), "keepdims": keepdim}
    return c.g.op("var", x, correction=1 if correction is None else correction, **how), c.g.op("mean", x, **how)


@converts("linalg_vector_norm", "norm")
def norm(c: Node, x: Any, order: Any = 2, axes: Any = None, keepdims: bool = False, **how: Any) -> Operand:
    kept = {"axes": c.axes(axes, x.type.ndim), "keepdims": keepdims}
    y = c.tensor(x)
    if order == float("inf"):
        return c.g.op("max", c.g.op("abs", y), **kept)
    if order in (1, 2):
        return c.g.op("norm", y, order=int(order), **kept)
    total = c.g.op("sum", c.g.op("power_scalar", c.g.op("abs", y), scalar=float(order)), **kept)
    return c.g.op("power_scalar", total, scalar=1 / order)


@converts("logsumexp")
def logsumexp(c: Node, x: Any, axes: Any, keepdims: bool = False) -> Operand:
    return c.g.op("logsumexp", x, axes=c.axes(axes, x.type.ndim), keepdims=keepdims)


@converts("_softmax", "softmax", "_log_softmax", "log_softmax", "_safe_softmax")
def softmax(c: Node, x: Any, axis: int, *rest: Any, **how: Any) -> Operand:
    name = "log_softmax" if "log" in c.op else "softmax"
    return c.g.op(name, c.tensor(x), axis=c.place(axis, x.type.ndim))


@converts("cumsum", "cumprod")
def cumulative(c: Node, x: Any, axis: int, **how: Any) -> Operand:
    if not x.type.ndim:
        return c.tensor(x)
    return c.g.op("cumulative", c.tensor(x), axis=c.place(axis, x.type.ndim), product=c.op.startswith("cumprod"))


@converts("diff")
def diff(c: Node, x: Any, n: int = 1, axis: int = -1, before: Any = None, after: Any = None) -> Operand:
    at = c.place(axis, x.type.ndim)
    parts = [p for p in (before, x, after) if p is not None]
    y = x if len(parts) == 1 else c.g.op("concat", *parts, axis=at)
    for _ in range(n):
        count = y.type.extents[at]
        high, low = (c.g.op("take", y, c.constant(np.arange(count - 1) + k), axis=at) for k in (1, 0))
        y = c.g.op("not_equal" if y.type.dtype.is_bool else "subtract", high, low)
    return y


@converts("topk")
def topk(c: Node, x: Any, k: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> tuple[Operand, ...]:
    return c.g.op("topk", x, k=k, axis=c.place(axis, x.type.ndim), largest=largest)


@converts("sort.default", "sort.stable", "argsort")
def sort(c: Node, x: Any, axis: int = -1, descending: bool = False, **how: Any) -> Any:
    axis, descending = how.get("dim", axis), how.get("descending", descending)
    values, places = c.g.op("sort", x, axis=c.place(axis, x.type.ndim), descending=descending)
    return places if c.op.startswith("argsort") else (values, places)
