"""Primitives that reshape loop nests: split, fuse, reorder, add_unit_loop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from ...analysis.dependence import carried, reversed_by
from ...analysis.regions import blocks_under, path_to
from ...analysis.sets import always
from ...ir.arith import can_prove, dims_env, loop_range, simplify
from ...ir.expr import Const, Expr, Var, const
from ...ir.node import with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import For, LoopKind, Stmt
from .base import BlockRef, Primitive, Refusal, chain, env_at, rebind, replace
from .patterns import runs_once


def _bound(func: PrimFunc, loops: Sequence[Var], what: str) -> Refusal | None:
    """A loop that is an index of the hardware keeps its extent."""
    s = next((func.loops[v] for v in loops if func.loops[v].kind == "bound"), None)
    if s is None:
        return None
    return Refusal(what, f"loop {s.var.name} is bound to {s.thread}", {s: s.thread}, "do it before bind")


MAX_ITERATIONS = 1 << 31
"""Beyond it a loop whose extent does not ask for as many is a mistake."""


def check_split(
    func: PrimFunc, loop: Var, factors: Sequence[int | None], disable_predication: bool = False
) -> Refusal | None:
    what = f"cannot split loop {loop.name} by {list(factors)}"
    mark = {func.loops[loop]: "this loop"}
    if len(factors) < 2:
        return Refusal(what, "a split needs at least two factors", mark, "[None, 16]")
    if sum(f is None for f in factors) > 1:
        return Refusal(what, "only one factor can be inferred", mark, "give all factors but one")
    if any(f is not None and (isinstance(f, bool) or not isinstance(f, int) or f < 1) for f in factors):
        return Refusal(what, "factors are positive integers", mark)
    extent = func.loops[loop].extent
    given = [f for f in factors if f is not None]
    covered = prod(given)
    if covered > MAX_ITERATIONS and (not isinstance(extent, Const) or covered >= 2 * extent.value):
        return Refusal(what, f"the parts would run {covered} times, most of them past the end", mark, "smaller factors")
    if None not in factors and not can_prove(extent <= covered, dims_env(func.dims)):
        shown = extent.value if isinstance(extent, Const) else "the extent"
        return Refusal(what, f"the factors cover {covered} iterations, not {shown}", mark, "None for one factor")
    if disable_predication and _guard(func, loop, factors) is not None:
        why = f"without a condition it would run past the end: {covered} is not known to divide the extent"
        return Refusal(what + " without predication", why, mark, "leave disable_predication off")
    return _bound(func, [loop], what)


def _extents(func: PrimFunc, loop: Var, factors: Sequence[int | None]) -> list[Expr]:
    extent, known = func.loops[loop].extent, prod(f for f in factors if f is not None)
    inferred = simplify((extent + (known - 1)) // known, dims_env(func.dims))
    return [inferred if f is None else const(f) for f in factors]


def _guard(func: PrimFunc, loop: Var, factors: Sequence[int | None]) -> Expr | None:
    """Whether the parts of a split may run past the loop's end: the last iteration, if it is not certainly inside."""
    s, extents = func.loops[loop], _extents(func, loop, factors)
    total: Expr = const(1)
    for e in extents:
        total = total * e
    return None if always(simplify(total) <= s.extent, dims_env(func.dims)) else total


def apply_split(
    func: PrimFunc, loop: Var, factors: Sequence[int | None], disable_predication: bool = False
) -> tuple[PrimFunc, list[Var]]:
    """for i in range(n): X(i)

    becomes, for factors [None, f],

        for i_0 in range(ceil(n / f)):
          for i_1 in range(f):
            X(i_0 * f + i_1) where i_0 * f + i_1 < n

    Of a parallel loop the outermost part stays parallel, of a vectorized one the innermost vectorized, of an unrolled one
    all parts unrolled.

    >>> sch = add(10)
    >>> (i,) = sch.get_loops("B")
    >>> i_0, i_1 = sch.split(i, [None, 4])
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      for i_0 in range(3):
        for i_1 in range(4):
          block B(vi over 10 = i_0 * 4 + i_1) where i_0 * 4 + i_1 < 10:
            B[vi] = A[vi] + 1.0
    """
    s = func.loops[loop]
    extents = _extents(func, loop, factors)
    variables = [Var(f"{loop.name}_{i}") for i in range(len(factors))]
    index: Expr = const(0)
    for v, extent in zip(variables, extents):
        index = index * extent + v
    env = env_at(func, s) | {v: loop_range(e) for v, e in zip(variables, extents)}
    index = simplify(index, env)
    whole = disable_predication or _guard(func, loop, factors) is None
    body = rebind(s.body, {loop: index}, None if whole else index < s.extent, env)
    last = len(factors) - 1
    for d, (v, extent) in reversed(list(enumerate(zip(variables, extents)))):
        keeps = {"parallel": d == 0, "vectorized": d == last, "unrolled": True}.get(s.kind, False)
        body = For(v, extent, body, s.kind if keeps else "serial")
    return replace(func, s, with_fields(body, annotations=s.annotations)), variables


def check_fuse(func: PrimFunc, *loops: Var) -> Refusal | None:
    what = f"cannot fuse loops {', '.join(v.name for v in loops)}"
    nest = [func.loops[v] for v in loops]
    if len(loops) < 2:
        return Refusal(what, "a fusion needs at least two loops")
    for outer, inner in pairwise(nest):
        if outer.body is not inner:
            return Refusal(
                what,
                f"{inner.var.name} is not directly and alone inside {outer.var.name}",
                {outer: "outer", inner: "inner"},
                "reorder them first, outermost first",
            )
    vector = next((s for s in nest if s.kind == "vectorized"), None)
    if vector is not None:
        return Refusal(what, f"loop {vector.var.name} is vectorized", {vector: "vectorized"}, "fuse before vectorize")
    refusal = _bound(func, loops, what)
    if refusal is None and any(s.kind == "parallel" for s in nest):
        fused, var = apply_fuse(func, *loops)
        conflict = carried(fused, fused.loops[var])
        if conflict is not None:
            return Refusal(what, f"the fused loop would be parallel, but {conflict.text}", dict.fromkeys(nest, "named"))
    return refusal


def apply_fuse(func: PrimFunc, *loops: Var) -> tuple[PrimFunc, Var]:
    """for i in range(n):
      for j in range(m): X(i, j)

    becomes

        for i_j in range(n * m): X(i_j // m, i_j % m)

    The loop is parallel where one of them was, unrolled where all were.

    >>> sch = matmul(4, 6, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> i_j = sch.fuse(i, j)
    >>> sch.show()
    def matmul(A: float32[4, 8], B: float32[8, 6], out D: float32[4, 6]):
      C = alloc(float32[4, 6])
      for i_j in range(24):
        for k in range(8):
          block C(vi over 4 = i_j // 6; vj over 6 = i_j % 6; vk reduce 8 = k):
            init:
              C[vi, vj] = 0.0
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
      for i in range(4):
        for j in range(6):
          block D(vi_1 over 4 = i; vj_1 over 6 = j):
            D[vi_1, vj_1] = max(C[vi_1, vj_1], 0.0)
    """
    nest = [func.loops[v] for v in loops]
    assert all(outer.body is inner for outer, inner in pairwise(nest))
    fused = Var("_".join(v.name for v in loops))
    dims = dims_env(func.dims)
    extent: Expr = const(1)
    for s in nest:
        extent = simplify(extent * s.extent, dims)
    mapping: dict[Var, Expr] = {}
    rest: Expr = fused
    env = env_at(func, nest[0]) | {fused: loop_range(extent)}
    for position, s in reversed(list(enumerate(nest))):
        mapping[s.var] = simplify(rest % s.extent if position else rest, env)
        rest = rest // s.extent
    body = rebind(nest[-1].body, mapping, None, env)
    kinds = {s.kind for s in nest}
    kind: LoopKind = "parallel" if "parallel" in kinds else "unrolled" if kinds == {"unrolled"} else "serial"
    return replace(func, nest[0], For(fused, extent, body, kind, nest[0].annotations)), fused


def check_add_unit_loop(func: PrimFunc, place: Var | BlockRef) -> Refusal | None:
    return None


def apply_add_unit_loop(func: PrimFunc, place: Var | BlockRef) -> tuple[PrimFunc, Var]:
    """X    becomes    for u in range(1): X

    A nest that lacks a loop that another one has gets it this way.

    >>> sch = add(10)
    >>> u = sch.add_unit_loop("B")
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      for i in range(10):
        for u in range(1):
          block B(vi over 10 = i):
            B[vi] = A[vi] + 1.0
    """
    s = func.loops[place] if isinstance(place, Var) else func.blocks[place.name]
    u = Var("u")
    return replace(func, s, For(u, const(1), s)), u


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
        reduce_vars = {v for it in block.reduce for v in free_vars(it.binding)}
        spatial_vars = {v for it in block.spatial for v in free_vars(it.binding)}
        mixed = next((s for s in old if s.var in reduce_vars & spatial_vars), None)
        if mixed is not None:
            why = f"loop {mixed.var.name} runs over spatial and reduce axes of block {block.name} at once"
            return Refusal(what, why, {mixed: "fused loop"}, "reorder before fusing")
        longer = [s for s in old if not runs_once(block, s)]
        sensitive = [s for s in longer if s.var in reduce_vars or s.var not in spatial_vars]
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
    if "vectorized" in kinds and {"parallel", "bound"} & set(kinds[kinds.index("vectorized") :]):
        return Refusal(what, "a parallel loop would run inside a vectorized one", {s: s.kind for s in new})
    moved = apply_reorder(func, *loops)[0]
    for s in old:
        if s.kind in ("parallel", "vectorized", "bound"):
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

    >>> sch = matmul(4, 6, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> sch.reorder(k, i)
    >>> sch.show()
    def matmul(A: float32[4, 8], B: float32[8, 6], out D: float32[4, 6]):
      C = alloc(float32[4, 6])
      for k in range(8):
        for j in range(6):
          for i in range(4):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
      for i_1 in range(4):
        for j_1 in range(6):
          block D(vi_1 over 4 = i_1; vj_1 over 6 = j_1):
            D[vi_1, vj_1] = max(C[vi_1, vj_1], 0.0)
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
ADD_UNIT_LOOP = Primitive("add_unit_loop", check_add_unit_loop, apply_add_unit_loop)
