"""Primitives on reductions: decompose_reduction, rfactor."""

from __future__ import annotations

from collections.abc import Sequence

from ...analysis.maps import visits_once
from ...analysis.regions import consumers, loops_around, producers, writes
from ...ir.arith import simplify
from ...ir.expr import Buffer, Const, Load, Var, const
from ...ir.node import Node, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, conjuncts, free_vars, is_const
from ...ir.reduction import init_nest
from ...ir.stmt import Block, For, IterVar, Stmt, replace_statements, seq
from .base import BlockRef, Primitive, Refusal, fresh_name, replace
from .combination import Combination, broken_law, combination
from .patterns import own_chain, runs_once


def check_decompose_reduction(func: PrimFunc, block: BlockRef, loop: Var) -> Refusal | None:
    b, s = func.blocks[block.name], func.loops[loop]
    what = f"cannot decompose the reduction of block {b.name} at loop {loop.name}"
    if b.init is None:
        why = "its init is already a block of its own" if b.is_reduction else "it is no reduction"
        return Refusal(what, why, {b: "this block"})
    around = loops_around(func, b)
    if s not in around:
        return Refusal(what, "the loop is not around the block", {s: "the loop", b: "the block"})
    outside = {x.var for x in around[: around.index(s)]}
    for it in b.iters:
        if it.kind == "reduce" and free_vars(it.binding) & outside:
            early = next(x for x in around if x.var in free_vars(it.binding))
            return Refusal(
                what,
                f"loop {early.var.name}, outside it, already runs over the reduce axis {it.var.name}: "
                "the accumulators would be cleared again in each of its iterations",
                {early: "reduce loop", s: "the loop"},
                f"decompose at {early.var.name}",
            )
    begin = {x.var: const(0) for x in around[around.index(s) :]}
    for it in b.iters:
        if it.kind == "reduce" and not is_const(simplify(substitute(it.binding, begin)), 0):
            why = f"{it.var.name} does not begin at 0 there: the accumulators hold what was summed up before"
            return Refusal(what, why, {s: "the loop", b: "the block"})
    spatial_vars = {v for it in b.spatial for v in free_vars(it.binding)}
    reduce_vars = {v for it in b.reduce for v in free_vars(it.binding)}
    for x in around[around.index(s) :]:
        if x.var in spatial_vars and x.var in reduce_vars:
            why = f"loop {x.var.name} runs over spatial and reduce axes at once"
            return Refusal(
                what, why, {x: "fused loop", s: "the loop"}, "decompose before fusing, or fuse axes of one kind"
            )
        if x.var not in spatial_vars | reduce_vars and not runs_once(b, x):
            why = f"loop {x.var.name} repeats the block, and each repetition must clear the accumulators again"
            return Refusal(
                what, why, {x: "repeats the block", s: "the loop"}, f"decompose at a loop inside {x.var.name}"
            )
    if not visits_once(b, around[around.index(s) :], [*func.dims, *(x.var for x in around[: around.index(s)])]):
        why = f"its iterations overlap: they would add to an element of block {b.name} twice that was cleared once"
        return Refusal(what, why, {s: "the loop", b: "the block"}, "decompose at a loop inside")
    vector = next((x for x in around[: around.index(s) + 1] if x.kind == "vectorized"), None)
    if vector is not None:
        return Refusal(what, f"loop {vector.var.name} is vectorized", {vector: "vectorized"})
    for buffer in writes(b):
        makers = [c for c in producers(func, buffer) if c is not b]
        inside = [c for c in (*makers, *consumers(func, buffer)) if c is not b and s in loops_around(func, c)]
        if makers and inside:
            why = f"block {inside[0].name} uses {buffer.name} inside that loop, and {makers[0].name} writes it too"
            return Refusal(what, why, {s: "the loop", inside[0]: "uses it"}, "decompose at a loop inside")
    for buffer in {e.buffer for e in walk(b.init) if isinstance(e, Load)}:
        late = [c for c in producers(func, buffer) if s in loops_around(func, c)]
        if late:
            why = f"the init reads {buffer.name}, which block {late[0].name} makes inside that loop"
            return Refusal(what, why, {s: "the loop", late[0]: "makes it"}, "decompose at a loop inside")
    return None


def apply_decompose_reduction(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, BlockRef]:
    """for i:
      for k: (init C[i] = 0) C[i] += A[i, k]

    becomes, for decompose_reduction(C, k),

        for i:
          C_init: C[i] = 0
          for k: C[i] += A[i, k]

    >>> sch = product(4, 6, 8)
    >>> init = sch.decompose_reduction("C", sch.get_loops("C")[2])
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      for i in range(4):
        for j in range(6):
          block C_init(vi over 4 = i; vj over 6 = j):
            C[vi, vj] = 0.0
          for k in range(8):
            block C(vi_1 over 4 = i; vj_1 over 6 = j; vk reduce 8 = k):
              C[vi_1, vj_1] = C[vi_1, vj_1] + A[vi_1, vk] * B[vk, vj_1]
    """
    b, s = func.blocks[block.name], func.loops[loop]
    around = loops_around(func, b)
    name = fresh_name(f"{b.name}_init", func.blocks)
    init = init_nest(b, around[around.index(s) :], name)
    update = replace(func, b, with_fields(b, init=None))
    target = update.loops[loop]
    return replace(update, target, seq([init, target])), BlockRef(name)


DECOMPOSE_REDUCTION = Primitive("decompose_reduction", check_decompose_reduction, apply_decompose_reduction)


def check_rfactor(func: PrimFunc, block: BlockRef, loop: Var) -> Refusal | None:
    b, s = func.blocks[block.name], func.loops[loop]
    what = f"cannot factor loop {loop.name} out of the reduction of block {b.name}"
    marks: dict[Node, str] = {b: "the block", s: "the loop"}
    if b.init is None:
        why = "its init is a block of its own" if b.is_reduction else "it is no reduction"
        return Refusal(what, why, {b: "the block"}, "rfactor before decompose_reduction")
    form = combination(b)
    if form is None:
        why = "it is not of the form C[i] = f(C[i], x), with one f for accumulators and elements of one dtype"
        return Refusal(what, why, {b: "the block"})
    chain = own_chain(func, b)
    if s not in chain:
        return Refusal(what, "the loop is not around the block alone", marks, "reorder it next to the block")
    reduce_vars = {v for it in b.reduce for v in free_vars(it.binding)}
    spatial_vars = {v for it in b.spatial for v in free_vars(it.binding)}
    if loop not in reduce_vars or loop in spatial_vars:
        return Refusal(
            what, f"loop {loop.name} does not run over reduce axes alone", marks, "a loop over a reduce axis"
        )
    if not isinstance(s.extent, Const):
        return Refusal(what, "its extent is symbolic", marks, "split it by a constant first")
    for x in chain:
        if x.kind != "serial" and x.var in reduce_vars:
            return Refusal(what, f"loop {x.var.name} is {x.kind}", {x: x.kind}, "rfactor first")
        unused = x.var not in reduce_vars | spatial_vars and not runs_once(b, x)
        if unused or x.var in reduce_vars & spatial_vars:
            return Refusal(what, f"loop {x.var.name} does not belong to one axis", {x: "repeats or mixes axes"})
    for c in conjuncts(b.where):
        used = free_vars(c) - set(func.dims)
        if used & reduce_vars and not used <= reduce_vars & {x.var for x in chain}:
            return Refusal(
                what, "a condition of the block mixes reduce and spatial loops", marks, "rfactor before fusing"
            )
    outside = [x for x in loops_around(func, b) if x not in chain and x.var in reduce_vars]
    if outside:
        return Refusal(what, f"loop {outside[0].var.name} around other blocks reduces too", {outside[0]: "reduces"})
    has_tail = any(free_vars(c) & reduce_vars for c in conjuncts(b.where))
    broken = broken_law(form, has_tail)
    return None if broken is None else Refusal(what, broken, {b: "the block"})


def apply_rfactor(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, BlockRef]:
    """for i:
      for k0:
        for k1 in range(16): C[i] += A[i, k0 * 16 + k1]

    becomes, for rfactor(C, k1),

        for i:
          for k0:
            for k1 in range(16): C_rf[i, k1] += A[i, k0 * 16 + k1]
        for i:
          for k1 in range(16): C[i] += C_rf[i, k1]

    so that k1 is a spatial axis of the first block and may be vectorized or parallel. Returns the first block.

    >>> sch = product(4, 6, 8)
    >>> k_0, k_1 = sch.split(sch.get_loops("C")[2], [None, 4])
    >>> partial = sch.rfactor("C", k_1)
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      C_rf = alloc(float32[4, 6, 4])
      for i in range(4):
        for j in range(6):
          for k_0 in range(2):
            for k_1 in range(4):
              block C_rf(vi over 4 = i; vj over 6 = j; vk_1 over 4 = k_1; vk_0 reduce 2 = k_0):
                init:
                  C_rf[vi, vj, vk_1] = 0.0
                C_rf[vi, vj, vk_1] = C_rf[vi, vj, vk_1] + A[vi, vk_0 * 4 + vk_1] * B[vk_0 * 4 + vk_1, vj]
      for i_1 in range(4):
        for j_1 in range(6):
          for k_1_1 in range(4):
            block C(vi_1 over 4 = i_1; vj_1 over 6 = j_1; vk_1_1 reduce 4 = k_1_1):
              init:
                C[vi_1, vj_1] = 0.0
              C[vi_1, vj_1] = C[vi_1, vj_1] + C_rf[vi_1, vj_1, vk_1_1]
    """
    b, s = func.blocks[block.name], func.loops[loop]
    form = combination(b)
    assert form is not None
    chain = own_chain(func, b)
    names = {x.name for x in (*func.buffers, *func.allocs)}
    partial = []
    for t in form.targets:
        partial.append(Buffer(fresh_name(f"{t.name}_rf", names), (*t.shape, s.extent), t.dtype))
        names.add(partial[-1].name)
    name = fresh_name(f"{b.name}_rf", func.blocks)
    dims = set(func.dims)
    nest = replace_statements(chain[0], {b: _partial_block(b, name, partial, form, chain, s, dims)})
    final = _final_nest(b, partial, form, chain, s)
    body = replace_statements(func.body, {chain[0]: seq([nest, final])})
    return with_fields(func, body=body, allocs=(*func.allocs, *partial)), BlockRef(name)


def _partial_block(
    b: Block, name: str, partial: Sequence[Buffer], form: Combination, chain: list[For], s: For, dims: set[Var]
) -> Block:
    """The reduction over all loops but one, which becomes a spatial iterator.

    Conditions on the reduce loops (the tail of a split) become part of the elements: where they fail, the first values.
    """
    factored = IterVar(Var(f"v{s.var.name}"), s.extent, "spatial", s.var)
    reduce_vars = {v for it in b.reduce for v in free_vars(it.binding)}
    others = [
        IterVar(Var(f"v{x.var.name}"), x.extent, "reduce", x.var) for x in chain if x.var in reduce_vars and x is not s
    ]
    loops = {s.var: factored.var} | {it.binding: it.var for it in others}
    values = {it.var: substitute(it.binding, loops) for it in b.iters if it.kind == "reduce"}
    spatial = b.spatial
    index = (*form.index, factored.var)
    inside = form.at(values)
    conditions = conjuncts(b.where)
    known = loops.keys() | dims
    tail = all_of([substitute(c, loops) for c in conditions if free_vars(c) <= known])
    where = all_of([c for c in conditions if not free_vars(c) <= known])
    if tail is not None:
        inside = inside.only_where(tail)
    if not others:  # nothing left to reduce: each partial result is one element
        return Block(name, (*spatial, factored), inside.begin(partial, index), None, where)
    iters = (*spatial, factored, *others)
    return Block(name, iters, inside.step(partial, index), inside.clear(partial, index), where, b.annotations)


def _final_nest(b: Block, partial: Sequence[Buffer], form: Combination, chain: list[For], s: For) -> Stmt:
    """The reduction of the partial results."""
    assert b.init is not None
    spatial_vars = {v for it in b.spatial for v in free_vars(it.binding)}
    loops = [x for x in chain if x.var in spatial_vars]
    fresh: dict[Var, Var] = {x.var: Var(x.var.name) for x in (*loops, s)}
    renamed = {it.var: Var(it.var.name) for it in b.iters if it.kind == "spatial"}
    iters = [
        IterVar(renamed[it.var], it.extent, "spatial", substitute(it.binding, fresh))
        for it in b.iters
        if it.kind == "spatial"
    ]
    empty = [(n, Var(it.var.name.removeprefix("v"))) for n, it in enumerate(iters) if is_const(it.extent, 0)]
    for n, loop in empty:  # no loop may be left of an axis without elements
        iters[n] = with_fields(iters[n], binding=loop)
    along = IterVar(Var(f"v{s.var.name}"), s.extent, "reduce", fresh[s.var])
    index = tuple(substitute(i, renamed) for i in form.index)
    update = form.joining([Load(p, (*index, along.var)) for p in partial]).step(form.targets, index)
    inside = {x.var for x in chain}
    kept = [substitute(c, fresh) for c in conjuncts(b.where) if free_vars(c) & inside <= spatial_vars]
    nest: Stmt = Block(b.name, (*iters, along), update, substitute(b.init, renamed), all_of(kept))
    nest = For(fresh[s.var], s.extent, nest)
    for _, loop in empty:
        nest = For(loop, const(0), nest)
    for x in reversed(loops):
        nest = For(fresh[x.var], x.extent, nest, x.kind, thread=x.thread)
    return nest


RFACTOR = Primitive("rfactor", check_rfactor, apply_rfactor)
