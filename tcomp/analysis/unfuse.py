"""Loops that count through two others, taken apart again."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

from ..ir.arith import Linear, linear
from ..ir.expr import Const, Expr, FloorDiv, FloorMod, Mul, Var, const
from ..ir.node import rewrite, walk, with_fields
from ..ir.primfunc import PrimFunc
from ..ir.query import free_vars
from ..ir.stmt import For, Stmt, replace_statements


class Digits(NamedTuple):
    """A loop's variable as count * m values: `outer` is its quotient by m, `inner` its remainder; the body in terms of these."""

    outer: Var
    count: Expr
    inner: Var
    m: Expr
    body: Stmt


class Nest(NamedTuple):
    """A function in which two loops, one inside the other, stand for one."""

    func: PrimFunc
    outer: For
    inner: For


def unfused(func: PrimFunc, loop: For) -> Nest | None:
    """The function with `for f in range(a * m)` as `for i in range(a): for j in range(m)`; None where it is no such loop.

    The iterations of f are independent where those of i are, and those of j are.
    """
    found = digits_of(loop.var, loop.extent, loop.body, func.dims)
    if found is None:
        return None
    inner = For(found.inner, found.m, found.body)
    outer = For(found.outer, found.count, inner)
    return Nest(with_fields(func, body=replace_statements(func.body, {loop: outer})), outer, inner)


def digits_of(f: Var, extent: Expr, body: Stmt, dims: Collection[Var]) -> Digits | None:
    """The lowest digit of a variable and the rest, where the body uses it only as f // m and f % m (and quotients of these), and some
    of its divisors are known only when the kernel runs: numbers alone are left to integer sets. None where it does not."""
    parts = [e for e in walk(body) if isinstance(e, (FloorDiv, FloorMod)) and f in free_vars(e.a)]
    if not any(_is_open(e.b, dims) for e in parts):
        return None
    for m in dict.fromkeys(e.b for e in parts if e.a is f):
        count = _quotient(extent, m)
        if count is None or not (_is_open(m, dims) or (isinstance(m, Const) and m.value > 0)):
            continue
        i, j = Var(f"{f.name}_o"), Var(f"{f.name}_i")
        new = rewrite(body, partial(_in_digits, f, m, i, j))
        if not any(e is f for e in walk(new)):
            return Digits(i, count, j, m, new)
    return None


def _in_digits(f: Var, m: Expr, i: Var, j: Var, e: Any) -> Any:
    """An expression of f in terms of its quotient and its remainder by m."""
    if not isinstance(e, (FloorDiv, FloorMod)) or e.a is not f:
        return e
    if e.b == m:
        return j if isinstance(e, FloorMod) else i
    rest = _quotient(e.b, m) if isinstance(e, FloorDiv) else None
    return e if rest is None else FloorDiv(i, rest)


def _is_open(e: Expr, dims: Collection[Var]) -> bool:
    return not isinstance(e, Const) and free_vars(e) <= set(dims)


def _quotient(extent: Expr, m: Expr) -> Expr | None:
    """a where extent is a * m."""
    form = linear(extent)
    if isinstance(m, Const):
        if m.value <= 0 or any(c % m.value for c in (form.constant, *form.terms.values())):
            return None
        return Linear({t: c // m.value for t, c in form.terms.items()}, form.constant // m.value).expr()
    unit = linear(m)
    times = {form.terms.get(t, 0) // c for t, c in unit.terms.items() if c}
    if len(times) == 1 and (a := times.pop()) > 0:
        whole = unit.scale(a)
        if (whole.terms, whole.constant) == (form.terms, form.constant):
            return const(a)
    if isinstance(extent, Mul):
        return extent.a if extent.b == m else extent.b if extent.a == m else None
    return None
