"""Primitives that move a block: compute_inline, compute_at, reverse_compute_at."""

from __future__ import annotations

from ...analysis.regions import (
    Box,
    accesses,
    blocks_under,
    box_of,
    consumers,
    is_dense,
    loop_env,
    loops_around,
    loops_inside,
    producers,
    reads,
    resolve,
    writes,
)
from ...ir.arith import can_prove, dims_env, simplify
from ...ir.expr import Buffer, Const, Expr, Load, Var
from ...ir.node import Node, rewrite, substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, free_vars, is_const
from ...ir.stmt import Block, For, IterVar, Seq, Stmt, Store, replace_statements, seq
from .base import BlockRef, Primitive, Refusal, env_at, remove_block, replace, with_body


def _only_output(block: Block) -> Buffer | None:
    written = writes(block)
    return written[0] if len(written) == 1 else None


def _spatial_index(block: Block, indices: tuple[Expr, ...]) -> dict[int, Var] | None:
    """Which spatial iterator each dimension of an index is; None unless each is a different one or the constant 0."""
    spatial = {it.var for it in block.iters if it.kind == "spatial"}
    found: dict[int, Var] = {}
    for d, index in enumerate(indices):
        if is_const(index, 0):
            continue
        if index not in spatial or index in found.values():
            return None
        found[d] = index
    return found


def _movable_output(func: PrimFunc, block: Block, what: str) -> Refusal | Buffer:
    """The one intermediate buffer that a block alone writes, at its own spatial iterators."""
    buffer = _only_output(block)
    mark: dict[Node, str] = {block: "this block"}
    if buffer is None:
        return Refusal(what, "it writes several buffers", mark)
    if buffer not in func.allocs:
        return Refusal(
            what, f"it writes {buffer.name}, an output of the function", mark, f"cache_write({block.name}) first"
        )
    others = [b for b in producers(func, buffer) if b is not block]
    if others:
        return Refusal(
            what, f"block {others[0].name} writes {buffer.name} as well", {**mark, others[0]: "also writes it"}
        )
    for a in accesses(block):
        if a.is_write and _spatial_index(block, a.indices) is None:
            return Refusal(what, f"it does not write {buffer.name} at its own spatial iterators", mark)
    return buffer


# compute_inline


def check_compute_inline(func: PrimFunc, block: BlockRef) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot inline block {b.name}"
    if b.is_reduction:
        return Refusal(what, "it is a reduction: its value is not one expression", {b: "reduction"}, "compute_at it")
    if not isinstance(b.body, Store):
        return Refusal(what, "its body is more than one store", {b: "this block"})
    buffer = _movable_output(func, b, what)
    if isinstance(buffer, Refusal):
        return buffer
    if any(a.buffer is buffer for a in accesses(b) if not a.is_write):
        return Refusal(what, f"it reads the buffer {buffer.name} that it writes", {b: "this block"})
    if not consumers(func, buffer):
        return Refusal(what, f"nothing reads {buffer.name}", {b: "this block"})
    return None


def apply_compute_inline(func: PrimFunc, block: BlockRef) -> tuple[PrimFunc, None]:
    """B[i] = f(A[i]);  C[i] = g(B[i])    becomes    C[i] = g(f(A[i]))"""
    b = func.blocks[block.name]
    store = b.body
    where = _spatial_index(b, store.indices)

    def use(e: object) -> object:
        if isinstance(e, Load) and e.buffer is store.buffer:
            return substitute(store.value, {v: e.indices[d] for d, v in where.items()})
        return e

    body = remove_block(func, b)
    changed = {}
    for c in consumers(func, store.buffer):
        inlined = with_fields(c, body=rewrite(c.body, use), init=None if c.init is None else rewrite(c.init, use))
        changed[c] = inlined
    body = replace_statements(body, changed)
    return with_body(func, body, allocs=tuple(x for x in func.allocs if x is not store.buffer)), None


# compute_at


def _required(func: PrimFunc, buffer: Buffer, loop: For) -> Box:
    """The region of a buffer that one iteration of a loop reads."""
    around = [*loops_around(func, loop), loop]
    env = {**dims_env(func.dims), **loop_env(around)}
    points, inner = [], {}
    for c in blocks_under(loop.body):
        for a in accesses(c):
            if a.buffer is buffer:
                points.append(resolve(c, a.indices))
                inner.update(loop_env(loops_inside(func, a, around)))
    return box_of(points, inner, env, buffer.shape)


def check_compute_at(func: PrimFunc, block: BlockRef, loop: Var) -> Refusal | None:
    b, s = func.blocks[block.name], func.loops[loop]
    what = f"cannot compute block {b.name} at loop {loop.name}"
    buffer = _movable_output(func, b, what)
    if isinstance(buffer, Refusal):
        return buffer
    if s in loops_around(func, b):
        return Refusal(what, "the block already runs inside that loop", {s: "the loop", b: "the block"})
    under = blocks_under(s.body)
    users = consumers(func, buffer)
    outside = [c for c in users if c not in under]
    if outside or not users:
        why = (
            f"block {outside[0].name} reads {buffer.name} outside the loop"
            if outside
            else f"nothing reads {buffer.name}"
        )
        return Refusal(
            what,
            why,
            {s: "the loop", **dict.fromkeys(outside, "reads it here")},
            "choose a loop around all its readers",
        )
    vector = next((x for x in [*loops_around(func, s), s] if x.kind == "vectorized"), None)
    if vector is not None:
        return Refusal(
            what, f"loop {vector.var.name} is vectorized", {vector: "vectorized"}, "compute it at a loop outside"
        )
    return None


def apply_compute_at(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, None]:
    """for i: B[i] = f(i)
    for x:
      for y: C[x, y] = g(B[x * 4 + y])

    becomes, for compute_at(B, x), with the region that one x needs,

        for x:
          for i in range(4): B[x * 4 + i] = f(x * 4 + i)
          for y: C[x, y] = g(B[x * 4 + y])

    Elements that several iterations need are computed again in each.
    """
    b, s = func.blocks[block.name], func.loops[loop]
    buffer = _only_output(b)
    assert buffer is not None
    box = _required(func, buffer, s)
    write = next(a for a in accesses(b) if a.is_write)
    place = _spatial_index(b, write.indices)
    assert place is not None
    ranges = {v: (box.mins[d], box.extents[d]) for d, v in place.items()}
    env = env_at(func, s, inclusive=True)
    moved = _rebuild_nest(func, b, ranges, env)
    inside = with_body(func, remove_block(func, b))
    target = inside.loops[loop]
    body = _insert(target.body, moved, before=buffer)
    return replace(inside, target, with_fields(target, body=body)), None


def _rebuild_nest(
    func: PrimFunc, b: Block, ranges: dict[Var, tuple[Expr, Expr]], env: dict[Var, tuple[Expr, Expr]]
) -> Stmt:
    """Fresh loops around a block that run its iterators over the given ranges (others: all of them)."""
    loops: list[tuple[Var, Expr]] = []
    iters: list[IterVar] = []
    conditions: list[Expr] = []
    inner = dict(env)
    for it in b.iters:
        low, extent = ranges.get(it.var, (Const(0, it.var.dtype), it.extent))
        if is_const(extent, 1):
            binding = low
        else:
            v = Var(it.var.name.removeprefix("v"))
            loops.append((v, extent))
            inner[v] = (Const(0, v.dtype), simplify(extent - 1))
            binding = simplify(low + v, inner)
        iters.append(with_fields(it, binding=binding))
        if it.var in ranges:
            zero = Const(0, it.var.dtype)
            conditions += [c for c in (zero <= binding, binding < it.extent) if not can_prove(c, inner)]
    nest: Stmt = with_fields(b, iters=tuple(iters), where=all_of(conditions))
    for v, extent in reversed(loops):
        nest = For(v, extent, nest)
    return nest


def _insert(body: Stmt, new: Stmt, before: Buffer) -> Stmt:
    """`new` right before the first statement that touches a buffer."""
    stmts = list(body.stmts) if isinstance(body, Seq) else [body]
    for i, s in enumerate(stmts):
        if any(a.buffer is before for c in blocks_under(s) for a in accesses(c)):
            return seq([*stmts[:i], new, *stmts[i:]])
    return seq([new, *stmts])


# reverse_compute_at


def _final_region(func: PrimFunc, buffer: Buffer, loop: For) -> Box | str:
    """The region of a buffer that one iteration of a loop completes, or why it cannot be told."""
    around = [*loops_around(func, loop), loop]
    env = {**dims_env(func.dims), **loop_env(around)}
    outer = {s.var for s in around}
    points, inner = [], {}
    for p in producers(func, buffer):
        for it in p.iters:
            if it.kind == "reduce" and free_vars(it.binding) & outer:
                return f"block {p.name} is still reducing {buffer.name} in that loop"
        if p.where is not None and free_vars(p.where) & {it.var for it in p.iters if it.kind == "reduce"}:
            return f"block {p.name} is conditional"
        for a in accesses(p):
            if a.is_write and a.buffer is buffer:
                mine = loop_env(loops_inside(func, a, around))
                inner.update(mine)
                indices = resolve(p, a.indices)
                points.append(indices)
                if not is_dense(indices, mine, env):
                    return f"block {p.name} leaves gaps in {buffer.name} between iterations of that loop"
    return box_of(points, inner, env, buffer.shape)


def check_reverse_compute_at(func: PrimFunc, block: BlockRef, loop: Var) -> Refusal | None:
    b, s = func.blocks[block.name], func.loops[loop]
    what = f"cannot compute block {b.name} at loop {loop.name} of its producer"
    mark = {s: "the loop", b: "the block"}
    if s in loops_around(func, b):
        return Refusal(what, "the block already runs inside that loop", mark)
    if b.is_reduction:
        return Refusal(what, "it is a reduction", mark, "compute_at its producer instead")
    if any(x.kind == "vectorized" for x in [*loops_around(func, s), s]):
        return Refusal(what, "the loop is, or runs inside, a vectorized loop", mark)
    return _check_sources(func, b, s, what, mark)


def _check_sources(func: PrimFunc, b: Block, s: For, what: str, mark: dict) -> Refusal | None:
    under = blocks_under(s.body)
    order = list(func.blocks.values())
    sources = [x for x in reads(b) if any(p in under for p in producers(func, x))]
    if not sources:
        return Refusal(what, "no block under the loop produces what it reads", mark)
    for x in reads(b):
        late = [p for p in producers(func, x) if p not in under and order.index(p) > order.index(under[0])]
        if late:
            return Refusal(
                what, f"it also reads {x.name}, which is computed later", {**mark, late[0]: f"writes {x.name}"}
            )
    if any(p not in under for x in sources for p in producers(func, x)):
        return Refusal(what, "some of what it reads is produced outside the loop", mark)
    ranges: dict[Var, Box] = {}
    for x in sources:
        box = _final_region(func, x, s)
        if isinstance(box, str):
            return Refusal(what, box, mark)
        for a in accesses(b):
            if a.buffer is x:
                place = _spatial_index(b, a.indices)
                if place is None:
                    return Refusal(
                        what, f"it does not read {x.name} at its own iterators", mark, "compute_at the producer"
                    )
                for d, v in place.items():
                    piece = Box((box.mins[d],), (box.extents[d],))
                    extent = next(it.extent for it in b.iters if it.var is v)
                    if ranges.setdefault(v, piece) != piece or simplify(extent - x.shape[d]) != Const(0, extent.dtype):
                        return Refusal(what, f"its producers cover different parts of axis {v.name}", mark)
    used = {v for box in ranges.values() for e in (*box.mins, *box.extents) for v in free_vars(e)}
    for loop in [*loops_around(func, s), s]:
        if loop.var not in used and not is_const(loop.extent, 1):
            why = f"each iteration of loop {loop.var.name} would do the same work again"
            return Refusal(what, why, {loop: "does not move the region", b: "the block"}, "a loop further out")
    return None


def apply_reverse_compute_at(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, None]:
    """for i: B[i] = f(i)
    for j: C[j] = g(B[j])

    becomes, for reverse_compute_at(C, i),

        for i:
          B[i] = f(i)
          C[i] = g(B[i])
    """
    b, s = func.blocks[block.name], func.loops[loop]
    under = blocks_under(s.body)
    ranges: dict[Var, tuple[Expr, Expr]] = {}
    for x in reads(b):
        if any(p in under for p in producers(func, x)):
            box = _final_region(func, x, s)
            assert isinstance(box, Box)
            a = next(a for a in accesses(b) if a.buffer is x)
            ranges.update({v: (box.mins[d], box.extents[d]) for d, v in (_spatial_index(b, a.indices) or {}).items()})
    nest = _rebuild_nest(func, b, ranges, env_at(func, s, inclusive=True))
    inside = with_body(func, remove_block(func, b))
    target = inside.loops[loop]
    names = {p.name for x in reads(b) for p in producers(func, x) if p in under}
    stmts = list(target.body.stmts) if isinstance(target.body, Seq) else [target.body]
    last = max(i for i, x in enumerate(stmts) if any(q.name in names for q in blocks_under(x)))
    body = seq([*stmts[: last + 1], nest, *stmts[last + 1 :]])
    return replace(inside, target, with_fields(target, body=body)), None


COMPUTE_INLINE = Primitive("compute_inline", check_compute_inline, apply_compute_inline)
COMPUTE_AT = Primitive("compute_at", check_compute_at, apply_compute_at)
REVERSE_COMPUTE_AT = Primitive("reverse_compute_at", check_reverse_compute_at, apply_reverse_compute_at)
