"""Two versions of a loop body: one for whole tiles, without conditions, and one for the edge."""

from __future__ import annotations

from ...ir.arith import can_prove, dims_env, linear
from ...ir.expr import LE, LT, Const, Expr, Load, const
from ...ir.node import walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import For, If, Let, Stmt, Store, map_statements, walk_statements
from .common import Env, extend, own_binders, simplify_statements

MAX_VERSIONS = 3


def partition_loops(func: PrimFunc) -> PrimFunc:
    """Hoist tile conditions.

    A condition (of a branch or of a masked load) such as `io * 16 + ii < n`, where `ii` runs inside `io`, holds for all of `ii` in every iteration of `io`
    but the last. Where the inner loops are vectorized or unrolled, the body of `io` becomes

        if io < whole: body without the condition
        else: body
    """
    dims = dims_env(func.dims)
    return with_fields(func, body=_visit(func.body, dims, 0))


def _visit(s: Stmt, env: Env, versions: int) -> Stmt:
    if isinstance(s, For):
        inner = extend(env, s)
        if s.kind in ("serial", "parallel") and versions < MAX_VERSIONS and _is_tiled(s.body):
            bound = _whole_tiles(s, env)
            if bound is not None and 0 < bound < s.extent.value:
                whole_env = {**env, s.var: (const(0), const(bound - 1))}
                edge_env = {**env, s.var: (const(bound), const(s.extent.value - 1))}
                whole = _visit(simplify_statements(s.body, whole_env), whole_env, versions + 1)
                edge = _visit(simplify_statements(own_binders(s.body), edge_env), edge_env, versions + 1)
                return with_fields(s, body=If(s.var < bound, whole, edge))
        return map_statements(s, lambda x: _visit(x, inner, versions))
    return map_statements(s, lambda x: _visit(x, env, versions))


def _is_tiled(body: Stmt) -> bool:
    return any(isinstance(x, For) and x.kind in ("vectorized", "unrolled") for x in walk_statements(body))


def _whole_tiles(loop: For, env: Env) -> int | None:
    """How many first iterations satisfy every hoistable condition under the loop."""
    if not isinstance(loop.extent, Const):
        return None
    inner: Env = dict(env)
    conditions: list[Expr] = []
    for x in walk_statements(loop.body):
        if isinstance(x, For):
            inner = extend(inner, x)
        if isinstance(x, If):
            conditions.extend(_comparisons(x.cond))
        elif isinstance(x, (Store, Let)):
            masks = [e.mask for e in walk(x.value) if isinstance(e, Load) and e.mask is not None]
            conditions.extend(c for m in dict.fromkeys(masks) for c in _comparisons(m))
    outer_loops = set(env)
    bounds = []
    for c in conditions:
        used = free_vars(c)
        form = linear(c.a - c.b, {})
        others = used - {loop.var}
        if loop.var not in used or not others or others & outer_loops or form.terms.get(loop.var, 0) <= 0:
            continue
        low, high = 0, loop.extent.value
        while low < high:
            middle = (low + high + 1) // 2
            if can_prove(c, {**inner, loop.var: (const(0), const(middle - 1))}):
                low = middle
            else:
                high = middle - 1
        bounds.append(low)
    return min(bounds) if bounds else None


def _comparisons(condition: Expr) -> list[Expr]:
    stack, found = [condition], list[Expr]()
    while stack:
        c = stack.pop()
        if isinstance(c, (LT, LE)):
            found.append(c)
        elif type(c).__name__ == "And":
            stack += [c.a, c.b]
    return found
