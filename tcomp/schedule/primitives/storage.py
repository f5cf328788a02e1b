"""Primitives that change how an intermediate buffer is kept: storage_align, rolling_buffer, double_buffer."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.dependence import private_buffers
from ...analysis.regions import (
    accesses,
    blocks_under,
    box_of,
    consumers,
    loop_env,
    loops_around,
    loops_inside,
    reads,
    resolve,
    writes,
)
from ...ir.arith import Linear, can_prove, dims_env, linear, loop_range, simplify
from ...ir.expr import LT, Buffer, Const, Expr, Load, Var, const
from ...ir.node import Node, rewrite, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.printer import text
from ...ir.query import all_of, conjuncts, free_vars
from ...ir.stmt import Block, For, Seq, Stmt, Store, replace_statements, seq
from .base import BlockRef, Primitive, Refusal, duplicate, env_at, exchange_buffer, rebind, with_body
from .patterns import movable_output, own_chain, spatial_index, tensorized


def check_storage_align(
    func: PrimFunc, block: BlockRef, buffer: Buffer, axis: int, factor: int, offset: int
) -> Refusal | None:
    what = f"cannot align the strides of {buffer.name}"
    if buffer not in func.allocs:
        return Refusal(what, "it is a parameter of the function", {buffer: "parameter"}, "cache_read or cache_write it")
    user = next((b for b in tensorized(func) if any(a.buffer is buffer for a in accesses(b))), None)
    if user is not None:
        return Refusal(what, f"block {user.name} is tensorized for the present ones", {user: "tensorized"})
    if not isinstance(axis, int) or not 0 <= axis < buffer.ndim:
        return Refusal(what, f"it has no axis {axis}; they are 0 to {buffer.ndim - 1}", {buffer: "this buffer"})
    if not isinstance(factor, int) or factor < 1 or not isinstance(offset, int) or not 0 <= offset < factor:
        return Refusal(
            what, f"a stride cannot be {offset} modulo {factor}", {buffer: "this buffer"}, "factor 16, offset 1"
        )
    return None


def apply_storage_align(
    func: PrimFunc, block: BlockRef, buffer: Buffer, axis: int, factor: int, offset: int
) -> tuple[PrimFunc, None]:
    """Pad the stride of an axis, in elements, to offset modulo factor: so that rows fall into different banks or sets.

    >>> sch = matmul(4, 6, 8)
    >>> sch.storage_align("C", 0, 0, 16, 1)
    >>> sch.show()
    def matmul(A: float32[4, 8], B: float32[8, 6], out D: float32[4, 6]):
      C = alloc(float32[4, 6], stride of axis 0 = 1 mod 16)
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
      for i_1 in range(4):
        for j_1 in range(6):
          block D(vi_1 over 4 = i_1; vj_1 over 6 = j_1):
            D[vi_1, vj_1] = max(C[vi_1, vj_1], 0.0)
    """
    assert 0 <= axis < buffer.ndim and 0 <= offset < factor
    rules = tuple(sorted({**{r[0]: r for r in buffer.stride_rules}, axis: (axis, factor, offset)}.values()))
    return exchange_buffer(func, buffer, with_fields(buffer, stride_rules=rules)), None


# rolling_buffer


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of a buffer that an iteration of a loop uses: `size` rows of an axis, moving on by `step`."""

    loop: For
    axis: int
    first: Expr
    size: int
    step: int


def _window(func: PrimFunc, b: Block, buffer: Buffer, what: str) -> _Window | Refusal:
    users = [b, *consumers(func, buffer)]
    shared = [s for s in loops_around(func, b) if all(s in loops_around(func, c) for c in users)]
    for position in range(len(shared) - 1, -1, -1):
        around = shared[: position + 1]
        loop = around[-1]
        env = {**dims_env(func.dims), **loop_env(around)}
        touched = [a for c in users for a in accesses(c) if a.buffer is buffer]
        inner = {v: r for a in touched for v, r in loop_env(loops_inside(func, a, around)).items()}
        box = box_of([resolve(a.block, a.indices) for a in touched], inner, env, buffer.shape)
        moving = [d for d, low in enumerate(box.mins) if loop.var in free_vars(low)]
        if not moving:
            continue
        first, size = box.mins[moving[0]], box.extents[moving[0]]
        step = linear(first, env).terms.get(loop.var, 0)
        rest = linear(first, env).without(loop.var)
        made = box_of([resolve(a.block, a.indices) for a in touched if a.is_write], inner, env, buffer.shape)
        d = moving[0]
        complete = simplify(made.mins[d] + made.extents[d] - first - size, env) == const(0)  # all that is read is made
        if len(moving) > 1 or step <= 0 or not complete or any(loop.var in free_vars(t) for t in rest.terms):
            return Refusal(what, f"the region does not move along one axis with loop {loop.var.name}", {loop: "here"})
        if not isinstance(size, Const) or size.value <= step:
            why = f"the windows of consecutive iterations of loop {loop.var.name} do not overlap"
            return Refusal(what, why, {loop: "moves the window"}, "compute_at alone does it")
        return _Window(loop, moving[0], first, int(size.value), step)
    return Refusal(what, "no loop around the block and all readers moves the region", {b: "this block"}, "compute_at")


def _lanes(func: PrimFunc, loop: For, what: str) -> Refusal | None:
    """Lanes cannot have such a buffer each."""
    vector = next((s for s in loops_around(func, loop) if s.kind == "vectorized"), None)
    if vector is None:
        return None
    return Refusal(what, f"the lanes of loop {vector.var.name} would share the buffer", {vector: "vectorized"})


def check_rolling_buffer(func: PrimFunc, block: BlockRef, buffer: Buffer) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot roll buffer {buffer.name} of block {b.name}"
    if buffer not in writes(b):
        return Refusal(what, "the block does not write it", {b: "this block"})
    moved = movable_output(func, b, what)
    if isinstance(moved, Refusal):
        return moved
    window = _window(func, b, buffer, what)
    if isinstance(window, Refusal):
        return window
    within = [simplify(LT(it.binding, it.extent)) for it in b.iters]
    gaps = next((c for c in conjuncts(b.where) if simplify(c) not in within), None)
    if gaps is not None:
        return Refusal(what, f"it runs only where {text(gaps)}, so parts of the window are not made", {b: "this block"})
    refusal = _lanes(func, window.loop, what)
    if refusal is not None:
        return refusal
    if window.loop.kind != "serial":
        why = f"loop {window.loop.var.name} is {window.loop.kind}: an iteration may not use what the one before it made"
        return Refusal(what, why, {window.loop: window.loop.kind}, "a serial loop inside it")
    if any(a.buffer in reads(b) for a in _written_in(func, window.loop) if a.block is not b):
        return Refusal(what, "what the block reads changes inside that loop", {b: "this block"})
    inside = loops_around(func, b)
    repeated = [s for s in inside[inside.index(window.loop) + 1 :] if s not in own_chain(func, b)]
    if repeated:
        why = f"loop {repeated[0].var.name}, inside loop {window.loop.var.name}, computes parts of the window"
        return Refusal(what, why, {repeated[0]: "inside"}, "compute_at the outer one")
    return None


def _written_in(func: PrimFunc, loop: For) -> list:
    return [a for c in blocks_under(loop.body) for a in accesses(c) if a.is_write]


def apply_rolling_buffer(func: PrimFunc, block: BlockRef, buffer: Buffer) -> tuple[PrimFunc, None]:
    """for y:
      for r in range(3): B[y + r] = f(y + r)
      C[y] = g(B[y], B[y + 1], B[y + 2])

    becomes, with a buffer of three rows that is written round and round,

        for y:
          for r in range(3): B[(y + r) % 3] = f(y + r) where y == 0 or y + r >= y + 2
          C[y] = g(B[y % 3], B[(y + 1) % 3], B[(y + 2) % 3])

    Only what no earlier iteration has made is computed (Halide's sliding window and storage folding; Ragan-Kelley et al.,
    PLDI 2013).

    >>> sch = blur(8)
    >>> (x,) = sch.get_loops("S")
    >>> sch.compute_at("A2", x)
    >>> sch.rolling_buffer("A2")
    >>> sch.show()
    def blur(A: float32[10], out S: float32[8]):
      A2 = alloc(float32[3])
      A3 = alloc(float32[10])
      for y in range(10):
        block A3(vy over 10 = y):
          A3[vy] = A[vy] * 3.0
      for x in range(8):
        for x_1 in range(3):
          block A2(vx over 10 = x + x_1) where (x < 1 or x + 2 <= x + x_1):
            A2[vx % 3] = A[vx] * 2.0
        block S(vx_1 over 8 = x):
          S[vx_1] = A2[vx_1 % 3] + A2[(vx_1 + 1) % 3] + A2[(vx_1 + 2) % 3] + A3[vx_1]
    """
    b = func.blocks[block.name]
    w = _window(func, b, buffer, "")
    assert isinstance(w, _Window)
    shape = tuple(const(w.size) if d == w.axis else e for d, e in enumerate(buffer.shape))
    ring = with_fields(buffer, shape=shape, reused=True)
    write = next(a for a in accesses(b) if a.is_write and a.buffer is buffer)
    place = spatial_index(b, write.indices) or {}
    row = next(it.binding for it in b.iters if it.var is place[w.axis])
    env = env_at(func, b)
    fresh = (w.loop.var < 1) | (simplify(w.first + (w.size - w.step), env) <= row)
    guarded = with_fields(b, where=all_of([*conjuncts(b.where), fresh]))

    def fold(x: object) -> object:
        if isinstance(x, (Load, Store)) and x.buffer is buffer:
            indices = tuple(i % w.size if d == w.axis else i for d, i in enumerate(x.indices))
            return with_fields(x, buffer=ring, indices=indices)
        return x

    body = rewrite(replace_statements(func.body, {b: guarded}), fold)
    return with_body(func, body, allocs=tuple(ring if x is buffer else x for x in func.allocs)), None


# double_buffer


def _stage(func: PrimFunc, b: Block, loop: For) -> Stmt | None:
    """The nest of a block, where it stands directly in a loop's body, before other statements."""
    chain = own_chain(func, b)
    nest: Stmt = chain[chain.index(loop) + 1] if loop in chain and loop is not chain[-1] else chain[0] if chain else b
    stmts = loop.body.stmts if isinstance(loop.body, Seq) else ()
    return nest if nest in stmts else b if b in stmts else None


def check_double_buffer(func: PrimFunc, block: BlockRef, loop: Var) -> Refusal | None:
    b, s = func.blocks[block.name], func.loops[loop]
    what = f"cannot double-buffer what block {b.name} writes, at loop {loop.name}"
    marks: dict[Node, str] = {s: "the loop", b: "the block"}
    if b.is_reduction or not isinstance(b.body, Store):
        return Refusal(what, "it is not one elementwise store", {b: "this block"})
    buffer = movable_output(func, b, what)
    if isinstance(buffer, Refusal):
        return buffer
    if s.kind != "serial":
        return Refusal(what, f"the loop is {s.kind}: no iteration comes before another", {s: s.kind})
    refusal = _lanes(func, s, what)
    if refusal is not None:
        return refusal
    if _stage(func, b, s) is None:
        return Refusal(what, "the block does not stand directly in that loop", marks, "compute_at that loop first")
    if buffer not in private_buffers(func, s):
        return Refusal(what, f"{buffer.name} is also used outside the loop, or flows between its iterations", marks)
    changed = next((a for a in _written_in(func, s) if a.buffer in reads(b)), None)
    if changed is not None:
        return Refusal(what, f"block {changed.block.name} changes what it reads, inside that loop", marks)
    for c in [b, *consumers(func, buffer)]:
        if _turn(func, c, s) is None:
            why = f"no iterator of block {c.name} tells in which iteration of the loop it runs"
            return Refusal(what, why, {**marks, c: "uses it"}, "a loop that the block's own axes run over")
    return None


def _turn(func: PrimFunc, b: Block, s: For) -> Expr | None:
    """The loop's variable in terms of the block's iterators: v // c where v is c * variable + less than c."""
    env = env_at(func, b)
    for it in b.iters:
        c = linear(it.binding, env).terms.get(s.var, 0)
        if c > 0 and simplify(it.binding // c, env) == s.var:
            return it.var // c
    return None


def apply_double_buffer(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, BlockRef]:
    """for i in range(n):
      B[...] = f(i)
      g(B)

    becomes, with two copies of B in turn,

        B[0, ...] = f(0) where 0 < n
        for i in range(n):
          B[(i + 1) % 2, ...] = f(i + 1) where i + 1 < n
          g(B[i % 2, ...])

    so that the next iteration's data is on its way while this one computes. Returns the block before the loop.

    >>> sch = product(4, 6, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> copy = sch.read_at(i, "C", "A", "local")
    >>> first = sch.double_buffer(copy, i)
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      A_local = alloc(float32[2, 4, 8], local)
      for ax1 in range(8):
        block A_local_1(vax0 over 4 = 0; vax1 over 8 = ax1):
          A_local[vax0 % 2, 0, vax1] = A[vax0, vax1]
      for i in range(4):
        for ax1_1 in range(8):
          block A_local(vax0_1 over 4 = i + 1; vax1_1 over 8 = ax1_1) where i + 1 < 4:
            A_local[vax0_1 % 2, 0, vax1_1] = A[vax0_1, vax1_1]
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A_local[vi % 2, 0, vk] * B[vk, vj]
    """
    b, s = func.blocks[block.name], func.loops[loop]
    buffer = writes(b)[0]
    pair = with_fields(buffer, shape=(const(2), *buffer.shape), stride_rules=(), reused=True)
    env = env_at(func, s)
    nest = _stage(func, b, s)
    assert nest is not None
    steps = _steps(func, b, buffer, s)

    def in_turn(c: Block) -> Block:
        turn = _turn(func, c, s)
        assert turn is not None
        domain = {it.var: loop_range(it.extent) for it in c.iters}

        def use(x: object) -> object:
            if isinstance(x, (Load, Store)) and x.buffer is buffer:
                indices = (turn % 2, *(i - turn * step for i, step in zip(x.indices, steps)))
                return with_fields(x, buffer=pair, indices=tuple(simplify(i, domain) for i in indices))
            return x

        return rewrite(c, use)

    filling = replace_statements(nest, {b: in_turn(b)})
    taken = set(func.blocks)
    ahead = rebind(filling, {loop: loop + 1}, loop + 1 < s.extent, {**env, loop: loop_range(s.extent)})
    there_is_one = None if can_prove(const(0) < s.extent, env) else const(0) < s.extent
    first = duplicate(rebind(filling, {loop: const(0)}, there_is_one, env), taken)
    changed: dict[Stmt, Stmt] = {nest: ahead, **{c: in_turn(c) for c in consumers(func, buffer)}}
    body = with_fields(s, body=replace_statements(s.body, changed))
    allocs = tuple(pair if x is buffer else x for x in func.allocs)
    (name,) = taken - set(func.blocks)
    return with_body(func, replace_statements(func.body, {s: seq([first, body])}), allocs=allocs), BlockRef(name)


def _steps(func: PrimFunc, b: Block, buffer: Buffer, s: For) -> list[int]:
    """How far the region that the block fills moves along each axis from one iteration of the loop to the next."""
    around = [*loops_around(func, s), s]
    env = {**dims_env(func.dims), **loop_env(around)}
    points = [a for a in accesses(b) if a.buffer is buffer]
    inner = loop_env(x for x in loops_around(func, b) if x not in around)
    box = box_of([resolve(b, a.indices) for a in points], inner, env, buffer.shape)
    return [_step(linear(low, env), s.var, env) for low in box.mins]


def _step(low: Linear, loop: Var, env: dict[Var, tuple[Expr, Expr]]) -> int:
    c, rest = low.terms.get(loop, 0), low.without(loop).expr()
    starts_inside = c > 0 and loop not in free_vars(rest) and can_prove(rest >= 0, env)
    return c if starts_inside else 0


STORAGE_ALIGN = Primitive("storage_align", check_storage_align, apply_storage_align)
ROLLING_BUFFER = Primitive("rolling_buffer", check_rolling_buffer, apply_rolling_buffer)
DOUBLE_BUFFER = Primitive("double_buffer", check_double_buffer, apply_double_buffer)
