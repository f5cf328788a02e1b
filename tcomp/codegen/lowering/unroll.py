"""Unrolled loops -> copies of their bodies."""

from __future__ import annotations

from ...ir.arith import dims_env, simplify
from ...ir.expr import Const, Expr
from ...ir.node import map_children, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.stmt import EMPTY, For, If, Let, Stmt, map_statements, own_binders, seq
from .common import Env, extend


def unroll_loops(func: PrimFunc) -> PrimFunc:
    """Write the iterations of each unrolled loop out, each with its own constants."""
    return with_fields(func, body=_visit(func.body, dims_env(func.dims)))


def _visit(s: Stmt, env: Env) -> Stmt:
    if isinstance(s, For):
        if s.kind == "unrolled":
            return _copies(s, env)
    if isinstance(s, (For, Let)):
        env = extend(env, s)
    return map_statements(s, lambda x: _visit(x, env))


def _copies(loop: For, env: Env) -> Stmt:
    """A loop written out.

    In each copy the loop's variable has a range of one value, by which simplification replaces it: so every copy is made in one
    go from the loops around it, and what their values rule out is never entered.
    """
    values = [Const(i, loop.var.dtype) for i in range(loop.extent.value)]
    return seq(own_binders(_specialised(loop.body, {**env, loop.var: (v, v)})) for v in values)


def _specialised(s: Stmt, env: Env) -> Stmt:
    if isinstance(s, For):
        if s.kind == "unrolled":
            return _copies(s, env)
        s = with_fields(s, extent=simplify(s.extent, env))
    if isinstance(s, (For, Let)):
        env = extend(env, s)
    if isinstance(s, If):
        cond = simplify(s.cond, env)
        if isinstance(cond, Const):
            taken = s.then if cond.value else s.orelse
            return EMPTY if taken is None else _specialised(taken, env)
    return map_children(s, lambda x: simplify(x, env) if isinstance(x, Expr) else _specialised(x, env))
