"""Primitives between one loop and several that follow one another: merge, loop_partition."""

from __future__ import annotations

from collections.abc import Sequence

from ...analysis.dependence import carried, crossed
from ...analysis.regions import blocks_under, path_to
from ...ir.arith import can_prove, dims_env, loop_range, simplify
from ...ir.expr import Const, Expr, Var, const
from ...ir.node import with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import is_const
from ...ir.stmt import Block, For, Seq, Stmt, map_statements, replace_statements, seq
from .base import Primitive, Refusal, duplicate, env_at, rebind, replace


def _siblings(func: PrimFunc, nest: Sequence[For]) -> Seq | None:
    """The sequence in which the loops stand directly behind one another, in the given order."""
    parent = path_to(func.body, nest[0])[-2:][0]
    if not isinstance(parent, Seq) or nest[0] not in parent.stmts:
        return None
    first = parent.stmts.index(nest[0])
    return parent if list(parent.stmts[first : first + len(nest)]) == list(nest) else None


def check_merge(func: PrimFunc, *loops: Var) -> Refusal | None:
    what = f"cannot merge loops {', '.join(v.name for v in loops)}"
    nest = [func.loops[v] for v in loops]
    marks: dict = dict.fromkeys(nest, "named")
    if len(loops) < 2:
        return Refusal(what, "a merge needs at least two loops")
    if _siblings(func, nest) is None:
        return Refusal(what, "they do not stand directly behind one another, in that order", marks)
    for s in nest[1:]:
        if simplify(s.extent - nest[0].extent) != const(0):
            return Refusal(what, "their extents differ", marks, "loop_partition the longer one first")
        if s.kind != nest[0].kind or s.thread != nest[0].thread:
            return Refusal(what, f"one is {nest[0].kind}, another {s.kind}", marks, "merge before that")
    for n, second in enumerate(nest):
        for first in nest[:n]:
            conflict = crossed(func, first, second)
            if conflict is not None:
                return Refusal(what, f"{conflict.text}, and merged they would change places", marks)
    if nest[0].kind in ("parallel", "vectorized", "bound"):
        merged, var = apply_merge(func, *loops)
        conflict = carried(merged, merged.loops[var])
        if conflict is not None:
            return Refusal(what, f"the merged loop would be {nest[0].kind}, but {conflict.text}", marks)
    return None


def apply_merge(func: PrimFunc, *loops: Var) -> tuple[PrimFunc, Var]:
    """for i: X(i)
    for j: Y(j)

    becomes

        for i:
          X(i)
          Y(i)

    >>> sch = blur(8)
    >>> (x,), (y,) = sch.get_loops("A2"), sch.get_loops("A3")
    >>> m = sch.merge(x, y)
    >>> sch.show()
    def blur(A: float32[10], out S: float32[8]):
      A2 = alloc(float32[10])
      A3 = alloc(float32[10])
      for x_y in range(10):
        block A2(vx over 10 = x_y):
          A2[vx] = A[vx] * 2.0
        block A3(vy over 10 = x_y):
          A3[vy] = A[vy] * 3.0
      for x in range(8):
        block S(vx_1 over 8 = x):
          S[vx_1] = A2[vx_1] + A2[vx_1 + 1] + A2[vx_1 + 2] + A3[vx_1]
    """
    nest = [func.loops[v] for v in loops]
    parent = _siblings(func, nest)
    assert parent is not None and all(simplify(s.extent - nest[0].extent) == const(0) for s in nest)
    var = Var("_".join(dict.fromkeys(v.name for v in loops)))
    env = env_at(func, nest[0]) | {var: loop_range(nest[0].extent)}
    body = seq([rebind(s.body, {s.var: var}, None, env) for s in nest])
    first = parent.stmts.index(nest[0])
    merged = with_fields(nest[0], var=var, body=body)
    return replace(func, parent, seq([*parent.stmts[:first], merged, *parent.stmts[first + len(nest) :]])), var


def check_loop_partition(func: PrimFunc, loop: Var, sizes: Sequence[int | None]) -> Refusal | None:
    what = f"cannot partition loop {loop.name} into {list(sizes)}"
    s = func.loops[loop]
    mark = {s: "this loop"}
    if len(sizes) < 2:
        return Refusal(what, "a partition needs at least two parts", mark, "[None, 4]")
    if sum(n is None for n in sizes) > 1:
        return Refusal(what, "only one size can be inferred", mark)
    if any(n is not None and (not isinstance(n, int) or n < 1) for n in sizes):
        return Refusal(what, "sizes are positive integers", mark)
    known = sum(n for n in sizes if n is not None)
    enough = s.extent > known if None in sizes else simplify(s.extent - known)
    dims = dims_env(func.dims)
    if not (can_prove(enough, dims) if None in sizes else is_const(enough, 0)):
        if not isinstance(s.extent, Const):
            why = f"the parts have {known} iterations, and how many the loop has is known only when the kernel runs"
            return Refusal(what, why, mark, "split it, and partition the loop of known extent")
        return Refusal(what, f"the parts have {known} iterations, the loop {s.extent.value}", mark, "smaller parts")
    if s.kind == "bound":
        return Refusal(what, f"it is bound to {s.thread}", {s: s.thread}, "partition before bind")
    return None


def apply_loop_partition(func: PrimFunc, loop: Var, sizes: Sequence[int | None]) -> tuple[PrimFunc, list[Var]]:
    """for i in range(10): X(i)

    becomes, for sizes [8, None],

        for i_0 in range(8): X(i_0)
        for i_1 in range(2): X'(i_1 + 8)

    The blocks of the later parts are copies; a part that continues a reduction does not clear its accumulators again.

    >>> sch = add(10)
    >>> (i,) = sch.get_loops("B")
    >>> i_0, i_1 = sch.loop_partition(i, [8, None])
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      for i_0 in range(8):
        block B(vi over 10 = i_0):
          B[vi] = A[vi] + 1.0
      for i_1 in range(2):
        block B_1(vi_1 over 10 = i_1 + 8):
          B[vi_1] = A[vi_1] + 1.0
    """
    s = func.loops[loop]
    rest = simplify(s.extent - sum(n for n in sizes if n is not None))
    taken = set(func.blocks)
    start: Expr = const(0)
    variables, parts = [], []
    for n, size in enumerate(sizes):
        extent = rest if size is None else const(size)
        var = Var(f"{loop.name}_{n}")
        env = env_at(func, s) | {var: loop_range(extent)}
        body = rebind(s.body, {loop: simplify(start + var)}, None, env)
        if n:
            body = _without_init(duplicate(body, taken), env)
        parts.append(with_fields(s, var=var, extent=extent, body=body))
        variables.append(var)
        start = simplify(start + extent)
    return replace(func, s, seq(parts)), variables


def _without_init(s: Stmt, env: dict) -> Stmt:
    """Drop the init of reductions that an earlier part has begun: it would never run."""
    changed: dict[Stmt, Stmt] = {}
    for b in blocks_under(s):
        reduce = b.reduce
        inner = {**env, **_ranges(s)}
        if b.init is not None and any(can_prove(it.binding >= 1, inner) for it in reduce):
            changed[b] = with_fields(b, init=None)
    return replace_statements(s, changed)


def _ranges(s: Stmt) -> dict:
    found: dict = {}

    def visit(x: Stmt) -> Stmt:
        if isinstance(x, For):
            found[x.var] = loop_range(x.extent)
        return x if isinstance(x, Block) else map_statements(x, visit)

    visit(s)
    return found


MERGE = Primitive("merge", check_merge, apply_merge)
LOOP_PARTITION = Primitive("loop_partition", check_loop_partition, apply_loop_partition)
