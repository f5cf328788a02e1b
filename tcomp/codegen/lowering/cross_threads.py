"""Reductions that threads do together: each sums up what its own iterations give, then all exchange their sums."""

from __future__ import annotations

from collections.abc import Sequence

from ...analysis.regions import loops_around
from ...errors import UnsupportedError
from ...ir.expr import Add, BinaryExpr, Buffer, Call, Const, Load, Max, Min, Mul, Var, const
from ...ir.node import substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, as_int, conjuncts, equal, free_vars
from ...ir.stmt import Block, For, IterVar, Stmt, Store, replace_statements, seq

ACROSS: dict[type[BinaryExpr], str] = {
    Add: "threads_add",
    Mul: "threads_mul",
    Max: "threads_max",
    Min: "threads_min",
}
"""The functions that give each thread the combination of what all have: (value, threads along threadIdx.x)."""
WARP = 32


def lower_cross_threads(func: PrimFunc) -> PrimFunc:
    """Rewrite each reduction over a loop bound to threadIdx.x:

        for k in threadIdx.x: range(128): for r in range(8): S[i] = S[i] + A[i, r * 128 + k]

    becomes

        for k in threadIdx.x: range(128):
          part[0] = 0
          for r in range(8): part[0] = part[0] + A[i, r * 128 + k]
          part[0] = threads_add(part[0])
          S[i] = part[0] where k == 0

    The loops over reduce axes must hold nothing but the block.

    Raises:
        UnsupportedError: another form, or a number of threads that no exchange is made for.
    """
    for b in tuple(func.blocks.values()):
        reducing = {v for it in b.reduce for v in free_vars(it.binding)}
        bound = [s for s in loops_around(func, b) if s.var in reducing and s.thread.startswith("threadIdx")]
        if bound:
            func = _rewrite(func, b, bound)
    return func


def _rewrite(func: PrimFunc, b: Block, bound: Sequence[For]) -> PrimFunc:
    what = f"cannot reduce block {b.name} over {' and '.join(s.thread for s in bound)}"
    (thread, *more) = bound
    count = as_int(thread.extent, 0)
    if more or thread.thread != "threadIdx.x":
        raise UnsupportedError(what, why="threads exchange their sums along threadIdx.x alone", hint="fuse the loops")
    if count % WARP and (count > WARP or count & (count - 1)):
        hint = "split the loop by a power of two, or a multiple of 32"
        raise UnsupportedError(what, why=f"{count} threads are neither part of a warp nor whole ones", hint=hint)
    store, chain = b.body, _reduce_chain(func, b)
    reducing = {v for it in b.reduce for v in free_vars(it.binding)}
    is_whole = all(s in chain for s in loops_around(func, b) if s.var in reducing)
    if not isinstance(store, Store) or not isinstance(b.init, Store) or not is_whole:
        raise UnsupportedError(
            what,
            why="its loops over reduce axes, init included, do not stand together",
            hint="reorder the loops over reduce axes inside the others",
        )
    op = type(store.value)
    if op not in ACROSS or store.buffer.dtype.bits < 32:
        raise UnsupportedError(what, why=f"threads do not exchange {store.buffer.dtype} for {op.__name__}")
    part = Buffer(f"{store.buffer.name}_part", (const(1),), store.buffer.dtype, "local")
    nest = _together(b, store, b.init, part, thread, [s for s in chain if s is not thread])
    return with_fields(func, body=replace_statements(func.body, {chain[0]: nest}), allocs=(*func.allocs, part))


def _reduce_chain(func: PrimFunc, b: Block) -> list[For]:
    """The loops directly around a block that run over reduce axes alone, or just once, and hold nothing else, outermost first."""
    spatial, reducing = ({v for it in iters for v in free_vars(it.binding)} for iters in (b.spatial, b.reduce))
    found: list[For] = []
    inner: Stmt = b
    for s in reversed(loops_around(func, b)):
        is_fixed = s.var in spatial or s.thread.startswith("blockIdx")
        if s.body is not inner or is_fixed or (s.var not in reducing and as_int(s.extent) != 1):
            break
        found.insert(0, s)
        inner = s
    return found


def _together(b: Block, store: Store, init: Store, part: Buffer, thread: For, serial: Sequence[For]) -> Stmt:
    assert isinstance(store.value, BinaryExpr)
    op = type(store.value)
    held = Load(store.buffer, store.indices)
    element = store.value.b if store.value.a == held else store.value.a
    own = Load(part, (const(0),))
    update: Stmt = with_fields(b, name=f"{b.name}_own", body=Store(part, (const(0),), op(own, element)), init=None)
    for s in reversed(serial):
        update = with_fields(s, body=update)
    reducing = {v for it in b.reduce for v in free_vars(it.binding)}
    once = {s.var: const(0) for s in serial if s.var not in reducing}
    kept = [substitute(c, once) for c in conjuncts(b.where) if not free_vars(c) & reducing]
    fresh = {it.var: Var(it.var.name, it.var.dtype) for it in b.spatial}
    iters = tuple(IterVar(fresh[it.var], it.extent, "spatial", it.binding) for it in b.spatial)
    index = tuple(substitute(i, fresh) for i in store.indices)
    first = all_of([*kept, equal(thread.var, 0)])
    exchanged = Call(ACROSS[op], (own, Const(as_int(thread.extent, 0), thread.var.dtype)), part.dtype)
    steps = [
        Block(f"{b.name}_start", (), Store(part, (const(0),), init.value)),
        update,
        Block(f"{b.name}_all", (), Store(part, (const(0),), exchanged)),
        Block(b.name, iters, Store(store.buffer, index, own), None, first),
    ]
    return with_fields(thread, body=seq(steps))
