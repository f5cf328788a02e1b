"""Primitives that reshape loop nests: split, fuse, reorder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from ...analysis.dependence import carried, reversed_by
from ...analysis.regions import blocks_under, path_to
from ...ir.arith import can_prove, dims_env, loop_range, simplify
from ...ir.expr import Const, Expr, Var, const
from ...ir.node import with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import For, Stmt
from .base import Primitive, Refusal, chain, env_at, rebind, replace


def _named(loop: Var) -> str:
    return f"loop {loop.name}"


def _not_serial(func: PrimFunc, loop: Var, verb: str) -> Refusal | None:
    s = func.loops[loop]
    if s.kind == "serial":
        return None
    return Refusal(
        f"cannot {verb} {_named(loop)}", f"it is already {s.kind}", {s: f"{s.kind} loop"}, f"{verb} it before that"
    )


def check_split(func: PrimFunc, loop: Var, factors: Sequence[int | None]) -> Refusal | None:
    what = f"cannot split {_named(loop)} by {list(factors)}"
    mark = {func.loops[loop]: "this loop"}
    if len(factors) < 2:
        return Refusal(what, "a split needs at least two factors", mark, "[None, 16]")
    if sum(f is None for f in factors) > 1:
        return Refusal(what, "only one factor can be inferred", mark, "give all factors but one")
    if any(f is not None and (not isinstance(f, int) or f < 1) for f in factors):
        return Refusal(what, "factors are positive integers", mark)
    extent = func.loops[loop].extent
    if None not in factors and not can_prove(extent <= prod(factors), dims_env(func.dims)):
        shown = extent.value if isinstance(extent, Const) else "the extent"
        return Refusal(what, f"the factors cover {prod(factors)} iterations, not {shown}", mark, "None for one factor")
    return _not_serial(func, loop, "split")


def apply_split(func: PrimFunc, loop: Var, factors: Sequence[int | None]) -> tuple[PrimFunc, list[Var]]:
    """for i in range(n): X(i)

    becomes, for factors [None, f],

        for i_0 in range(ceil(n / f)):
          for i_1 in range(f):
            X(i_0 * f + i_1) where i_0 * f + i_1 < n
    """
    s = func.loops[loop]
    known = prod(f for f in factors if f is not None)
    inferred = simplify((s.extent + (known - 1)) // known, dims_env(func.dims))
    extents: list[Expr] = [inferred if f is None else const(f) for f in factors]
    variables = [Var(f"{loop.name}_{i}") for i in range(len(factors))]
    index: Expr = const(0)
    for v, extent in zip(variables, extents):
        index = index * extent + v
    env = env_at(func, s) | {v: loop_range(e) for v, e in zip(variables, extents)}
    index = simplify(index, env)
    inside = index < s.extent
    body = rebind(s.body, {loop: index}, None if can_prove(inside, env) else inside, env)
    for v, extent in reversed(list(zip(variables, extents))):
        body = For(v, extent, body)
    return replace(func, s, with_fields(body, annotations=s.annotations)), variables


def check_fuse(func: PrimFunc, *loops: Var) -> Refusal | None:
    names = ", ".join(v.name for v in loops)
    what = f"cannot fuse loops {names}"
    nest = [func.loops[v] for v in loops]
    if len(loops) < 2:
        return Refusal(what, "a fusion needs at least two loops")
    for v in loops:
        refusal = _not_serial(func, v, "fuse")
        if refusal is not None:
            return refusal
    for outer, inner in pairwise(nest):
        if outer.body is not inner:
            return Refusal(
                what,
                f"{inner.var.name} is not directly and alone inside {outer.var.name}",
                {outer: "outer", inner: "inner"},
                "reorder them first, outermost first",
            )
    return None


def apply_fuse(func: PrimFunc, *loops: Var) -> tuple[PrimFunc, Var]:
    """for i in range(n):
      for j in range(m): X(i, j)

    becomes

        for i_j in range(n * m): X(i_j // m, i_j % m)
    """
    nest = [func.loops[v] for v in loops]
    fused = Var("_".join(v.name for v in loops))
    dims = dims_env(func.dims)
    extent: Expr = const(1)
    for s in nest:
        extent = simplify(extent * s.extent, dims)
    mapping, rest = {}, fused
    env = env_at(func, nest[0]) | {fused: loop_range(extent)}
    for position, s in reversed(list(enumerate(nest))):
        mapping[s.var] = simplify(rest % s.extent if position else rest, env)
        rest = rest // s.extent
    body = rebind(nest[-1].body, mapping, None, env)
    return replace(func, nest[0], For(fused, extent, body)), fused


def _new_order(func: PrimFunc, loops: Sequence[Var]) -> tuple[list[For], list[For]] | None:
    """The chain that holds the loops, and the same chain in the wanted order; None where they form no chain."""
    nest = [func.loops[v] for v in loops]
    by_depth = sorted(nest, key=lambda s: len(path_to(func.body, s)))
    old = chain(by_depth[0], by_depth[-1])
    if old is None or not all(s in old for s in nest):
        return None
    wanted = iter(nest)
    return old, [next(wanted) if s in nest else s for s in old]


def _init_comes_late(old: Sequence[For], new: Sequence[For], what: str) -> Refusal | None:
    """A reduction clears its accumulators where all reduce iterators are 0: that point must stay the first of each sum."""
    for block in blocks_under(old[-1].body):
        if block.init is None:
            continue
        reduce_vars = {v for it in block.iters if it.kind == "reduce" for v in free_vars(it.binding)}
        spatial_vars = {v for it in block.iters if it.kind == "spatial" for v in free_vars(it.binding)}
        mixed = next((s for s in old if s.var in reduce_vars & spatial_vars), None)
        if mixed is not None:
            why = f"loop {mixed.var.name} runs over spatial and reduce axes of block {block.name} at once"
            return Refusal(what, why, {mixed: "fused loop"}, "reorder before fusing")
        sensitive = [s for s in old if s.var in reduce_vars or s.var not in spatial_vars]
        if any(s.var not in reduce_vars for s in sensitive) and [s for s in new if s in sensitive] != sensitive:
            unbound = next(s for s in sensitive if s.var not in reduce_vars)
            why = f"each iteration of loop {unbound.var.name} repeats the whole reduction of block {block.name}"
            return Refusal(what, why, {unbound: "repeats the reduction"}, "keep it outside the reduce loops")
    return None


def check_reorder(func: PrimFunc, *loops: Var) -> Refusal | None:
    what = f"cannot reorder loops {', '.join(v.name for v in loops)}"
    if len(set(loops)) != len(loops) or len(loops) < 2:
        return Refusal(what, "name at least two different loops")
    marks: dict = {func.loops[v]: "" for v in loops}
    orders = _new_order(func, loops)
    if orders is None:
        return Refusal(
            what,
            "they are not perfectly nested: other statements stand between them",
            dict.fromkeys(marks, "named"),
            "decompose or move those statements, or reorder only the loops below them",
        )
    old, new = orders
    conflict = reversed_by(func, old, new)
    if conflict is not None:
        return Refusal(what, f"{conflict.text}, and the new order exchanges them", dict.fromkeys(marks, "named"))
    refusal = _init_comes_late(old, new, what)
    if refusal is not None:
        return refusal
    kinds = [s.kind for s in new]
    if "vectorized" in kinds and "parallel" in kinds[kinds.index("vectorized") :]:
        return Refusal(what, "a parallel loop would run inside a vectorized one", {s: s.kind for s in new})
    moved = apply_reorder(func, *loops)[0]
    for s in old:
        if s.kind in ("parallel", "vectorized"):
            conflict = carried(moved, moved.loops[s.var])
            if conflict is not None:
                return Refusal(what, f"{s.var.name} is {s.kind}, and in the new order {conflict.text}", {s: s.kind})
    return None


def apply_reorder(func: PrimFunc, *loops: Var) -> tuple[PrimFunc, None]:
    """for i in range(n):
      for j in range(m): X(i, j)

    becomes, for reorder(j, i),

        for j in range(m):
          for i in range(n): X(i, j)
    """
    orders = _new_order(func, loops)
    assert orders is not None
    old, new = orders
    body: Stmt = old[-1].body
    for s in reversed(new):
        body = with_fields(s, body=body)
    return replace(func, old[0], body), None


SPLIT = Primitive("split", check_split, apply_split)
FUSE = Primitive("fuse", check_fuse, apply_fuse)
REORDER = Primitive("reorder", check_reorder, apply_reorder)
