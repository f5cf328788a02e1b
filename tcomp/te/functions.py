"""Functions to write tensor expressions with."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from ..dtype import DType
from ..errors import ExprError
from ..ir.expr import And, Expr, Max, Min, Or, as_expr, as_index, binary, call, select
from .reducers import ARGMAX, ARGMIN, MAX, MIN, PROD, SUM, Reducer
from .tensor import Reduce, ReduceAxis


def _axes(axis: Any, name: str) -> tuple[ReduceAxis, ...]:
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if not axes or not builtins.all(isinstance(a, ReduceAxis) for a in axes):
        raise ExprError(f"{name} needs reduce axes, got {axis!r}", hint="axis=te.reduce_axis(extent)")
    if len(set(axes)) < len(axes):
        raise ExprError(f"{name}: an axis is named twice among {', '.join(a.name for a in axes)}")
    return axes


def reduce_with(reducer: Reducer, elements: Any, axis: Any) -> Any:
    """Combine an element (or a tuple of elements) over reduce axes; one expression for each element."""
    many = isinstance(elements, tuple)
    sources = tuple(as_expr(e) for e in (elements if many else (elements,)))
    axes = _axes(axis, reducer.name)
    results = tuple(Reduce(reducer, sources, axes, i) for i in range(len(sources)))
    return results if many else results[0]


def sum(e: Any, axis: Any) -> Expr:
    """The sum over reduce axes."""
    return reduce_with(SUM, e, axis)


def prod(e: Any, axis: Any) -> Expr:
    """The product over reduce axes."""
    return reduce_with(PROD, e, axis)


def max(e: Any, axis: Any) -> Expr:
    """The maximum over reduce axes; NaN where any element is NaN."""
    return reduce_with(MAX, e, axis)


def min(e: Any, axis: Any) -> Expr:
    """The minimum over reduce axes; NaN where any element is NaN."""
    return reduce_with(MIN, e, axis)


def argmax(value: Any, axis: Any) -> tuple[Expr, Expr]:
    """(index, value) of the maximum over one reduce axis; the first of equals, a NaN before all."""
    (k,) = _axes(axis, "argmax")
    return reduce_with(ARGMAX, (as_index(k), value), k)


def argmin(value: Any, axis: Any) -> tuple[Expr, Expr]:
    """(index, value) of the minimum over one reduce axis; the first of equals, a NaN before all."""
    (k,) = _axes(axis, "argmin")
    return reduce_with(ARGMIN, (as_index(k), value), k)


def comm_reducer(combine: Callable[..., Any], identity: Callable[..., Any], name: str = "reduce") -> Callable[..., Any]:
    """A reduction of your own.

    Args:
        combine: two accumulators -> an accumulator; for several values at a time, two tuples -> a tuple. It must be
            commutative and associative: schedules reorder it.
        identity: the element's dtype (or a tuple of them) -> the neutral element(s).

    Returns:
        A function (element or tuple of elements, axis) -> expression(s), to be used inside `compute`.
    """

    def build(elements: Any, axis: Any) -> Any:
        many = isinstance(elements, tuple)

        def combine_tuple(a: tuple[Expr, ...], b: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return tuple(combine(a, b)) if many else (combine(a[0], b[0]),)

        def identity_tuple(types: tuple[DType, ...]) -> tuple[Expr, ...]:
            values = identity(types) if many else (identity(types[0]),)
            return tuple(as_expr(v, t) for v, t in zip(values, types))

        return reduce_with(Reducer(name, combine_tuple, identity_tuple), elements, axis)

    return build


def if_then_else(cond: Any, then: Any, orelse: Any) -> Expr:
    """`then` where `cond` holds, else `orelse`; a load in the side not taken never happens out of bounds."""
    return select(cond, then, orelse)


def all(*conditions: Expr) -> Expr:
    """The conjunction of conditions."""
    result = conditions[0]
    for c in conditions[1:]:
        result = And(result, c)
    return result


def any(*conditions: Expr) -> Expr:
    """The disjunction of conditions."""
    result = conditions[0]
    for c in conditions[1:]:
        result = Or(result, c)
    return result


def const_like(value: float | int, like: Expr | DType) -> Expr:
    """A literal of the dtype of an expression."""
    return as_expr(value, like if isinstance(like, DType) else like.dtype)


def minimum(a: Any, b: Any) -> Expr:
    """The lesser; NaN where either is NaN."""
    return binary(Min, a, b)


def maximum(a: Any, b: Any) -> Expr:
    """The greater; NaN where either is NaN."""
    return binary(Max, a, b)


def exp(e: Expr) -> Expr:
    return call("exp", e)


def log(e: Expr) -> Expr:
    return call("log", e)


def sqrt(e: Expr) -> Expr:
    return call("sqrt", e)


def rsqrt(e: Expr) -> Expr:
    return call("rsqrt", e)


def tanh(e: Expr) -> Expr:
    return call("tanh", e)


def sigmoid(e: Expr) -> Expr:
    return call("sigmoid", e)


def erf(e: Expr) -> Expr:
    return call("erf", e)


def sin(e: Expr) -> Expr:
    return call("sin", e)


def cos(e: Expr) -> Expr:
    return call("cos", e)


def floor(e: Expr) -> Expr:
    return call("floor", e)


def power(a: Expr, b: Any) -> Expr:
    return call("pow", a, b)
