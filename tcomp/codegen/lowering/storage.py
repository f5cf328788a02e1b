"""Where each intermediate buffer lives, and how small it can be.

A buffer is allocated in the innermost place that holds all its uses, so that what is used inside one iteration is private
to it. There it keeps only the region that one iteration touches: a tile, a panel, a row.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...analysis.regions import Box, box_of, index_span, loop_env
from ...ir.arith import can_prove, dims_env, simplify
from ...ir.expr import Buffer, Const, Expr, Load, Max, Var, const
from ...ir.node import rewrite, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import Allocate, For, If, Seq, Stmt, Store, map_statements, replace_statements, sub_statements
from .common import Env

ALIGN = 64
MOST_BEYOND = 4096
"""Elements of a tile, at most, by which accesses may go beyond the edge."""


def place_storage(func: PrimFunc, may_enter: Mapping[Buffer, set[Var]], fixed: Mapping[Buffer, int]) -> PrimFunc:
    """Turn `PrimFunc.allocs` into Allocate statements, each as far in and as small as its uses permit.

    Args:
        may_enter: for each buffer the loops of which every iteration may have a buffer of its own.
        fixed: buffers of which nothing beyond the shape is written, and that keep the shape's extents behind so many.
    """
    body = func.body
    for buffer in func.allocs:
        body = _place(body, buffer, dims_env(func.dims), may_enter[buffer], fixed.get(buffer))
    return with_fields(func, body=body, allocs=())


def _touches(s: Stmt, buffer: Buffer, memo: dict[int, bool]) -> bool:
    known = memo.get(id(s))
    if known is None:
        known = (isinstance(s, Store) and s.buffer is buffer) or any(
            isinstance(e, Load) and e.buffer is buffer for e in _direct_loads(s)
        )
        known = known or any(_touches(x, buffer, memo) for x in sub_statements(s))
        memo[id(s)] = known
    return known


def _direct_loads(s: Stmt) -> list[Load]:
    roots: list[Expr] = []
    if isinstance(s, Store):
        roots = [*s.indices, s.value]
    elif hasattr(s, "value"):
        roots = [s.value]
    elif isinstance(s, If):
        roots = [s.cond]
    return [x for e in roots for x in walk(e) if isinstance(x, Load)]


def _place(body: Stmt, buffer: Buffer, env: Env, may_enter: set[Var], fixed: int | None) -> Stmt:
    memo: dict[int, bool] = {}
    if not _touches(body, buffer, memo):
        return body
    site, loops = body, list[For]()
    while True:
        if isinstance(site, For) and site.kind != "vectorized" and site.var in may_enter:
            loops.append(site)
            site = site.body
            continue
        if isinstance(site, Allocate):  # another buffer's
            site = site.body
            continue
        users = [x for x in sub_statements(site) if _touches(x, buffer, memo)]
        if isinstance(site, Seq) and len(users) == 1 and isinstance(users[0], (For, Seq)):
            site = users[0]
            continue
        break
    outer = {**env, **loop_env(loops)}
    compact, inside = _compact(site, buffer, outer, fixed)
    return replace_statements(body, {site: Allocate(compact, inside)})


def _within_reason(
    box: Box, buffer: Buffer, touched: list[tuple[tuple[Expr, ...], bool]], inner: Env, outer: Env
) -> Box:
    """The box with its symbolic dimensions no larger than the buffer's own, but for what is surely touched past the edge.

    Args:
        touched: the indices of what is written (True), and of what is read unmasked: a block that fills scratch memory in whole tiles reads such
            tiles of other scratch memory, too. What lies further beyond the edge than a tile is read under a condition that does not hold there.
    """
    mins, extents = list(box.mins), list(box.extents)
    for d, extent in enumerate(buffer.shape):
        size = extents[d]
        if isinstance(size, Const) or isinstance(extent, Const) or can_prove(size <= extent, outer):
            continue
        mins[d], extents[d] = const(0), extent
        for indices, is_write in touched:
            span = index_span(indices[d], inner, outer)
            end = None if span is None else simplify(span[1] + 1, outer)
            if end is None or not free_vars(end) <= free_vars(extent) or can_prove(end <= extents[d], outer):
                continue
            if is_write or _is_near(end, extent):
                extents[d] = Max(extents[d], end)
    return Box(tuple(mins), tuple(extents))


def _is_near(end: Expr, extent: Expr) -> bool:
    """Whether a symbolic extent and where accesses end differ by no more than a tile, as far as some values tell."""
    for size in (1, 1000, 1_000_003):
        beyond = simplify(substitute(end - extent, {v: const(size) for v in free_vars(extent)}), {})
        if not isinstance(beyond, Const) or beyond.value > MOST_BEYOND:
            return False
    return True


def _compact(site: Stmt, buffer: Buffer, outer: Env, fixed: int | None) -> tuple[Buffer, Stmt]:
    points: list[tuple[Expr, ...]] = []
    touched: list[tuple[tuple[Expr, ...], bool]] = []
    inner: Env = {}

    def collect(s: Stmt) -> None:
        if isinstance(s, For):
            inner.update(loop_env([s]))
        if isinstance(s, Store) and s.buffer is buffer:
            points.append(s.indices)
            touched.append((s.indices, True))
        for x in _direct_loads(s):
            if x.buffer is buffer:
                points.append(x.indices)
                if x.mask is None:
                    touched.append((x.indices, False))
        for inside in sub_statements(s):
            collect(inside)

    collect(site)
    box = _within_reason(box_of(points, inner, outer, buffer.shape, may_exceed=True), buffer, touched, inner, outer)
    if fixed is not None:
        zeros = [const(0)] * (buffer.ndim - fixed)
        box = Box((*box.mins[:fixed], *zeros), (*box.extents[:fixed], *buffer.shape[fixed:]))
    compact = with_fields(buffer, shape=box.extents, align=max(buffer.align, ALIGN))
    env = {**outer, **inner}

    def move(indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(simplify(i - low, env) for i, low in zip(indices, box.mins))

    def loads(e: object) -> object:
        return (
            with_fields(e, buffer=compact, indices=move(e.indices)) if isinstance(e, Load) and e.buffer is buffer else e
        )

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Store):
            s = rewrite(s, loads)
            return with_fields(s, buffer=compact, indices=move(s.indices)) if s.buffer is buffer else s
        s = map_statements(s, visit)
        if hasattr(s, "value"):
            s = with_fields(s, value=rewrite(s.value, loads))
        return s

    return compact, visit(site)
