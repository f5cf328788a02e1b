"""Pragmas of loops -> unrolled loops and prefetches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

from ...ir.arith import Linear, dims_env, linear, simplify
from ...ir.expr import Buffer, Const, Expr, FloorDiv, Load, Ramp, Var, const
from ...ir.node import substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import Allocate, For, Let, Prefetch, Stmt, Store, map_statements, seq, sub_statements, walk_statements
from .common import Env, extend

LINE = 64
"""Bytes of a cache line."""
MAX_LINES = 32
"""Most lines of a stream to ask for in an iteration."""
MAX_OFFSETS = 1 << 14


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
    runs = s.annotations.get("pragma_prefetch_next")
    if runs is not None:
        s = with_fields(s, body=seq([*_shares(s, runs), s.body]))
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
    """Where the loop's loads will be, some iterations on.

    Of streams that move by a cache line or more in an iteration, all lines; where there are none, the first element of each.
    """
    inside = {x.var: x.extent for x in walk_statements(loop.body) if isinstance(x, For)}
    names = {x.var for x in walk_statements(loop.body) if isinstance(x, Let)}
    start: dict[Var, Expr] = {v: const(0) for v in (*inside, *names)}
    start[loop.var] = loop.var + ahead
    outer = {v: r for v, r in env.items() if v is not loop.var}
    slow: dict[tuple[Buffer, Expr], Stmt] = {}
    fast: dict[tuple[Buffer, Expr], Stmt] = {}
    for buffer, index in _loads(loop):
        form, first = linear(index, {}), simplify(substitute(index, start), outer)
        if abs(form.terms.get(loop.var, 0)) * buffer.dtype.itemsize < LINE:
            slow.setdefault((buffer, first), Prefetch(buffer, (first,)))
            continue
        for offset in _line_starts(form, inside, buffer.dtype.itemsize):
            at = simplify(first + offset, outer)
            fast.setdefault((buffer, at), Prefetch(buffer, (at,)))
    return list((fast or slow).values())


def _loads(loop: For) -> Iterator[tuple[Buffer, Expr]]:
    """What a loop loads at places that its variable decides, and no other load: the buffer, and the index of the first lane."""
    own = {x.buffer for x in walk_statements(loop.body) if isinstance(x, (Allocate, Store))}
    for e in walk(loop.body):
        if isinstance(e, Load) and e.buffer not in own:
            index = e.indices[0].base if isinstance(e.indices[0], Ramp) else e.indices[0]
            if loop.var in free_vars(index) and not any(isinstance(x, Load) for x in walk(index)):
                yield e.buffer, index


def _shares(loop: For, runs: int) -> list[Stmt]:
    """What the next `runs` runs of a loop will read, all of them the same: this run asks for its share, a line an iteration, into L2.

    The runs are those of a loop around it, whose variable says which one it is, `f % runs`, and what they read, `f // runs` (or a digit of
    that, such as `f // runs % panels`). Neighbours ask for some lines twice where their iterations are more than the lines of a share.
    """
    if not runs or not isinstance(loop.extent, Const):
        return []
    inside = [x.var for x in walk_statements(loop.body) if isinstance(x, (For, Let))]
    start: dict[Var, Expr] = dict.fromkeys([*inside, loop.var], const(0))
    found: dict[Buffer, Stmt] = {}
    for buffer, index in _loads(loop):
        form, per_line = linear(index, {}), LINE // buffer.dtype.itemsize
        quotients = [x.a for x in walk(index) if isinstance(x, FloorDiv) and x.b == const(runs)]
        counts = {v for v in quotients if isinstance(v, Var) and v not in start}  # of the loops around
        step = form.terms.get(loop.var, 0)
        if step >= per_line and len(counts) == 1:
            (f,) = counts
            lines = ceil(loop.extent.value * ceil(step / per_line) / runs)
            first = simplify(substitute(index, {**start, f: f + runs}), {})
            own = (f % runs * lines + loop.var) * per_line
            found.setdefault(buffer, Prefetch(buffer, (first + own,), 2))
    return list(found.values())


def _line_starts(form: Linear, extents: Mapping[Var, Expr], itemsize: int) -> list[int]:
    """Offsets, in elements, of one element in each cache line that loops inside reach; of the first alone where that is unknown."""
    offsets = {0}
    for var, extent in extents.items():
        step = form.terms.get(var, 0)
        if step and isinstance(extent, Const):
            offsets = {o + step * i for o in offsets for i in range(extent.value)}
        if len(offsets) > MAX_OFFSETS:
            return [0]
    lines = {o * itemsize // LINE: o for o in sorted(offsets, reverse=True)}
    return sorted(lines.values())[:MAX_LINES]
