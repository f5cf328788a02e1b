"""Pragmas of loops -> unrolled loops and prefetches."""

from __future__ import annotations

from ...ir.arith import dims_env, simplify
from ...ir.expr import Buffer, Const, Expr, Load, Ramp, Var, const
from ...ir.node import substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import Allocate, For, Let, Prefetch, Stmt, Store, map_statements, seq, sub_statements, walk_statements
from .common import Env, extend


def apply_pragmas(func: PrimFunc) -> PrimFunc:
    """Honour what `Schedule.pragma` attached to loops: auto_unroll_max_step and prefetch."""
    return with_fields(func, body=_visit(func.body, dims_env(func.dims)))


def _visit(s: Stmt, env: Env) -> Stmt:
    if not isinstance(s, (For, Let)):
        return map_statements(s, lambda x: _visit(x, env))
    inner = extend(env, s)
    s = map_statements(s, lambda x: _visit(x, inner))
    if isinstance(s, Let):
        return s
    limit = s.annotations.get("pragma_auto_unroll_max_step")
    if limit is not None:
        s = with_fields(s, body=_unroll(s.body, limit))
    ahead = s.annotations.get("pragma_prefetch")
    if ahead is not None:
        s = with_fields(s, body=seq([*_prefetches(s, ahead, inner), s.body]))
    return s


def _copies(s: Stmt) -> int:
    """Statements that a subtree becomes when its unrolled loops are written out."""
    if isinstance(s, For) and s.kind == "unrolled":
        return s.extent.value * _copies(s.body)
    return isinstance(s, (Store, Let)) + sum(map(_copies, sub_statements(s)))


def _unroll(s: Stmt, limit: int) -> Stmt:
    s = map_statements(s, lambda x: _unroll(x, limit))
    if isinstance(s, For) and s.kind == "serial" and isinstance(s.extent, Const):
        if s.extent.value * max(_copies(s.body), 1) <= limit:
            return with_fields(s, kind="unrolled")
    return s


def _prefetches(loop: For, ahead: int, env: Env) -> list[Stmt]:
    """One for each stream that moves with the loop: where its first load will be, some iterations on."""
    inside = {x.var for x in walk_statements(loop.body) if isinstance(x, (For, Let))}
    start: dict[Var, Expr] = {v: const(0) for v in inside}
    start[loop.var] = loop.var + ahead
    found: dict[tuple[Buffer, Expr], Stmt] = {}
    own = {x.buffer for x in walk_statements(loop.body) if isinstance(x, Allocate)}
    for e in walk(loop.body):
        if not isinstance(e, Load) or e.buffer in own:
            continue
        first = e.indices[0].base if isinstance(e.indices[0], Ramp) else e.indices[0]
        if loop.var in free_vars(first) and not any(isinstance(x, Load) for x in walk(first)):
            index = simplify(substitute(first, start), {v: r for v, r in env.items() if v is not loop.var})
            found.setdefault((e.buffer, index), Prefetch(e.buffer, (index,)))
    return list(found.values())
