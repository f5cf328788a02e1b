"""The default schedule of a GPU for reductions along rows, and what goes with them: the threads of a block share a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int
from ....ir.stmt import IterVar
from ....target import CudaTarget
from ....target.cuda import WARP
from ...library import fuse_all, inline_elementwise, is_output, reduce_loops, steps_along
from ...primitives import BlockRef
from ...schedule import Schedule
from ..plan import decision
from .common import BLOCKS, THREADS, WIDEST

NAME = "row_reduction"
ROW_THREADS, LEAST_STEPS = 256, 4
"""Threads at most: longer rows are passed in steps. Steps of a part of a row at least."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: elements of its longest row, rows, reductions, bytes of an element of its result."""

    length: int
    rows: int
    reductions: int
    itemsize: int


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    """Whether there is one result, and each reduction walks through a row of neighbours."""
    last = [b.name for b in func.blocks.values() if is_output(func, b)]
    reducing = [b.name for b in func.blocks.values() if b.is_reduction]
    return len(last) == 1 and bool(reducing) and all(_is_row(Schedule(func), name) for name in reducing)


def _is_row(sch: Schedule, name: str) -> bool:
    loops = reduce_loops(sch, name)
    extents = [as_int(it.extent) for it in sch.func.blocks[name].reduce]
    if not loops or loops != sch.get_loops(name)[-len(loops) :] or None in extents:
        return False
    steps = steps_along(sch, name, loops[-1])
    spatial = [v for v in sch.get_loops(name) if v not in loops]
    largest = max(steps, key=lambda b: prod(as_int(e, 1 << 10) for e in b.shape), default=None)
    if largest is None or steps[largest] != 1:
        return False
    others = [steps_along(sch, name, v) for v in spatial if sch.get_extent(v) != 1]
    is_shared = len(steps) > 1 and any(s[largest] == 0 for s in others)  # rows that others read, too
    return not is_shared and prod(e for e in extents if e is not None) >= WARP


def problem_of(func: PrimFunc) -> Problem:
    found = [b for b in func.blocks.values() if b.is_reduction]
    length, rows = max((_points(b.reduce), _points(b.spatial)) for b in found)
    return Problem(length, rows, len(found), max(b.dtype.itemsize for b in func.outputs))


def _points(iters: Sequence[IterVar]) -> int:
    return prod(as_int(it.extent, 1) for it in iters)


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """How rows are shared out."""

    threads: int = decision("threads of a row", lambda p, t: (32, 64, 128, 256, 512, 1024))
    lanes: int = decision(
        "neighbours that a thread moves at once, where nothing is summed up", lambda p, t: (1, 2, 4, 8)
    )
    parts: int = decision(
        "parts of a row, each for a block of threads",
        lambda p, t: (1, *(2**i for i in range(1, 11) if p.reductions == 1)),
    )


def plan(p: Problem, target: CudaTarget) -> RowsPlan:
    """As many threads as a row has elements, in powers of two: of a warp at least. A long row that has to be summed up, and nothing else, has parts,
    until there is a block for each SM."""
    threads, parts = WARP, 1
    while threads < min(p.length // 2, ROW_THREADS):
        threads *= 2
    while p.reductions == 1 and 2 * parts * p.rows <= target.sms and 2 * parts * LEAST_STEPS * threads <= p.length:
        parts *= 2
    return RowsPlan(threads, min(max(WIDEST // p.itemsize, 1), 8), parts)


def apply(sch: Schedule, plan: RowsPlan) -> None:
    """All stages of a row in one block of threads, which exchange their partial results; what stages hand on stays in shared memory."""
    inline_elementwise(sch)
    apart = _parts(sch, plan) if plan.parts > 1 else set()
    last = next(b.name for b in sch.func.blocks.values() if is_output(sch.func, b))
    site = _rows_of(sch, last)
    for name in reversed([b for b in sch.func.blocks if b != last and b not in apart]):
        sch.compute_at(name, site)
    for name in [b for b in sch.func.blocks if b not in apart]:
        _share(sch, name, site, plan)
    sch.bind(site, BLOCKS)


def _parts(sch: Schedule, plan: RowsPlan) -> set[str]:
    """Sum up parts of each row in a launch of their own; the name of its block."""
    (name,) = (b.name for b in sch.func.blocks.values() if b.is_reduction)
    whole = fuse_all(sch, reduce_loops(sch, name))
    assert whole is not None
    part, _ = sch.split(whole, [plan.parts, None])
    factored = sch.rfactor(name, part).name
    inner = set(reduce_loops(sch, factored))
    outer = [v for v in sch.get_loops(factored) if v not in inner]
    sch.reorder(*outer, *(v for v in sch.get_loops(factored) if v in inner))
    site = fuse_all(sch, outer)
    assert site is not None
    _share(sch, factored, site, plan)
    sch.bind(site, BLOCKS)
    return {factored}


def _rows_of(sch: Schedule, final: str) -> Var:
    """One loop over the rows of the last block: over those of its axes that the reductions have, too."""
    found = [[it.extent for it in b.spatial] for b in sch.func.blocks.values() if b.is_reduction]
    own = [it.extent for it in sch.func.blocks[final].spatial]
    count = min(
        next((i for i, (a, b) in enumerate(zip(own, other)) if a != b), min(len(own), len(other))) for other in found
    )
    loops = sch.get_loops(final)
    rows = fuse_all(sch, loops[:count])
    if rows is not None:
        return rows
    return sch.add_unit_loop(loops[0] if loops else BlockRef(final))


def _share(sch: Schedule, name: str, site: Var, plan: RowsPlan) -> None:
    """Give the threads of a block the elements of a row in turn."""
    loops = sch.get_loops(name)
    inner = loops[loops.index(site) + 1 :]
    reduce = reduce_loops(sch, name)
    spatial = [v for v in inner if v not in reduce]
    is_spread = bool(spatial) and not all(sch.get_extent(v) == 1 for v in spatial)
    whole = fuse_all(sch, spatial if is_spread else [v for v in inner if v in reduce])
    if whole is None:
        return
    extent = sch.get_extent(whole)
    is_even = isinstance(extent, int) and extent % plan.lanes == 0 and plan.lanes > 1
    if is_spread and not reduce and is_even:
        _, thread, vector = sch.split(whole, [None, plan.threads, plan.lanes])
        sch.vectorize(vector)
    else:
        _, thread = sch.split(whole, [None, plan.threads])
    sch.bind(thread, THREADS)
