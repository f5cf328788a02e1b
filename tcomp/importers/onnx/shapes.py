"""Shapes, and arithmetic of extents that calls decide."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from ...ir.expr import Max, Min, as_expr, binary
from ..builder import FoldingBuilder
from ..extents import Extents, divide, elementwise, joined
from .node import Given, Node
from .table import converts
from .types import dtype_of


@converts("Shape")
def shape(c: Node) -> Any:
    whole = c.shape(0)
    start, end = c.attr("start", 0), c.attr("end", len(whole))
    cut = whole[slice(start, end)]
    if all(isinstance(e, int) for e in cut):
        return c.constant(np.asarray(cut, np.int64))
    return Extents.of(np.asarray([*cut, None], dtype=object)[:-1])


@converts("Size")
def size(c: Node) -> Any:
    whole = c.shape(0)
    if all(isinstance(e, int) for e in whole):
        return c.constant(np.asarray(prod(whole), np.int64))
    return Extents.of(np.asarray(reduce(operator.mul, whole), dtype=object))


@converts("Identity")
def same(c: Node) -> Any:
    return c[0]


def of_extents(g: FoldingBuilder, op: str, given: Sequence[Given], attrs: Mapping[str, Any]) -> Extents | None:
    """The result of a node that computes with symbolic extents; None where it is not arithmetic of extents and known integers."""
    f = _ARITHMETIC.get(op)
    if op in _OF_THE_FIRST and not isinstance(given[0], Extents):  # a tensor, whose part has a symbolic extent
        return None
    args: list[Extents | None] = []
    for x in given:
        if x is not None and not isinstance(x, Extents):
            known = g.known(x)
            if known is None or known.dtype.kind not in "iub":
                return None
            x = Extents.of(known.astype(object))
        args.append(x)
    if f is None or args[0] is None:
        return None
    return f(args, attrs)


def _axes(args: Sequence[Extents | None], attrs: Mapping[str, Any]) -> list[int] | None:
    """Axes from an attribute or the second input."""
    if len(args) > 1 and args[1] is not None:
        return [int(a) for a in args[1].values.reshape(-1)]
    return attrs.get("axes")


def _gather(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents:
    places = np.asarray(args[1].values, np.int64)
    return Extents(np.asarray(np.take(args[0].values, places, attrs.get("axis", 0)), dtype=object))


def _slice(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents:
    if len(args) > 1:
        starts, ends, axes, steps = ([int(v) for v in a.values.reshape(-1)] if a is not None else None
                                     for a in (*args[1:], *[None] * (5 - len(args))))  # fmt: skip
    else:
        starts, ends, axes, steps = attrs["starts"], attrs["ends"], attrs.get("axes"), None
    cut = [slice(None)] * args[0].values.ndim
    for i, a in enumerate(axes or range(len(starts))):
        cut[a] = slice(starts[i], ends[i], steps[i] if steps else None)
    return Extents(args[0].values[tuple(cut)])


def _unsqueeze(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents:
    return Extents(np.expand_dims(args[0].values, tuple(_axes(args, attrs) or ())))


def _squeeze(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents:
    axes = _axes(args, attrs)
    return Extents(np.asarray(np.squeeze(args[0].values, None if axes is None else tuple(axes)), dtype=object))


def _reshape(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents:
    return Extents(args[0].values.reshape([int(v) for v in args[1].values]))


def _cast(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents | None:
    return args[0] if dtype_of(attrs["to"]).is_int else None


def _equal(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents | None:
    """1 or 0; None where symbolic extents, which are not negative, may be equal or not."""
    found = elementwise(_is_same, *args)
    return found if all(v in (0, 1) for v in found.values.reshape(-1)) else None


def _is_same(a: Any, b: Any) -> int:
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    known = a if isinstance(a, int) else b if isinstance(b, int) else None
    return 1 if a == b else 0 if known is not None and known < 0 else 2


def _where(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents | None:
    return elementwise(lambda c, a, b: a if c else b, *args) if args[0].is_known else None


def _shape(args: Sequence[Any], attrs: Mapping[str, Any]) -> Extents:
    return Extents.of(np.array(args[0].values.shape, dtype=object))


_OF_THE_FIRST = ("Cast", "Gather", "Identity", "Reshape", "Shape", "Slice", "Squeeze", "Unsqueeze")
_ARITHMETIC: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], Extents | None]] = {
    "Add": lambda args, attrs: elementwise(operator.add, *args),
    "Sub": lambda args, attrs: elementwise(operator.sub, *args),
    "Mul": lambda args, attrs: elementwise(operator.mul, *args),
    "Div": lambda args, attrs: elementwise(divide, *args),
    "Max": lambda args, attrs: elementwise(lambda a, b: binary(Max, as_expr(a), as_expr(b)), *args),
    "Min": lambda args, attrs: elementwise(lambda a, b: binary(Min, as_expr(a), as_expr(b)), *args),
    "Identity": lambda args, attrs: args[0],
    "Cast": _cast,
    "Equal": _equal,
    "Shape": _shape,
    "Where": _where,
    "Concat": lambda args, attrs: joined(args, attrs.get("axis", 0)),
    "Gather": _gather,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
}
"""By operator: (arguments, attributes) -> the result."""
