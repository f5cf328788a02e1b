"""Unrolled loops -> copies of their bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any

from ...dtype import int64
from ...ir.arith import Linear, dims_env, simplify
from ...ir.expr import Add, BinaryExpr, Broadcast, CompareExpr, Const, Expr, Load, Mul, Ramp, Sub, Var, const
from ...ir.node import map_children, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import EMPTY, For, If, Let, Stmt, map_statements, own_binders, seq
from .common import Env, extend


def unroll_loops(func: PrimFunc) -> PrimFunc:
    """Write the iterations of each unrolled loop out, each with its own constants."""
    return with_fields(func, body=_visit(func.body, dims_env(func.dims)))


def _visit(s: Stmt, env: Env) -> Stmt:
    if isinstance(s, For):
        if s.kind == "unrolled":
            return _Copier().copies(s, env)
    if isinstance(s, (For, Let)):
        env = extend(env, s)
    return map_statements(s, lambda x: _visit(x, env))


class _Copier:
    """Writes out a nest of unrolled loops.

    Attributes:
        sums: indices by identity, as sums: their copies, of which there may be thousands, differ in one number, and share the rest as one object.
        ways: by identity, an expression, which is held as long as that stands for it, and how it is copied.
    """

    def __init__(self) -> None:
        self.loops: set[Var] = set()
        self.sums: dict[int, _Sum | None] = {}
        self.ways: dict[int, tuple[Expr, Callable[[Any, Env], Expr]]] = {}

    def copies(self, loop: For, env: Env) -> Stmt:
        """A loop written out.

        In each copy the loop's variable has a range of one value, by which simplification replaces it: so every copy is made in one
        go from the loops around it, and what their values rule out is never entered.
        """
        self.loops.add(loop.var)
        values = [Const(i, loop.var.dtype) for i in range(loop.extent.value)]
        return seq(own_binders(self.specialised(loop.body, {**env, loop.var: (v, v)})) for v in values)

    def specialised(self, s: Stmt, env: Env) -> Stmt:
        if isinstance(s, For):
            if s.kind == "unrolled":
                return self.copies(s, env)
            s = with_fields(s, extent=simplify(s.extent, env))
        if isinstance(s, (For, Let)):
            env = extend(env, s)
        if isinstance(s, If):
            cond = simplify(s.cond, env)
            if isinstance(cond, Const):
                taken = s.then if cond.value else s.orelse
                return EMPTY if taken is None else self.specialised(taken, env)
        return map_children(s, lambda x: self.expr(x, env) if isinstance(x, Expr) else self.specialised(x, env))

    def expr(self, e: Expr, env: Env) -> Expr:
        """An expression where the unrolled loops have one value each."""
        known = self.ways.get(id(e))
        if known is None:
            known = self.ways[id(e)] = e, self.way(e)
        return known[1](e, env)

    def way(self, e: Expr) -> Callable[[Any, Env], Expr]:
        if e.dtype == int64:
            return self.index
        if isinstance(e, Load):
            return self.load if e.mask is None else simplify
        if isinstance(e, (Ramp, Broadcast)):
            return self.whole
        if isinstance(e, BinaryExpr) and not isinstance(e, CompareExpr) and e.dtype.is_float:
            return self.binary
        return simplify

    def load(self, e: Load, env: Env) -> Expr:
        indices = tuple([self.expr(i, env) for i in e.indices])
        return e if all(map(is_, indices, e.indices)) else Load(e.buffer, indices)

    def binary(self, e: BinaryExpr, env: Env) -> Expr:
        a, b = self.expr(e.a, env), self.expr(e.b, env)
        return e if a is e.a and b is e.b else type(e)(a, b)

    def whole(self, e: Expr, env: Env) -> Expr:
        return map_children(e, lambda x: self.expr(x, env))

    def index(self, e: Expr, env: Env) -> Expr:
        if isinstance(e, Const):
            return e
        if id(e) not in self.sums:
            self.sums[id(e)] = self.as_sum(e, env)
        known = self.sums[id(e)]
        return simplify(e, env) if known is None else known.at(env)

    def as_sum(self, e: Expr, env: Env) -> _Sum | None:
        """An index as a sum of the unrolled loops' variables and what is free of them; None of anything else."""
        terms: dict[Expr, int] = {}
        total = self.gather(e, 1, terms)
        if total is None:
            return None
        steps = {t: terms.pop(t) for t in list(terms) if isinstance(t, Var) and t in self.loops}
        if any(
            isinstance(t, Var) and t in env and isinstance(env[t][0], Const) and env[t][0] == env[t][1] for t in terms
        ):
            return None  # a loop of one iteration
        return _Sum(e, Linear(terms).expr() if terms else None, steps, total)

    def gather(self, e: Expr, scale: int, terms: dict[Expr, int]) -> int | None:
        """Add `scale` times an expression to terms. The constant that is left; None where an unrolled loop's variable stands inside of a term."""
        if isinstance(e, Const):
            return int(e.value) * scale
        if isinstance(e, (Add, Sub)):
            a, b = self.gather(e.a, scale, terms), self.gather(e.b, -scale if isinstance(e, Sub) else scale, terms)
            return None if a is None or b is None else a + b
        if isinstance(e, Mul) and isinstance(e.b, Const):
            return self.gather(e.a, scale * int(e.b.value), terms)
        if not isinstance(e, Var) and free_vars(e) & self.loops:
            return None
        new = terms.get(e, 0) + scale
        if new:
            terms[e] = new
        else:
            terms.pop(e, None)
        return 0


@dataclass(frozen=True, slots=True)
class _Sum:
    """An index as a sum.

    Attributes:
        whole: itself. rest: what unrolled loops leave of it. steps: their coefficients. constant: what is added.
    """

    whole: Expr
    rest: Expr | None
    steps: Mapping[Var, int]
    constant: int

    def at(self, env: Env) -> Expr:
        """The index where the unrolled loops have one value each."""
        total = self.constant + sum(step * int(env[v][0].value) for v, step in self.steps.items())
        if self.rest is None:
            return const(total)
        return Add(self.rest, const(total)) if total > 0 else Sub(self.rest, const(-total)) if total else self.rest
