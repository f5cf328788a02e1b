"""Primitives on reductions: decompose_reduction."""

from __future__ import annotations

from ...analysis.regions import loops_around
from ...ir.expr import Var
from ...ir.node import substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, conjuncts, free_vars, is_const
from ...ir.stmt import Block, For, IterVar, Stmt, seq
from .base import BlockRef, Primitive, Refusal, fresh_name, replace


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
    spatial_vars = {v for it in b.iters if it.kind == "spatial" for v in free_vars(it.binding)}
    reduce_vars = {v for it in b.iters if it.kind == "reduce" for v in free_vars(it.binding)}
    for x in around[around.index(s) :]:
        if x.var in spatial_vars and x.var in reduce_vars:
            why = f"loop {x.var.name} runs over spatial and reduce axes at once"
            return Refusal(
                what, why, {x: "fused loop", s: "the loop"}, "decompose before fusing, or fuse axes of one kind"
            )
        if x.var not in spatial_vars | reduce_vars and not is_const(x.extent, 1):
            why = f"loop {x.var.name} repeats the block, and each repetition must clear the accumulators again"
            return Refusal(
                what, why, {x: "repeats the block", s: "the loop"}, f"decompose at a loop inside {x.var.name}"
            )
    vector = next((x for x in around[: around.index(s) + 1] if x.kind == "vectorized"), None)
    if vector is not None:
        return Refusal(what, f"loop {vector.var.name} is vectorized", {vector: "vectorized"})
    return None


def apply_decompose_reduction(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, BlockRef]:
    """for i:
      for k: (init C[i] = 0) C[i] += A[i, k]

    becomes, for decompose_reduction(C, k),

        for i:
          C_init: C[i] = 0
          for k: C[i] += A[i, k]
    """
    b, s = func.blocks[block.name], func.loops[loop]
    assert b.init is not None
    around = loops_around(func, b)
    inside = around[around.index(s) :]
    reduce_vars = {v for it in b.iters if it.kind == "reduce" for v in free_vars(it.binding)}
    fresh = {x.var: Var(x.var.name) for x in inside if x.var not in reduce_vars}
    spatial = [it for it in b.iters if it.kind == "spatial"]
    renamed = {it.var: Var(it.var.name) for it in spatial}
    iters = tuple(IterVar(renamed[it.var], it.extent, "spatial", substitute(it.binding, fresh)) for it in spatial)
    unbound = {x.var for x in inside} - {v for it in b.iters for v in free_vars(it.binding)}
    kept = [substitute(c, fresh) for c in conjuncts(b.where) if not free_vars(c) & (reduce_vars | unbound)]
    name = fresh_name(f"{b.name}_init", func.blocks)
    init: Stmt = Block(name, iters, substitute(b.init, renamed), None, all_of(kept))
    for x in reversed(inside):
        if x.var in fresh and any(fresh[x.var] in free_vars(it.binding) for it in iters):
            init = For(fresh[x.var], x.extent, init, x.kind)
    update = replace(func, b, with_fields(b, init=None))
    target = update.loops[loop]
    return replace(update, target, seq([init, target])), BlockRef(name)


DECOMPOSE_REDUCTION = Primitive("decompose_reduction", check_decompose_reduction, apply_decompose_reduction)
