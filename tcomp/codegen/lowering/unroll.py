"""Unrolled loops -> copies of their bodies."""

from __future__ import annotations

from ...ir.arith import dims_env
from ...ir.expr import Const
from ...ir.node import substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.stmt import For, Stmt, map_statements, seq
from .common import Env, extend, own_binders, simplify_statements


def unroll_loops(func: PrimFunc) -> PrimFunc:
    """Write the iterations of each unrolled loop out, each with its own constants."""
    return with_fields(func, body=_visit(func.body, dims_env(func.dims)))


def _visit(s: Stmt, env: Env) -> Stmt:
    if isinstance(s, For):
        s = map_statements(s, lambda x: _visit(x, extend(env, s)))
        if s.kind == "unrolled":
            copies = [substitute(own_binders(s.body), {s.var: Const(i, s.var.dtype)}) for i in range(s.extent.value)]
            return seq(simplify_statements(c, env) for c in copies)
        return s
    return map_statements(s, lambda x: _visit(x, env))
