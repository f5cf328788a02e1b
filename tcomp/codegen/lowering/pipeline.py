"""Loops that compute from slices which they bring to shared memory -> loops that load the next slice meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import UnsupportedError
from ...ir.expr import Buffer, Expr, Load, const
from ...ir.node import rewrite, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import as_int
from ...ir.stmt import (
    Allocate,
    For,
    If,
    Seq,
    Stmt,
    Store,
    Sync,
    map_statements,
    own_binders,
    seq,
    walk_statements,
)

PRAGMA = "pragma_double_buffer"


def pipeline_copies(func: PrimFunc) -> PrimFunc:
    """Rewrite each loop with the pragma double_buffer whose iterations fill shared memory and then use it:

        for k in range(n):
          for t in threadIdx.x: S[t] = A[k, t]
          sync
          use S
          sync

    becomes

        for t in threadIdx.x: S[0, t] = A[0, t]
        sync
        for k in range(n):
          if k + 1 < n: for t in threadIdx.x: R[...] = A[k + 1, t]
          use S[k % 2]
          if k + 1 < n: for t in threadIdx.x: S[(k + 1) % 2, t] = R[...]
          sync

    The loads are under way while the threads compute; their results wait in registers R. Iterations read one half of S and write the other, so
    that one barrier does for both.

    Raises:
        UnsupportedError: the loop has another form.
    """

    def visit(s: Stmt) -> Stmt:
        s = map_statements(s, visit)
        if isinstance(s, For) and s.annotations.get(PRAGMA):
            return _pipelined(s, func.name)
        return s

    return with_fields(func, body=visit(func.body))


def _pipelined(loop: For, name: str) -> Stmt:
    if as_int(loop.extent) == 1:  # nothing follows
        return loop
    buffers: list[Buffer] = []
    inside = loop.body
    while isinstance(inside, Allocate):
        buffers.append(inside.buffer)
        inside = inside.body
    shared = [b for b in buffers if b.scope == "shared"]
    parts = list(inside.stmts) if isinstance(inside, Seq) else [inside]
    count = next((i for i, s in enumerate(parts) if isinstance(s, Sync)), 0)
    copies, rest = parts[:count], parts[count + 1 :]
    if rest and isinstance(rest[-1], Sync):
        rest = rest[:-1]
    if not _is_fitting(copies, rest, shared):
        raise UnsupportedError(
            f"cannot double-buffer loop {loop.var.name} of kernel {name}",
            why="its iterations do not begin with copies to shared memory, then a barrier, then what uses these",
            hint="read the operands into shared memory at this loop (cache_read, compute_at), or leave the pragma out",
        )
    halves = {
        b: with_fields(b, shape=(const(2), *b.shape), stride_rules=tuple((a + 1, f, o) for a, f, o in b.stride_rules))
        for b in shared
    }
    following = loop.var + 1
    more = following < loop.extent
    registers: list[Buffer] = []
    loading, storing = [], []
    for copy in copies:
        load, store = _apart(copy, registers)
        loading.append(If(more, substitute(load, {loop.var: following})))
        storing.append(If(more, _in_half(substitute(store, {loop.var: following}), halves, following % 2)))
    first = [_in_half(substitute(own_binders(c), {loop.var: const(0)}), halves, const(0)) for c in copies]
    using = [_in_half(s, halves, loop.var % 2) for s in rest]
    body: Stmt = seq([*loading, *using, *storing, Sync("shared")])
    for b in (*registers, *(b for b in buffers if b not in shared)):
        body = Allocate(b, body)
    result: Stmt = seq([*first, Sync("shared"), with_fields(loop, body=body)])
    if as_int(loop.extent) is None:  # there may be no first slice
        result = If(const(0) < loop.extent, result)
    for b in shared:
        result = Allocate(halves[b], result)
    return result


def _is_fitting(copies: Sequence[Stmt], rest: Sequence[Stmt], shared: Sequence[Buffer]) -> bool:
    """Whether copies fill the shared buffers, and nothing else, from elsewhere; and what follows only reads them."""
    stores = [s for c in copies for s in walk_statements(c) if isinstance(s, Store)]
    loads = [x for c in copies for x in walk(c) if isinstance(x, Load)]
    later = [s for c in rest for s in walk_statements(c) if isinstance(s, Store)]
    return (
        bool(stores)
        and all(s.buffer in shared for s in stores)
        and not any(x.buffer in shared for x in loads)
        and not any(s.buffer in shared or s.buffer in {x.buffer for x in loads} for s in later)
        and not any(isinstance(s, Sync) for c in copies for s in walk_statements(c))
    )


def _apart(copy: Stmt, registers: list[Buffer]) -> tuple[Stmt, Stmt]:
    """A copy as two: into registers of each thread, which are added to the list, and from there."""
    kept: dict[int, tuple[Buffer, tuple[Expr, ...]]] = {}

    def load(s: Stmt, around: tuple[For, ...]) -> Stmt:
        if isinstance(s, For):
            inner = around if s.kind == "bound" else (*around, s)
            return map_statements(_unrolled(s), lambda x: load(x, inner))
        if isinstance(s, Store):
            own = Buffer(
                f"{s.buffer.name}_next", tuple(f.extent for f in around) or (const(1),), s.value.dtype, "local"
            )
            place: tuple[Expr, ...] = tuple(f.var for f in around) or (const(0),)
            kept[id(s)] = own, place
            registers.append(own)
            return Store(own, place, s.value)
        return map_statements(s, lambda x: load(x, around))

    def store(s: Stmt) -> Stmt:
        if isinstance(s, Store):
            own, place = kept[id(s)]
            return with_fields(s, value=Load(own, place))
        return map_statements(_unrolled(s), store)

    return load(copy, ()), own_binders(store(copy))


def _unrolled(s: Stmt) -> Stmt:
    """A serial loop written out, as registers have no addresses."""
    return with_fields(s, kind="unrolled") if isinstance(s, For) and s.kind == "serial" else s


def _in_half(s: Stmt, halves: dict[Buffer, Buffer], half: Expr) -> Stmt:
    """A statement that uses one half of doubled buffers."""

    def moved(x: object) -> object:
        if isinstance(x, (Load, Store)) and x.buffer in halves:
            return with_fields(x, buffer=halves[x.buffer], indices=(half, *x.indices))
        return x

    return rewrite(s, moved)
