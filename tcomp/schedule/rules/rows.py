"""The default schedule of everything else: several reductions over common rows, reductions along the last axis."""

from __future__ import annotations

from ...ir.arith import linear
from ...ir.primfunc import PrimFunc
from ...target import Target
from ..library import fuse_all, inline_elementwise, loaded, rfactor_lanes, vectorize_innermost, vectorize_partial
from ..primitives import BlockRef
from ..schedule import Schedule
from .common import final_blocks, is_worth_threads, reductions, widest_itemsize

NAME = "rows"

ACCUMULATORS = 4
"""Vector accumulators of a reduction along a row: additions of one wait for each other, those of several overlap."""


def applies(func: PrimFunc, target: Target) -> bool:
    return True


def apply(sch: Schedule, target: Target) -> None:
    """Rows run in parallel; all stages of a row are computed together, while it is in cache.

    A reduction along the row keeps several vectors of partial results (rfactor). The stages are placed at the loop over rows
    of the last block; elementwise stages run in vectors along the row.
    """
    inline_elementwise(sch)
    lanes = target.lanes(widest_itemsize(sch.func))
    finals = final_blocks(sch.func)
    if len(finals) != 1:
        return
    final = finals[0]
    partial = [rf for name in reductions(sch.func) for rf in [_factor(sch, name, lanes)] if rf is not None]
    loops = sch.get_loops(final)
    block = sch.func.blocks[final]
    spatial = [it for it in block.iters if it.kind == "spatial"]
    site = fuse_all(sch, loops[: len(spatial) - (0 if block.is_reduction else 1)])
    if site is not None:
        for name in reversed([b for b in sch.func.blocks if b != final]):
            if sch.refusal("compute_at", BlockRef(name), site) is None:
                sch.compute_at(name, site)
    for name in list(sch.func.blocks):
        inner = sch.get_loops(name)
        if name in partial:
            vectorize_partial(sch, name)
        elif site is not None and not sch.func.blocks[name].is_reduction and len(inner) > 1 and inner[0] is site:
            vectorize_innermost(sch, name, lanes, 1)
    if site is not None and is_worth_threads(sch.func, target.num_cores) and sch.refusal("parallel", site) is None:
        sch.parallel(site)


def _factor(sch: Schedule, name: str, lanes: int) -> str | None:
    """Give a reduction over contiguous elements vectors of partial results; the name of the block that fills them."""
    block = sch.func.blocks[name]
    axis = [it for it in block.iters if it.kind == "reduce"][-1]
    extent = getattr(axis.extent, "value", 0)
    if extent < 2 * lanes or not any(linear(i[-1]).terms.get(axis.var) == 1 for _, i in loaded(block) if i):
        return None
    loop = sch.get_loops(name)[-1]
    if sch.refusal("rfactor", BlockRef(name), loop) is not None:
        return None
    width = lanes * (ACCUMULATORS if extent >= 2 * ACCUMULATORS * lanes else 1)
    return rfactor_lanes(sch, name, width).name
