"""Primitives that move a block: compute_at, reverse_compute_at."""

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
from ...ir.expr import Buffer, Const, Expr, Var, const
from ...ir.node import Node, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, free_vars, is_const
from ...ir.stmt import Block, For, IterVar, Seq, Stmt, seq, without_block
from .base import BlockRef, Primitive, Refusal, env_at, replace, with_body
from .patterns import movable_output, only_output, pinned, spatial_index


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
    buffer = movable_output(func, b, what)
    if isinstance(buffer, Refusal):
        return buffer
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
    stmts = _statements(s)
    place = next(i for i, x in enumerate(stmts) if any(_uses(c, buffer) for c in blocks_under(x)))
    after = [p for x in stmts[place:] for p in blocks_under(x) if set(writes(p)) & set(reads(b)) and p is not b]
    if after:
        why = f"block {after[0].name}, which makes what it reads, runs later in that loop"
        return Refusal(
            what, why, {s: "the loop", after[0]: "runs later"}, f"compute_at block {after[0].name} there first"
        )
    return None


def _statements(s: For) -> list[Stmt]:
    return list(s.body.stmts) if isinstance(s.body, Seq) else [s.body]


def _uses(block: Block, buffer: Buffer) -> bool:
    return any(a.buffer is buffer for a in accesses(block))


def apply_compute_at(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, None]:
    """for i: B[i] = f(i)
    for x:
      for y: C[x, y] = g(B[x * 4 + y])

    becomes, for compute_at(B, x), with the region that one x needs,

        for x:
          for i in range(4): B[x * 4 + i] = f(x * 4 + i)
          for y: C[x, y] = g(B[x * 4 + y])

    Elements that several iterations need are computed again in each.

    >>> sch = blur(8)
    >>> x, = sch.get_loops("S")
    >>> x_0, x_1 = sch.split(x, [None, 4])
    >>> sch.compute_at("A2", x_0)
    >>> sch.show()
    def blur(A: float32[10], out S: float32[8]):
      A2 = alloc(float32[10])
      A3 = alloc(float32[10])
      for y in range(10):
        block A3(vy over 10 = y):
          A3[vy] = A[vy] * 3.0
      for x_0 in range(2):
        for x in range(6):
          block A2(vx over 10 = x_0 * 4 + x):
            A2[vx] = A[vx] * 2.0
        for x_1 in range(4):
          block S(vx_1 over 8 = x_0 * 4 + x_1):
            S[vx_1] = A2[vx_1] + A2[vx_1 + 1] + A2[vx_1 + 2] + A3[vx_1]
    """
    b, s = func.blocks[block.name], func.loops[loop]
    buffer = only_output(b)
    assert buffer is not None
    box = _required(func, buffer, s)
    write = next(a for a in accesses(b) if a.is_write)
    place = spatial_index(b, write.indices)
    assert place is not None
    ranges = {v: (box.mins[d], box.extents[d]) for d, v in place.items()}
    env = env_at(func, s, inclusive=True)
    moved = _rebuild_nest(func, b, ranges, env)
    inside = with_body(func, without_block(func.body, b))
    target = inside.loops[loop]
    body = _insert(target, moved, before=buffer)
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


def _insert(loop: For, new: Stmt, before: Buffer) -> Stmt:
    """The loop's body with `new` right before the first statement that touches a buffer."""
    stmts = _statements(loop)
    for i, s in enumerate(stmts):
        if any(_uses(c, before) for c in blocks_under(s)):
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
    mark: dict[Node, str] = {s: "the loop", b: "the block"}
    refusal = pinned(b, what)
    if refusal is not None:
        return refusal
    others = [p for x in writes(b) for p in producers(func, x) if p is not b]
    if others:
        why = f"block {others[0].name} writes {writes(b)[0].name} as well"
        return Refusal(what, why, {**mark, others[0]: "also writes it"}, "do it before decompose_reduction")
    if any(x.kind == "vectorized" for x in [*loops_around(func, s), s]):
        return Refusal(what, "the loop is, or runs inside, a vectorized loop", mark)
    return _check_sources(func, b, s, what, mark) or _early_reader(func, b, s, what, mark)


def _early_reader(func: PrimFunc, b: Block, s: For, what: str, mark: dict[Node, str]) -> Refusal | None:
    """Refuse where a block reads the result before the place, behind its sources, where it would now be made."""
    stmts = _statements(s)
    sources = [i for i, x in enumerate(stmts) for p in blocks_under(x) if set(writes(p)) & set(reads(b))]
    early = [c for x in stmts[: max(sources) + 1] for c in blocks_under(x) if set(reads(c)) & set(writes(b))]
    if not early:
        return None
    why = f"block {early[0].name} reads its result before that place"
    return Refusal(what, why, {**mark, early[0]: "reads it"}, f"a loop around block {early[0].name} as well")


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
                place = spatial_index(b, a.indices, or_reduce=True)
                if place is None:
                    return Refusal(
                        what, f"it does not read {x.name} at its own iterators", mark, "compute_at the producer"
                    )
                for d, v in place.items():
                    piece = Box((box.mins[d],), (box.extents[d],))
                    extent = next(it.extent for it in b.iters if it.var is v)
                    if ranges.setdefault(v, piece) != piece or simplify(extent - x.shape[d]) != Const(0, extent.dtype):
                        return Refusal(what, f"its producers cover different parts of axis {v.name}", mark)
    for it in b.iters:
        known = ranges.get(it.var)
        if it.kind == "reduce" and known is not None and known.mins + known.extents != (const(0), it.extent):
            why = f"an iteration of the loop completes only a part of its reduce axis {it.var.name}"
            return Refusal(what, why, mark, "a loop further out, or rfactor")
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

    >>> sch = matmul(4, 6, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> sch.reverse_compute_at("D", i)
    >>> sch.show()
    def matmul(A: float32[4, 8], B: float32[8, 6], out D: float32[4, 6]):
      C = alloc(float32[4, 6])
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
        for j_1 in range(6):
          block D(vi_1 over 4 = i; vj_1 over 6 = j_1):
            D[vi_1, vj_1] = max(C[vi_1, vj_1], 0.0)
    """
    b, s = func.blocks[block.name], func.loops[loop]
    under = blocks_under(s.body)
    ranges: dict[Var, tuple[Expr, Expr]] = {}
    for x in reads(b):
        if any(p in under for p in producers(func, x)):
            box = _final_region(func, x, s)
            assert isinstance(box, Box)
            a = next(a for a in accesses(b) if a.buffer is x)
            ranges.update(
                {
                    v: (box.mins[d], box.extents[d])
                    for d, v in (spatial_index(b, a.indices, or_reduce=True) or {}).items()
                }
            )
    nest = _rebuild_nest(func, b, ranges, env_at(func, s, inclusive=True))
    inside = with_body(func, without_block(func.body, b))
    target = inside.loops[loop]
    names = {p.name for x in reads(b) for p in producers(func, x) if p in under}
    stmts = _statements(target)
    last = max(i for i, x in enumerate(stmts) if any(q.name in names for q in blocks_under(x)))
    body = seq([*stmts[: last + 1], nest, *stmts[last + 1 :]])
    return replace(inside, target, with_fields(target, body=body)), None


COMPUTE_AT = Primitive("compute_at", check_compute_at, apply_compute_at)
REVERSE_COMPUTE_AT = Primitive("reverse_compute_at", check_reverse_compute_at, apply_reverse_compute_at)
