"""The default schedule of a GPU for reductions along rows, and what goes with them: the threads of a block share a row."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ....errors import ScheduleError
from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int
from ....target import CudaTarget
from ....target.cuda import WARP
from ...library import fuse_all, inline_elementwise, is_output, reduce_loops, steps_along
from ...schedule import Schedule
from ..plan import decision
from .common import BLOCKS, THREADS

NAME = "row_reduction"
ROW_THREADS = 256
"""At most: longer rows are passed in steps."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: elements of its longest row."""

    length: int


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
    others = [steps_along(sch, name, v) for v in spatial]
    is_shared = all(any(step == 0 for step in s.values()) for s in others) and len(steps) > 1
    return 1 in steps.values() and not is_shared and prod(e for e in extents if e is not None) >= WARP


def problem_of(func: PrimFunc) -> Problem:
    found = [prod(as_int(it.extent, 1) for it in b.reduce) for b in func.blocks.values() if b.is_reduction]
    return Problem(max(found))


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """How rows are shared out."""

    threads: int = decision("threads of a row", lambda p, t: (32, 64, 128, 256, 512, 1024))


def plan(p: Problem, target: CudaTarget) -> RowsPlan:
    """As many threads as a row has elements, in powers of two: of a warp at least."""
    threads = WARP
    while threads < min(p.length // 2, ROW_THREADS):
        threads *= 2
    return RowsPlan(threads)


def apply(sch: Schedule, plan: RowsPlan) -> None:
    """All stages of a row in one block of threads, which exchange their partial results; what stages hand on stays in shared memory."""
    inline_elementwise(sch)
    last = next(b.name for b in sch.func.blocks.values() if is_output(sch.func, b))
    site = _rows_of(sch, last)
    if site is None:
        raise ScheduleError(f"block {last} has no rows to share out")
    for name in reversed([b for b in sch.func.blocks if b != last]):
        sch.compute_at(name, site)
    for name in list(sch.func.blocks):
        _share(sch, name, site, plan.threads)
    sch.bind(site, BLOCKS)


def _rows_of(sch: Schedule, final: str) -> Var | None:
    """One loop over the rows of the last block."""
    block = sch.func.blocks[final]
    count = len(block.spatial) - (0 if block.is_reduction else 1)
    if not count:
        return sch.add_unit_loop(sch.get_loops(final)[0]) if sch.get_loops(final) else None
    return fuse_all(sch, sch.get_loops(final)[:count])


def _share(sch: Schedule, name: str, site: Var, threads: int) -> None:
    """Give the threads of a block the elements of a row in turn."""
    loops = sch.get_loops(name)
    inner = loops[loops.index(site) + 1 :]
    reduce = reduce_loops(sch, name)
    spatial = [v for v in inner if v not in reduce]
    own = spatial if spatial and not all(sch.get_extent(v) == 1 for v in spatial) else [v for v in inner if v in reduce]
    whole = fuse_all(sch, own)
    if whole is not None:
        _, thread = sch.split(whole, [None, threads])
        sch.bind(thread, THREADS)
