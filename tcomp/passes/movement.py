"""Movements that meet, cancel, merge, or step aside for what computes."""

from __future__ import annotations

from functools import reduce
from operator import mul

import numpy as np

from ..ir.expr import Expr
from ..ir.graph import OpCall, Operand, TensorType
from ..ops.registry import get
from .rewriter import Rewriter, rule

Shape = tuple[int | Expr, ...]


@rule("reshape", "broadcast_to", "concat", "cast", "slice", "pad", "transpose", symbolic=True)
def simplify_movement(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """Movements that do nothing vanish, and those of movements merge."""
    if len(call.args) != 1:
        return None
    (x,) = call.args
    if call.op in ("reshape", "broadcast_to") and x.type.shape == type_.shape:
        return x
    if call.op == "concat" or (call.op == "cast" and x.type.dtype == type_.dtype):
        return x
    if call.op == "slice" and x.type.shape == type_.shape and all(s > 0 for s in call.attrs["strides"] or ()):
        return x
    if call.op == "pad" and x.type.shape == type_.shape:
        return x
    if call.op == "reshape":
        inner = g.definition(x, "reshape")
        return _reshape(g, x, type_) if inner is None else g.op("reshape", inner.args[0], shape=type_.shape)
    if call.op == "slice":
        return _slice(g, call, x)
    if call.op == "transpose":
        return _transpose(g, call.attrs["axes"], x, type_)
    return None


def _reshape(g: Rewriter, x: Operand, type_: TensorType) -> Operand | None:
    """reshape(transpose(x)) = transpose(reshape(x)), where what is split or merged lies side by side before the transpose, too."""
    inner = g.definition(x, "transpose")
    groups = _groups(x.type.shape, type_.shape) if inner is not None else None
    if inner is None or groups is None:
        return None
    axes, source = inner.attrs["axes"], inner.args[0]
    places = []
    for old, new in groups:
        own = [axes[a] for a in old]
        between = source.type.shape[own[0] : own[-1] + 1] if own == sorted(own) else ()
        if len([e for e in between if e != 1]) != len(own):
            return None
        places.append((own[0], new))
    order = [
        n for _, new in sorted(places) for n in new
    ]  # of the result's axes before the transpose, those of 1 left out
    wide = iter(order)
    is_wide = set(order)
    before = [next(wide) if n in is_wide else n for n in range(type_.ndim)]
    moved = g.op("reshape", source, shape=tuple(type_.shape[n] for n in before))
    return g.op("transpose", moved, axes=tuple(before.index(n) for n in range(type_.ndim)))


def _groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]] | None:
    """The axes of two shapes of as many elements, matched group by group; extents of 1 left out. None where symbolic extents are split or
    merged."""
    left, right = ([i for i, e in enumerate(s) if e != 1] for s in (old, new))
    groups = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        while old[a[0]] != new[b[0]] or len(a) + len(b) > 2:
            sizes = [[s[i] for i in own] for s, own in ((old, a), (new, b))]
            if not all(isinstance(e, int) and e for own in sizes for e in own):
                return None
            m, n = (reduce(mul, own) for own in sizes)
            if m == n:
                break
            more, rest = (a, left) if m < n else (b, right)
            if not rest:
                return None
            more.append(rest.pop(0))
        groups.append((a, b))
    return None if left or right else groups


def _slice(g: Rewriter, call: OpCall, x: Operand) -> Operand | None:
    """slice(transpose(x)) = transpose(slice(x))."""
    inner = g.definition(x, "transpose")
    if inner is None:
        return None
    axes = inner.attrs["axes"]
    turned = {}
    for name, given in call.attrs.items():
        full = (*(given or ()), *(1 if name == "strides" else None for _ in range(len(axes) - len(given or ()))))
        turned[name] = tuple(full[axes.index(a)] for a in range(len(axes)))
    return g.op("transpose", g.again(call, inner.args[0], **turned), axes=axes)


def _transpose(g: Rewriter, axes: tuple[int, ...], x: Operand, type_: TensorType) -> Operand | None:
    if tuple(axes) == tuple(range(len(axes))):
        return x
    inner = g.definition(x, "transpose")
    if inner is not None:
        return g.op("transpose", inner.args[0], axes=tuple(inner.attrs["axes"][a] for a in axes))
    if [a for a in axes if x.type.shape[a] != 1] == [a for a in range(len(axes)) if x.type.shape[a] != 1]:
        return g.op("reshape", x, shape=type_.shape)  # only extents of 1 move
    return None


@rule(kinds=("elementwise",), symbolic=True)
def sink_transpose(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """f(transpose(x)) = transpose(f(x)) for elementwise f, so that transposes meet and cancel."""
    if call.op == "batch_norm":
        return None
    axes = None
    for a in call.args:
        inner = g.definition(a, "transpose")
        if inner is not None and a.type.shape == type_.shape:
            axes = axes or inner.attrs["axes"]
    if axes is None:
        return None
    args = [u for a in call.args if (u := _untransposed(g, a, axes, type_)) is not None]
    if len(args) < len(call.args):
        return None
    return g.op("transpose", g.again(call, *args), axes=axes)


def _untransposed(g: Rewriter, a: Operand, axes: tuple[int, ...], type_: TensorType) -> Operand | None:
    """An argument as it was before the transpose; constants are transposed back when compiling, arguments that are spread along some axes
    when they are needed: they are smaller."""
    inner = g.definition(a, "transpose")
    if inner is not None and inner.attrs["axes"] == axes:
        return inner.args[0]
    if g.array(a) is None and a.type.shape == type_.shape:
        return None
    if a.type.size == 1 and a.type.ndim == 0:
        return a
    full = g.op("reshape", a, shape=(1,) * (type_.ndim - a.type.ndim) + a.type.shape)
    return g.op("transpose", full, axes=tuple(int(i) for i in np.argsort(axes)))


@rule(kinds=("elementwise",), symbolic=True)
def sink_reshape(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """f(reshape(x)) = reshape(f(x)) for elementwise f, so that what follows a product joins its kernel.

    Other arguments are reshaped instead; never one that pulls as much the other way, or the two would take turns forever.
    """
    if call.op == "batch_norm":
        return None
    for a in call.args:
        inner = g.definition(a, "reshape") if a.type.shape == type_.shape else None
        rank = _rank(g, inner.args[0]) if inner is not None else 0
        if inner is None or not rank:
            continue
        shape = inner.args[0].type.shape
        others = [b for b in call.args if b is not a and b.type.shape == type_.shape]
        if any(_pull(g, b, shape) >= rank for b in others):
            continue
        args = [r for b in call.args if (r := _reshaped(g, b, shape, type_)) is not None]
        if len(args) == len(call.args):
            return g.op("reshape", g.again(call, *args), shape=type_.shape)
    return None


_LONGEST = 8
"""Elementwise calls in a row through which a product is looked for."""


def _rank(g: Rewriter, x: Operand, calls: int = _LONGEST) -> int:
    """How much an operand wants what follows it to keep its shape: 2 for a product, which others can join, and elementwise calls after
    one, 1 for other elementwise calls, 0 for all else."""
    source = g.definition(x)
    kind = None if source is None else get(source.op).kind
    if source is None or kind not in ("anchor", "elementwise"):
        return 0
    if kind == "anchor":
        return 2
    same = [a for a in source.args if a.type.shape == x.type.shape and g.definition(a) is not None]
    return max([1, *(_rank(g, a, calls - 1) for a in same[:2])]) if calls else 1


def _pull(g: Rewriter, a: Operand, shape: Shape) -> int:
    """How much is lost if an argument must have another shape."""
    inner = g.definition(a, "reshape")
    if inner is not None and inner.args[0].type.shape == shape:
        return 0  # it has that shape already
    return _rank(g, a if inner is None else inner.args[0])


def _reshaped(g: Rewriter, a: Operand, shape: Shape, type_: TensorType) -> Operand | None:
    """An argument of an elementwise call as it is when the result has another shape; None where that takes a copy."""
    if a.type.shape == type_.shape:
        return g.op("reshape", a, shape=shape)
    if a.type.size == 1:
        return g.op("reshape", a, shape=())
    if shape[-1:] == type_.shape[-1:] and a.type.shape[-1:] == shape[-1:] and a.type.size == shape[-1]:
        return g.op("reshape", a, shape=shape[-1:])
    return None


@rule(kinds=("reduction",), symbolic=True)
def reduce_of_transpose(g: Rewriter, call: OpCall, type_: TensorType) -> Operand | None:
    """A reduction over transposed axes is one over the axes themselves, where the remaining axes keep their order. Where the reduced
    axes are kept, too, the result is transposed, which is smaller."""
    inner = g.definition(call.args[0], "transpose")
    if inner is None or "keepdims" not in call.attrs:
        return None
    axes = inner.attrs["axes"]
    given = call.attrs["axes"]
    reduced = range(len(axes)) if given is None else [given] if isinstance(given, int) else given
    reduced = {a % len(axes) for a in reduced}
    rest = [axes[a] for a in range(len(axes)) if a not in reduced]
    own = tuple(sorted(axes[a] for a in reduced))
    if call.attrs["keepdims"]:
        return g.op("transpose", g.again(call, inner.args[0], axes=own), axes=axes)
    return g.again(call, inner.args[0], axes=own) if rest == sorted(rest) else None


MOVEMENT = (simplify_movement, sink_transpose, sink_reshape, reduce_of_transpose)
