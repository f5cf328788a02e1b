"""The default schedule of kernels without reductions: elementwise chains, transposes, copies."""

from __future__ import annotations

from ...ir.arith import linear
from ...ir.primfunc import PrimFunc
from ...target import Target
from ..library import fuse_all, inline_elementwise, loaded
from ..schedule import Schedule
from .common import final_blocks, is_worth_threads, reductions, widest_itemsize

NAME = "elementwise"


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
            outer, inner = sch.split(whole, [None, lanes])
            sch.vectorize(inner)
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


def _is_pointwise(sch: Schedule, name: str) -> bool:
    """Whether every load is at the block's own point, or at a fixed one."""
    block = sch.func.blocks[name]
    own = tuple(it.var for it in block.iters)
    return all(indices == own or not any(linear(i).terms for i in indices) for _, indices in loaded(block))
