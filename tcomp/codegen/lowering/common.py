"""What the lowering steps share."""

from __future__ import annotations

from collections.abc import Callable

from ...dtype import int64
from ...ir.arith import interval, loop_range, simplify
from ...ir.expr import Const, Expr, Var, const
from ...ir.node import map_children, substitute, with_fields
from ...ir.stmt import EMPTY, For, If, Let, Seq, Stmt, Store, map_statements

Env = dict[Var, tuple[Expr, Expr]]


def extend(env: Env, s: For | Let) -> Env:
    """The ranges inside a loop, or where a name for an offset is known."""
    if isinstance(s, For):
        return {**env, s.var: loop_range(s.extent)}
    if s.var.dtype != int64:
        return env
    low, high = interval(s.value, env)
    if low is None or high is None or low < int64.lowest or high > int64.highest:
        return env
    return {**env, s.var: (const(low), const(high))}


def map_expressions(s: Stmt, f: Callable[[Expr], Expr]) -> Stmt:
    """A statement with `f` applied to the expressions that it holds directly."""
    return map_children(s, lambda x: f(x) if isinstance(x, Expr) else x)


def simplify_statements(s: Stmt, env: Env) -> Stmt:
    """Simplify every expression for the ranges of the loops; drop branches and loops that cannot run."""
    match s:
        case For():
            if isinstance(s.extent, Const) and s.extent.value == 1 and s.kind != "vectorized":
                zero = Const(0, s.var.dtype)
                return simplify_statements(substitute(s.body, {s.var: zero}), env)
            if isinstance(s.extent, Const) and s.extent.value <= 0:
                return EMPTY
            body = simplify_statements(s.body, extend(env, s))
            return s if body is s.body else EMPTY if _empty(body) else with_fields(s, body=body)
        case If():
            cond = simplify(s.cond, env)
            if isinstance(cond, Const):
                taken = s.then if cond.value else s.orelse
                return EMPTY if taken is None else simplify_statements(taken, env)
            then = simplify_statements(s.then, env)
            orelse = None if s.orelse is None else simplify_statements(s.orelse, env)
            if _empty(then) and (orelse is None or _empty(orelse)):
                return EMPTY
            return with_fields(s, cond=cond, then=then, orelse=orelse)
        case Store():
            return map_expressions(s, lambda e: simplify(e, env))
        case Let():
            return with_fields(s, value=simplify(s.value, env), body=simplify_statements(s.body, extend(env, s)))
        case _:
            return map_statements(s, lambda x: simplify_statements(x, env))


def _empty(s: Stmt) -> bool:
    return isinstance(s, Seq) and not s.stmts
