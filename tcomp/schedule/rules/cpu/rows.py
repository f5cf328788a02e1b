"""The default schedule of everything else: several reductions over common rows, reductions along the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....target import Target
from ...library import (
    combine_lanes,
    fuse_all,
    inline_elementwise,
    reduce_loops,
    rfactor_lanes,
    steps_along,
    vectorize_innermost,
    vectorize_partial,
)
from ...primitives import BlockRef
from ...schedule import Schedule
from .common import final_blocks, is_worth_threads, reductions, widest_itemsize

NAME = "rows"

ACCUMULATORS = 4
"""Vector accumulators of a reduction along a row: additions of one wait for each other, those of several overlap."""
WAIT = 0.05
"""What each accumulator less costs."""
CHUNKS = 4
"""Parts for each core of a reduction to a single value, so that no core waits long for another."""


def applies(func: PrimFunc, target: Target) -> bool:
    return len(final_blocks(func)) == 1


def apply(sch: Schedule, target: Target) -> None:
    """Rows run in parallel; all stages of a row are computed together, while it is in cache.

    A reduction along the row keeps several vectors of partial results (rfactor), which are combined into one, and that one's
    lanes by an instruction. The stages are placed at the loop over rows of the last block; elementwise stages run in vectors
    along the row. A reduction to a single value is cut into parts, which are the rows then.
    """
    inline_elementwise(sch)
    lanes = target.lanes(widest_itemsize(sch.func))
    is_big = is_worth_threads(sch.func, target.num_cores)
    names = reductions(sch.func)
    shared = _share(sch, names[0], target.num_cores * CHUNKS, lanes) if is_big and len(names) == 1 else None
    last, partial = shared or final_blocks(sch.func)[0], []
    for name in [shared] if shared else names:
        combined, vectors = factor(sch, name, lanes)
        last = combined if name == last else last
        partial += vectors
    site = _rows_of(sch, last)
    if site is not None:
        for name in reversed([b for b in sch.func.blocks if b != last]):
            if sch.refusal("compute_at", BlockRef(name), site) is None:
                sch.compute_at(name, site)
    for name in list(sch.func.blocks):
        inner = sch.get_loops(name)
        if name in partial:
            vectorize_partial(sch, name)
        elif site is not None and not sch.func.blocks[name].is_reduction and len(inner) > 1 and inner[0] is site:
            vectorize_innermost(sch, name, lanes, 1)
    if is_big:
        for loop in dict.fromkeys(loops[0] for b in sch.func.blocks if (loops := sch.get_loops(b))):
            if sch.get_extent(loop) != 1 and sch.refusal("parallel", loop) is None:
                sch.parallel(loop)


def _rows_of(sch: Schedule, final: str) -> Var | None:
    """One loop over the rows of the last block; None where it has no rows."""
    block = sch.func.blocks[final]
    spatial = [it for it in block.iters if it.kind == "spatial"]
    return fuse_all(sch, sch.get_loops(final)[: len(spatial) - (0 if block.is_reduction else 1)])


def _share(sch: Schedule, name: str, parts: int, lanes: int) -> str | None:
    """Cut a reduction to a single value into parts, to be computed in parallel; the block of the parts."""
    loops = sch.get_loops(name)
    spatial = [it for it in sch.func.blocks[name].iters if it.kind == "spatial"]
    if any(getattr(it.extent, "value", 0) != 1 for it in spatial) or not loops:
        return None
    if len(loops) > 1 and sch.refusal("fuse", *loops) is not None:
        return None
    whole = fuse_all(sch, loops)
    assert whole is not None
    extent = sch.get_extent(whole)
    if not isinstance(extent, int) or extent < 4 * parts * lanes:
        return None
    outer, _ = sch.split(whole, [parts, None])
    if sch.refusal("rfactor", BlockRef(name), outer) is not None:
        return None
    return sch.rfactor(name, outer).name


def _accumulators(vectors: int) -> int:
    """How many accumulators for a row of so many vectors: fewer where more would leave many of them idle at its end."""
    if vectors < 2 * ACCUMULATORS:
        return 1
    return min(range(ACCUMULATORS, 1, -1), key=lambda a: ceil(vectors / a) * a * (1 + WAIT * (ACCUMULATORS - a)))


def _contiguous(sch: Schedule, name: str, loops: Sequence[Var]) -> list[Var]:
    """The innermost of a reduction's loops that together walk through each operand as one loop would: a channel of images that lie
    channel by channel is such a run, though the channel of the next image is not next to it."""
    steps = {v: steps_along(sch, name, v) for v in loops}
    run = [loops[-1]]
    for outer in reversed(loops[:-1]):
        inner, extent = run[0], sch.get_extent(run[0])
        goes_on = isinstance(extent, int) and all(
            step is not None and steps[outer][buffer] == step * extent for buffer, step in steps[inner].items()
        )
        if not goes_on or sch.refusal("fuse", outer, *run) is not None:
            break
        run.insert(0, outer)
    return run


def factor(sch: Schedule, name: str, lanes: int) -> tuple[str, list[str]]:
    """Give a reduction over contiguous elements vectors of partial results: its name now, and the blocks that fill them."""
    loops = reduce_loops(sch, name)
    if not loops or loops != sch.get_loops(name)[-len(loops) :]:
        return name, []
    run = _contiguous(sch, name, loops)
    is_whole = len(run) == len(loops)
    last = fuse_all(sch, run)
    assert last is not None
    extent = sch.get_extent(last)
    if not isinstance(extent, int) or extent < (2 if is_whole else 1) * lanes:
        return name, []
    if 1 not in steps_along(sch, name, last).values() or sch.refusal("rfactor", BlockRef(name), last) is not None:
        return name, []
    filled = rfactor_lanes(sch, name, lanes * _accumulators(ceil(extent / lanes)))
    combined, vectors = combine_lanes(sch, name, lanes)
    return combined.name, [b.name for b in (filled, vectors) if b is not None]
