"""Commutative, associative combinations of values, over one or several values at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..dtype import DType
from ..ir.expr import Const, Expr, Max, Min, Select, call, const
from ..ir.query import equal


@dataclass(frozen=True, eq=False, slots=True)
class Reducer:
    """How accumulators and a new element combine.

    Attributes:
        combine: (accumulators, elements) -> new accumulators, as expressions. Must be commutative and associative:
            schedules reorder it.
        identity: the dtypes of the elements -> the accumulators' first values.
    """

    name: str
    combine: Callable[[tuple[Expr, ...], tuple[Expr, ...]], tuple[Expr, ...]]
    identity: Callable[[tuple[DType, ...]], tuple[Expr, ...]]


def _single(name: str, f: Callable[[Expr, Expr], Expr], identity: Callable[[DType], Any]) -> Reducer:
    return Reducer(name, lambda a, b: (f(a[0], b[0]),), lambda t: (const(identity(t[0]), t[0]),))


SUM = _single("sum", lambda a, b: a + b, lambda t: 0)
PROD = _single("prod", lambda a, b: a * b, lambda t: 1)
MAX = _single("max", Max, lambda t: t.lowest)
MIN = _single("min", Min, lambda t: t.highest)


def _arg_reducer(name: str, better: Callable[[Expr, Expr], Expr], worst: Callable[[DType], Any]) -> Reducer:
    """Accumulators (index, value). Ties go to the least index; a NaN beats every number, as in NumPy."""

    def combine(acc: tuple[Expr, ...], new: tuple[Expr, ...]) -> tuple[Expr, ...]:
        (i, v), (j, w) = acc, new
        none_yet = i < 0
        take = better(w, v) | (equal(v, w) & (j < i)) | none_yet
        if v.dtype.is_float:
            v_nan, w_nan = call("isnan", v), call("isnan", w)
            take = Select(v_nan | w_nan, w_nan & (~v_nan | (j < i)), take)
            take = take | none_yet
        take = take & (j >= 0)  # an accumulator that has seen nothing adds nothing
        return Select(take, j, i), Select(take, w, v)

    def identity(types: tuple[DType, ...]) -> tuple[Expr, ...]:
        return Const(-1, types[0]), const(worst(types[1]), types[1])

    return Reducer(name, combine, identity)


ARGMAX = _arg_reducer("argmax", lambda w, v: v < w, lambda t: t.lowest)
ARGMIN = _arg_reducer("argmin", lambda w, v: w < v, lambda t: t.highest)
