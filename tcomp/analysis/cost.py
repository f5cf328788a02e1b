"""What a scheduled kernel costs: operations, bytes moved between the levels of memory, registers of the inner tile.

Regions are counted exactly, as integer sets (islpy). The traffic into a level that holds `capacity` bytes follows from them:
a loop whose body's data fits fetches each element that the whole loop touches once; a loop whose body's data does not fit
fetches what each iteration touches anew. (The reasoning of McKinley, Carr, Tseng, "Improving Data Locality with Loop
Transformations", TOPLAS 1996, with regions in place of reference groups.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import Any

from ..ir.expr import BinaryExpr, Buffer, Call, CompareExpr, Const, Expr, Load, Var
from ..ir.node import children, substitute
from ..ir.primfunc import PrimFunc
from ..ir.query import free_vars
from ..ir.stmt import Block, For, Seq, Stmt, Store, sub_statements, walk_statements
from .regions import Access, accesses, blocks_under, loop_env, loops_around, loops_inside, resolve
from .sets import NotAffineError, Space, isl


def with_sizes(func: PrimFunc, sizes: Mapping[Var, int]) -> PrimFunc:
    """The kernel with numbers for its symbolic extents."""
    values: dict[Any, Any] = {v: Const(n, v.dtype) for v, n in sizes.items()}
    buffers: dict[Any, Any] = {}
    for b in (*func.buffers, *func.allocs):
        shape = tuple(substitute(e, values) for e in b.shape)
        if shape != b.shape:
            buffers[b] = Buffer(b.name, shape, b.dtype, b.scope)
    params = tuple(buffers.get(p, p) for p in func.params if p not in sizes)
    allocs = tuple(buffers.get(b, b) for b in func.allocs)
    body = substitute(func.body, {**values, **buffers})
    return PrimFunc(func.name, params, body, func.num_outputs, allocs, func.attrs)


def operations(e: Expr) -> int:
    """Arithmetic operations of a value; index arithmetic and comparisons do not count."""
    if isinstance(e, Load):
        return 0
    own = 0
    if isinstance(e, BinaryExpr) and not isinstance(e, CompareExpr) and e.symbol not in ("and", "or"):
        own = 1
    elif isinstance(e, Call):
        own = {"fma": 2, "rounded": 0}.get(e.op, 1)
    return own * e.dtype.lanes + sum(operations(x) for x in children(e) if isinstance(x, Expr))


def flops(func: PrimFunc) -> int:
    """Arithmetic operations of a kernel, inits left out."""
    total = 0
    for b in func.blocks.values():
        for s, inner in _stores(b.body, ()):
            total += operations(s.value) * _points(func, b, inner)
    return total


def _stores(s: Stmt, inner: tuple[For, ...]) -> list[tuple[Store, tuple[For, ...]]]:
    if isinstance(s, Store):
        return [(s, inner)]
    deeper = (*inner, s) if isinstance(s, For) else inner
    return [found for x in sub_statements(s) for found in _stores(x, deeper)]


def _points(func: PrimFunc, b: Block, inner: Sequence[For]) -> int:
    """How often a statement of a block runs."""
    loops = [*loops_around(func, b), *inner]
    if b.where is None:
        return prod(_extent(s) for s in loops)
    space = Space([], len(loops))
    at = {s.var: i for i, s in enumerate(loops)}
    points = space.ranged(loop_env(loops), at)
    try:
        return points.intersect(space.condition(b.where, at)).count_val().to_python()
    except NotAffineError:
        return prod(_extent(s) for s in loops)


def _extent(s: For) -> int:
    return int(s.extent.value) if isinstance(s.extent, Const) else 1


def _elements(func: PrimFunc, a: Access, around: Sequence[For]) -> Any:
    """The elements that an access touches while the loops inside some others run, these at 0."""
    inner = loops_inside(func, a, around)
    fixed = {s.var: Const(0, s.var.dtype) for s in around}
    indices = [substitute(i, fixed) for i in resolve(a.block, a.indices)]
    space = Space([], len(inner) + len(indices))
    at = {s.var: i for i, s in enumerate(inner)}
    points = space.ranged(loop_env(inner), at)
    for d, (index, extent) in enumerate(zip(indices, a.buffer.shape)):
        where = space.dim(len(inner) + d)
        try:
            points = points.intersect(where.eq_set(space.affine(index, at)))
        except NotAffineError:
            points = points.intersect(where.ge_set(space.constant(0)))  # any place
        points = points.intersect(where.ge_set(space.constant(0)))
        points = points.intersect(where.lt_set(space.affine(extent, {})))
    return points.project_out(isl.dim_type.set, 0, len(inner))


def footprint(func: PrimFunc, s: Stmt, around: Sequence[For]) -> dict[Buffer, int]:
    """Bytes of each buffer that one execution of a statement touches, the loops around it at their first iteration."""
    regions: dict[Buffer, Any] = {}
    for b in blocks_under(s):
        for a in accesses(b):
            found = _elements(func, a, around)
            regions[a.buffer] = found if a.buffer not in regions else regions[a.buffer].union(found)
    return {b: r.count_val().to_python() * b.dtype.itemsize for b, r in regions.items()}


def traffic(func: PrimFunc, capacity: int) -> int:
    """Bytes that move into a memory of some capacity while the kernel runs once."""
    return _traffic(func, func.body, (), 1, capacity)


def _traffic(func: PrimFunc, s: Stmt, around: tuple[For, ...], trips: int, capacity: int) -> int:
    if isinstance(s, Seq):
        return sum(_traffic(func, x, around, trips, capacity) for x in s.stmts)
    if isinstance(s, For):
        inside = sum(footprint(func, s.body, (*around, s)).values())
        if inside > capacity and any(isinstance(x, For) for x in walk_statements(s.body)):
            return _traffic(func, s.body, (*around, s), trips * _extent(s), capacity)
    return trips * sum(footprint(func, s, around).values())


def tile_registers(func: PrimFunc, vector_bytes: int) -> int:
    """Vector registers that the innermost rolled loops keep busy, the most of any block.

    The results of the unrolled and vectorized loops inside, the operands that vary along the lanes, one for what does not.
    """
    most = 0
    for b in func.blocks.values():
        loops = loops_around(func, b)
        summed = {v for it in b.reduce for v in free_vars(it.binding)}
        tile = [s for s in loops if s.kind in ("unrolled", "vectorized") and s.var not in summed]
        lanes = {s.var for s in tile if s.kind == "vectorized"}
        if not lanes or not b.is_reduction:
            continue
        around = [s for s in loops if s not in tile]
        results = operands = 0
        for buffer in dict.fromkeys(a.buffer for a in accesses(b)):
            mine = [a for a in accesses(b) if a.buffer is buffer]
            size = ceil(_count(func, mine[0], around) * buffer.dtype.itemsize / vector_bytes)
            if any(a.is_write for a in mine):
                results += size
            elif any(free_vars(i) & lanes for i in resolve(b, mine[0].indices)):
                operands += size
        most = max(most, results + operands + 1)
    return most


def _count(func: PrimFunc, a: Access, around: Sequence[For]) -> int:
    return _elements(func, a, around).count_val().to_python()
