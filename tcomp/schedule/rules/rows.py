"""The default schedule of everything else: several reductions over common rows, reductions along the last axis."""

from __future__ import annotations

from ...ir.primfunc import PrimFunc
from ...target import Target
from ..primitives import BlockRef
from ..schedule import Schedule
from .common import final_blocks, fuse_all, inline_elementwise, is_worth_threads, vectorize_last, widest_itemsize

NAME = "rows"


def applies(func: PrimFunc, target: Target) -> bool:
    return True


def apply(sch: Schedule, target: Target) -> None:
    """Rows run in parallel; all stages of a row are computed together, while it is in cache.

    The stages are placed at the loop over rows of the last block; elementwise stages run in vectors along the row.
    """
    inline_elementwise(sch)
    lanes = target.lanes(widest_itemsize(sch.func))
    finals = final_blocks(sch.func)
    if len(finals) != 1:
        return
    final = finals[0]
    loops = sch.get_loops(final)
    block = sch.func.blocks[final]
    keep = 0 if block.is_reduction else 1
    spatial = [it for it in block.iters if it.kind == "spatial"]
    rows = loops[: len(spatial) - keep]
    site = fuse_all(sch, rows)
    if site is None:
        return
    for name in reversed([b for b in sch.func.blocks if b != final]):
        if sch.refusal("compute_at", BlockRef(name), site) is None:
            sch.compute_at(name, site)
    for name in list(sch.func.blocks):
        inner = sch.get_loops(name)
        if not sch.func.blocks[name].is_reduction and len(inner) > 1 and inner[0] is site:
            vectorize_last(sch, name, lanes, 1)
    if is_worth_threads(sch.func, target.num_cores) and sch.refusal("parallel", site) is None:
        sch.parallel(site)
