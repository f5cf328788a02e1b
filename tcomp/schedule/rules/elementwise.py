"""The default schedule of kernels without reductions: elementwise chains, transposes, copies."""

from __future__ import annotations

from ...ir.arith import linear
from ...ir.expr import Var
from ...ir.primfunc import PrimFunc
from ...target import Target
from ..library import fuse_all, inline_elementwise, loaded, steps_along
from ..schedule import Schedule
from .common import final_blocks, is_worth_threads, reductions, widest_itemsize

NAME = "elementwise"

VECTORS = 4
"""Vectors in a step of a loop, so that counting costs little."""
TILE = 16
"""Rows of a tile of a transpose: the elements of a cache line, of 4 bytes each."""


def applies(func: PrimFunc, target: Target) -> bool:
    return not reductions(func)


def apply(sch: Schedule, target: Target) -> None:
    """Everything inlined into the blocks that write outputs; each runs its rows in parallel, its last axis in vectors.

    The vector width is that of the widest element. Where every operand has the output's own index, all axes become one
    loop, so that short rows leave no lanes idle.
    """
    inline_elementwise(sch)
    lanes = target.lanes(widest_itemsize(sch.func))
    is_big = is_worth_threads(sch.func, target.num_cores)
    for name in [b for b in sch.func.blocks if b not in final_blocks(sch.func)] + final_blocks(sch.func):
        loops = sch.get_loops(name)
        if not loops:
            continue
        if _is_pointwise(sch, name):
            whole = fuse_all(sch, loops)
            outer = _vectors(sch, whole, lanes)
        elif (other := _transposed(sch, name)) is not None:
            outer = _tile_transpose(sch, loops, other, lanes)
        else:
            extent = sch.get_extent(loops[-1])
            if isinstance(extent, int) and 1 < extent <= 2 * lanes:
                sch.vectorize(loops[-1])
                outer = fuse_all(sch, loops[:-1])
            else:
                last, inner = sch.split(loops[-1], [None, lanes])
                sch.vectorize(inner)
                outer = fuse_all(sch, loops[:-1]) if len(loops) > 1 else last
        if is_big and outer is not None:
            sch.parallel(outer)


def _vectors(sch: Schedule, loop: Var, lanes: int) -> Var:
    """Split a loop into vectors, several of them in a step where that comes out even; returns the outer loop."""
    extent = sch.get_extent(loop)
    steps = [None, VECTORS, lanes] if isinstance(extent, int) and extent % (VECTORS * lanes) == 0 else [None, lanes]
    outer, *middle, inner = sch.split(loop, steps)
    for vector in middle:
        sch.unroll(vector)
    sch.vectorize(inner)
    return outer


def _transposed(sch: Schedule, name: str) -> Var | None:
    """The loop along which an operand is contiguous, where that is not the innermost one."""
    *others, last = sch.get_loops(name)
    along = steps_along(sch, name, last)
    for loop in reversed(others):
        steps = steps_along(sch, name, loop)
        extents = sch.get_extent(loop), sch.get_extent(last)
        if any(steps[b] == 1 and along[b] not in (0, 1) for b in steps) and all(
            isinstance(e, int) and e >= 4 for e in extents
        ):
            return loop
    return None


def _tile_transpose(sch: Schedule, loops: list[Var], other: Var, lanes: int) -> Var | None:
    """Tiles of TILE rows along the operand's contiguous axis: every cache line that is read is used whole before it is lost."""
    last = loops[-1]
    far, near = sch.split(other, [None, TILE])
    column, lane = sch.split(last, [None, lanes])
    rest = [loop for loop in loops if loop not in (other, last)]
    sch.reorder(*rest, far, column, near, lane)
    sch.vectorize(lane)
    return fuse_all(sch, [*rest, far])


def _is_pointwise(sch: Schedule, name: str) -> bool:
    """Whether every load is at the block's own point, or at a fixed one."""
    block = sch.func.blocks[name]
    own = tuple(it.var for it in block.iters)
    return all(indices == own or not any(linear(i).terms for i in indices) for _, indices in loaded(block))
