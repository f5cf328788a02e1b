"""Loops that count through two others, taken apart again."""

from __future__ import annotations

from typing import NamedTuple

from ..ir.arith import linear
from ..ir.expr import Const, Expr, FloorDiv, FloorMod, Mul, Var, const
from ..ir.node import rewrite, walk, with_fields
from ..ir.primfunc import PrimFunc
from ..ir.query import free_vars
from ..ir.stmt import For, replace_statements


class Nest(NamedTuple):
    """A function in which two loops, one inside the other, stand for one."""

    func: PrimFunc
    outer: For
    inner: For


def unfused(func: PrimFunc, loop: For) -> Nest | None:
    """The function with `for f in range(a * m)` as `for i in range(a): for j in range(m)`, where the body uses f only as f // m and
    f % m, and m is known only when the kernel runs (other divisors are affine: sets take them as they are). None where it does not.

    The iterations of f are independent where those of i are, and those of j are.
    """
    m = next(
        (e.b for e in walk(loop.body) if isinstance(e, FloorMod) and e.a is loop.var and _is_open(e.b, func)), None
    )
    count = None if m is None else _quotient(loop.extent, m)
    if m is None or count is None:
        return None
    i, j = Var(f"{loop.var.name}_o"), Var(f"{loop.var.name}_i")

    def post(e: object) -> object:
        if isinstance(e, (FloorMod, FloorDiv)) and e.a is loop.var and e.b == m:
            return j if isinstance(e, FloorMod) else i
        return e

    body = rewrite(loop.body, post)
    if any(e is loop.var for e in walk(body)):
        return None
    inner = For(j, m, body)
    outer = For(i, count, inner)
    return Nest(with_fields(func, body=replace_statements(func.body, {loop: outer})), outer, inner)


def _is_open(e: Expr, func: PrimFunc) -> bool:
    return not isinstance(e, Const) and free_vars(e) <= set(func.dims)


def _quotient(extent: Expr, m: Expr) -> Expr | None:
    """a where extent is a * m."""
    form = linear(extent)
    if not form.constant and list(form.terms) == [m]:
        return const(form.terms[m])
    if isinstance(extent, Mul):
        return extent.a if extent.b == m else extent.b if extent.a == m else None
    return None
