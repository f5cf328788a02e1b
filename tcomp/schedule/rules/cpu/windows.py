"""The default schedule of small windows that keep channels apart: depthwise convolution, pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from ....analysis.regions import writes
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int, free_vars, int_of
from ....target import CpuTarget
from ...library import (
    accumulate_tile,
    domain_size,
    fuse_all,
    inline_elementwise,
    is_costly,
    is_output,
    loaded,
    unroll_and_vectorize,
    vectorize_innermost,
)
from ...schedule import Schedule
from ..plan import decision, yes_or_no
from .common import Work, keep_local, nbytes, reductions
from .tiled_reduction import applies as is_tiled_reduction

NAME = "windows"

MAX_WINDOW = 64
ROWS = 8
"""Rows of the result that one core takes at a time: the input has few rows more."""


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    """One reduction over at most MAX_WINDOW elements, whose operands all vary along the last axis, for rows of pixels."""
    if not is_tiled_reduction(func, target):
        return False
    block = func.blocks[reductions(func)[0]]
    spatial = block.spatial
    window = prod(as_int(it.extent, MAX_WINDOW + 1) for it in block.reduce)
    if len(spatial) < 3 or window > MAX_WINDOW or domain_size(block) is None or int_of(spatial[-2].extent) < 4:
        return False
    return all(spatial[-1].var in free_vars(indices[-1]) for _, indices in loaded(block) if indices)


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: extents of the result, channels last; bytes of an accumulator, and of the largest input and the result."""

    extents: tuple[int, ...]
    itemsize: int
    image_bytes: int
    work: Work


def problem_of(func: PrimFunc) -> Problem:
    """The facts of a kernel to which the rule applies."""
    block = func.blocks[reductions(func)[0]]
    return Problem(
        tuple(int_of(it.extent) for it in block.spatial),
        max(b.dtype.itemsize for b in writes(block)), max(map(nbytes, func.inputs)) + sum(map(nbytes, func.outputs)),
        Work.of(func),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How windows are tiled."""

    rows: int = decision("rows of the result at a time", lambda p, t: range(1, p.extents[-3] + 1))
    pixels: int = decision(
        "neighbouring pixels summed in registers", lambda p, t: range(1, min(p.extents[-2], t.num_registers // 2) + 1)
    )
    vectors: int = decision(
        "vectors of channels that pass together", lambda p, t: range(1, ceil(p.extents[-1] / _lanes(p, t)) + 1)
    )
    lanes: int = decision("elements of a vector", lambda p, t: (_lanes(p, t),))
    parallel: bool = decision("run groups of rows on all cores", yes_or_no)


def _lanes(p: Problem, target: CpuTarget) -> int:
    return min(target.lanes(p.itemsize), p.extents[-1])


def plan(p: Problem, target: CpuTarget) -> WindowPlan:
    """Some rows of the result and some vectors of channels at a time; images beyond L2, both together, with all their channels, since memory
    likes to be read in order."""
    lanes = _lanes(p, target)
    parallel = p.work.is_worth_threads(target)
    rows = min(ROWS, max(1, prod(p.extents[:-2]) // (4 * target.num_cores))) if parallel else ROWS
    columns = ceil(p.extents[-1] / lanes)
    is_large = p.image_bytes > target.l2_bytes_per_core
    vectors = columns if is_large else next(v for v in (4, 3, 2, 1) if columns % v == 0)
    pixels = _pixels(p.extents[-2], target)
    return WindowPlan(min(rows, p.extents[-3]), pixels, vectors, lanes, parallel)


def apply(sch: Schedule, plan: WindowPlan) -> None:
    """A few neighbouring pixels are summed in registers, one vector of channels each, the row of the window unrolled, so that each
    pixel of the input is loaded once for all windows that hold it. Padding is a mask of these loads; only an input that is costly to
    make is made beforehand, for the rows at hand.
    """
    inline_elementwise(sch)
    acc = reductions(sch.func)[0]
    epilogue = keep_local(sch, acc)
    inputs = [b.name for b in sch.func.blocks.values() if not b.is_reduction and not is_output(sch.func, b)]
    *images, row, pixel, channel = sch.get_loops(epilogue)
    group, within = sch.split(row, [None, plan.rows])
    left, inner = sch.split(pixel, [None, plan.pixels])
    panel, vector, lane = sch.split(channel, [None, plan.vectors, plan.lanes])
    sch.reorder(*images, group, panel, within, left, vector, inner, lane)
    site = fuse_all(sch, [*images, group, panel])
    assert site is not None
    sch.compute_at(acc, vector)
    for name in inputs:
        if name == epilogue:
            continue
        if is_costly(sch.func.blocks[name]):
            sch.compute_at(name, site)
            vectorize_innermost(sch, name, plan.lanes, 1)
        else:
            sch.compute_inline(name)
    reduce = accumulate_tile(sch, acc, 4, 1, plan.lanes)
    if len(reduce) > 1:
        sch.unroll(reduce[1])
    unroll_and_vectorize(sch, [inner, lane])
    if plan.parallel:
        sch.parallel(site)


def _pixels(extent: int, target: CpuTarget) -> int:
    """Neighbouring pixels to sum at once. The more, the less the sums wait for one another, up to what keeps the ports busy; they leave
    half of the registers to a row of the window and its weights. With 256-bit vectors (Zen 3), 7 against 4: windows of 3 x 3 run 1.05
    times as fast, of 5 x 5 1.2, of 7 x 7 1.3 times."""
    busy = ceil(target.costs.fma_latency * target.fma_ports)
    most = max(1, min(target.num_registers // 2 - 1, busy))
    return max(range(1, most + 1), key=lambda r: extent / (ceil(extent / r) * r) * r / (r + 2))
