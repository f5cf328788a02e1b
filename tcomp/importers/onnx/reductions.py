"""Reductions, and what is chosen or accumulated along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Operand
from .movement import axes_of
from .node import Node
from .table import converts

_PLAIN = {"ReduceMax": "max", "ReduceMin": "min", "ReduceMean": "mean", "ReduceSum": "sum", "ReduceProd": "prod"}


@converts("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
          "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip
def reduce_(c: Node) -> Operand:
    x = c[0]
    axes = axes_of(c)
    if not axes:
        if c.attr("noop_with_empty_axes", 0):
            return _elementwise(c, x)
        axes = tuple(range(x.type.ndim))
    return reduced(c, c.op, x, axes, bool(c.attr("keepdims", 1)))


def _elementwise(c: Node, x: Operand) -> Operand:
    """What a reduction over no axes does."""
    name = {"ReduceL1": "abs", "ReduceL2": "abs", "ReduceLogSum": "log"}.get(c.op)
    if c.op == "ReduceSumSquare":
        return c.g.op("multiply", x, x)
    return x if name is None else c.g.op(name, x)


def reduced(c: Node, op: str, x: Operand, axes: tuple[int, ...], keepdims: bool) -> Operand:
    """A reduction of ONNX's over axes from 0 on."""
    g, how = c.g, {"axes": axes, "keepdims": keepdims}
    d = x.type.dtype
    integers = {"out_dtype": d.name} if d.is_int else {}
    if 0 in (x.type.shape[a] for a in axes):
        return _of_nothing(c, op, x, axes, keepdims)
    if op in ("ReduceMax", "ReduceMin") and d.is_bool:
        return c.cast(g.op(_PLAIN[op], c.cast(x, "uint8"), **how), d)
    if op == "ReduceMean" and d.is_int:
        return c.cast(g.op("mean", c.cast(x, "float64"), **how), d)
    if op in _PLAIN:
        return g.op(_PLAIN[op], x, **how, **(integers if op in ("ReduceSum", "ReduceProd") else {}))
    if op == "ReduceL1":
        return g.op("sum", g.op("abs", x), **how, **integers)
    if op == "ReduceSumSquare":
        return g.op("sum", g.op("multiply", x, x), **how, **integers)
    wide = x if d.is_float else c.cast(x, "float64")
    if op == "ReduceL2":
        return c.cast(g.op("sqrt", g.op("sum", g.op("multiply", wide, wide), **how)), d)
    if op == "ReduceLogSum":
        return c.cast(g.op("log", g.op("sum", wide, **how)), d)
    return c.cast(g.op("logsumexp", wide, **how), d)


def _of_nothing(c: Node, op: str, x: Operand, axes: tuple[int, ...], keepdims: bool) -> Operand:
    """A reduction along an axis without elements: what it begins with."""
    d = x.type.dtype
    shape = [1 if i in axes else e for i, e in enumerate(x.type.shape) if keepdims or i not in axes]
    ends: dict[str, Any] = {
        "ReduceMax": d.lowest, "ReduceMin": d.highest, "ReduceProd": 1, "ReduceMean": np.nan,
        "ReduceLogSum": -np.inf, "ReduceLogSumExp": -np.inf,
    }  # fmt: skip
    value = c.constant(np.asarray(ends.get(op, 0)).astype(d.numpy))
    return c.g.op("broadcast_to", value, shape=tuple(shape))


@converts("ArgMax", "ArgMin")
def arg(c: Node) -> Operand:
    axis, keepdims = c.axis(), bool(c.attr("keepdims", 1))
    name = c.op.lower()
    if not c.attr("select_last_index", 0):
        return c.g.op(name, c[0], axis=axis, keepdims=keepdims)
    last = c.constant(np.asarray(c.static()[axis] - 1, np.int64))
    turned = c.g.op(name, c.g.op("flip", c[0], axes=(axis,)), axis=axis, keepdims=keepdims)
    return c.g.op("subtract", last, turned)


@converts("CumSum", "CumProd")
def cumulative(c: Node) -> Operand:
    axis = c.place(int(c.value(1).reshape(())), len(c.shape()))
    return c.g.op(
        "cumulative", c[0], axis=axis, product=c.op == "CumProd", exclusive=bool(c.attr("exclusive", 0)),
        reverse=bool(c.attr("reverse", 0)),
    )  # fmt: skip


@converts("TopK")
def top_k(c: Node) -> tuple[Operand, ...]:
    axis = c.axis(default=-1)
    k = int(c.value(1).reshape(())) if c.version >= 10 else c.needed("k", int)
    return c.g.op("topk", c[0], k=k, axis=axis, largest=bool(c.attr("largest", 1)))


@converts("Hardmax")
def hardmax(c: Node) -> Operand:
    x, shape = rows_of(c)
    axis = x.type.ndim - 1 if shape is not None else c.axis(default=-1)
    best = c.g.op("argmax", x, axis=axis, keepdims=True)
    n = x.type.shape[axis]
    steps = c.constant(np.arange(n).reshape([n if d == axis else 1 for d in range(x.type.ndim)]))
    hot = c.cast(c.g.op("equal", steps, best), x.type.dtype)
    return hot if shape is None else c.reshape(hot, shape)


@converts("Softmax", "LogSoftmax")
def softmax(c: Node) -> Operand:
    x, shape = rows_of(c)
    axis = x.type.ndim - 1 if shape is not None else c.axis(default=-1)
    y: Operand = c.g.op("softmax" if c.op == "Softmax" else "log_softmax", x, axis=axis)
    return y if shape is None else c.reshape(y, shape)


def rows_of(c: Node) -> tuple[Operand, tuple[Any, ...] | None]:
    """Up to version 12, all axes from `axis` on are one row: the tensor as a matrix, and its own shape; later, the tensor."""
    x = c[0]
    if c.version >= 13:
        return x, None
    axis = c.attr("axis", 1)
    axis = axis + x.type.ndim if axis < 0 else axis
    if axis == x.type.ndim - 1:
        return x, x.type.shape
    flat = [1, 1]
    for i, e in enumerate(x.type.shape):
        flat[int(i >= axis)] = flat[int(i >= axis)] * e
    return c.reshape(x, flat), x.type.shape
