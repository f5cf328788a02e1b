"""The default schedule of small windows that keep channels apart: depthwise convolution, pooling."""

from __future__ import annotations

from math import ceil, prod

from ....analysis.regions import writes
from ....ir.primfunc import PrimFunc
from ....ir.query import free_vars
from ....target import Target
from ...library import (
    accumulate_tile,
    fuse_all,
    inline_elementwise,
    is_costly,
    is_output,
    loaded,
    points,
    unroll_and_vectorize,
    vectorize_innermost,
)
from ...schedule import Schedule
from .common import is_worth_threads, keep_local, nbytes, reductions
from .tiled_reduction import applies as is_tiled_reduction

NAME = "windows"

MAX_WINDOW = 64
ROWS = 8
"""Rows of the result that one core takes at a time: the input has few rows more."""


def applies(func: PrimFunc, target: Target) -> bool:
    """One reduction over at most MAX_WINDOW elements, whose operands all vary along the last axis, for rows of pixels."""
    if not is_tiled_reduction(func, target):
        return False
    block = func.blocks[reductions(func)[0]]
    spatial = [it for it in block.iters if it.kind == "spatial"]
    window = prod(getattr(it.extent, "value", MAX_WINDOW + 1) for it in block.iters if it.kind == "reduce")
    if len(spatial) < 3 or window > MAX_WINDOW or points(block) is None or spatial[-2].extent.value < 4:
        return False
    return all(spatial[-1].var in free_vars(indices[-1]) for _, indices in loaded(block) if indices)


def apply(sch: Schedule, target: Target) -> None:
    """Some rows of the result and some vectors of channels at a time; an image beyond the second cache with all its channels, since
    memory likes to be read in order. A few neighbouring pixels are summed in registers, one vector of channels each, the row of the
    window unrolled, so that each pixel of the input is loaded once for all windows that hold it. Padding is a mask of these loads;
    only an input that is costly to make is made beforehand, for the rows at hand.
    """
    inline_elementwise(sch)
    acc = reductions(sch.func)[0]
    block = sch.func.blocks[acc]
    extents = [it.extent.value for it in block.iters if it.kind == "spatial"]
    lanes = min(target.lanes(max(b.dtype.itemsize for b in writes(block))), extents[-1])
    epilogue = keep_local(sch, acc)
    inputs = [b.name for b in sch.func.blocks.values() if not b.is_reduction and not is_output(sch.func, b)]
    is_big = is_worth_threads(sch.func, target.num_cores)
    rows = min(ROWS, max(1, prod(extents[:-2]) // (4 * target.num_cores))) if is_big else ROWS
    columns = ceil(extents[-1] / lanes)
    is_large = max(map(nbytes, sch.func.inputs)) > target.l2_bytes_per_core
    vectors = columns if is_large else next(v for v in (4, 3, 2, 1) if columns % v == 0)
    *images, row, pixel, channel = sch.get_loops(epilogue)
    group, within = sch.split(row, [None, min(rows, extents[-3])])
    left, inner = sch.split(pixel, [None, _pixels(extents[-2], target.num_registers)])
    panel, vector, lane = sch.split(channel, [None, vectors, lanes])
    sch.reorder(*images, group, panel, within, left, vector, inner, lane)
    site = fuse_all(sch, [*images, group, panel])
    assert site is not None
    sch.compute_at(acc, vector)
    for name in inputs:
        if name == epilogue:
            continue
        if is_costly(sch.func.blocks[name]):
            sch.compute_at(name, site)
            vectorize_innermost(sch, name, lanes, 1)
        else:
            sch.compute_inline(name)
    reduce = accumulate_tile(sch, acc, 4, 1, lanes)
    if len(reduce) > 1:
        sch.unroll(reduce[1])
    unroll_and_vectorize(sch, [inner, lane])
    if is_big:
        sch.parallel(site)


def _pixels(extent: int, registers: int) -> int:
    """Neighbouring pixels to sum at once: their sums, and the inputs of a row of the window, fit the registers."""
    most = max(1, registers // 4)
    return max(range(1, most + 1), key=lambda r: (extent / (ceil(extent / r) * r) * min(1.0, r / 4), r))
