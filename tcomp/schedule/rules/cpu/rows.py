"""The default schedule of everything else: several reductions over common rows, reductions along the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....ir.query import is_const
from ....target import CpuTarget
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
from ..plan import decision, yes_or_no
from .common import Work, final_blocks, reductions, widest_itemsize

NAME = "rows"

ACCUMULATORS = 4
"""Vector accumulators of a reduction along a row: additions of one wait for each other, those of several overlap."""
CHUNKS = 4
"""Parts for each core of a reduction to a single value, so that no core waits long for another."""


@dataclass(frozen=True, slots=True)
class Run:
    """The contiguous elements that a reduction walks through: how many (0: none), and whether these are all of a result's."""

    extent: int = 0
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel.

    Attributes:
        itemsize: of the widest element.
        runs: of each reduction, in the order of the blocks.
        single: elements of the one reduction to a single value, which may be cut into parts; 0 of other kernels.
    """

    itemsize: int
    work: Work
    runs: tuple[Run, ...]
    single: int = 0


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    return len(final_blocks(func)) == 1


def problem_of(func: PrimFunc) -> Problem:
    """The facts of a kernel to which the rule applies, elementwise stages inlined."""
    names = reductions(func)
    runs = tuple(run_of(func, name) for name in names)
    return Problem(widest_itemsize(func), Work.of(func), runs, _single(func, names[0]) if len(names) == 1 else 0)


def run_of(func: PrimFunc, name: str) -> Run:
    """The run of a reduction that can have partial results."""
    sch = Schedule(func)
    loops = reduce_loops(sch, name)
    if not loops or loops != sch.get_loops(name)[-len(loops) :]:
        return Run()
    run = _contiguous(sch, name, loops)
    last = fuse_all(sch, run)
    assert last is not None
    extent = sch.get_extent(last)
    if not isinstance(extent, int) or 1 not in steps_along(sch, name, last).values():
        return Run()
    return Run(extent if sch.why_not("rfactor", BlockRef(name), last) is None else 0, len(run) == len(loops))


def _single(func: PrimFunc, name: str) -> int:
    """How many elements a reduction to a single value sums up; 0 where it is none, or cannot be cut."""
    sch = Schedule(func)
    loops = sch.get_loops(name)
    spatial = [it for it in func.blocks[name].iters if it.kind == "spatial"]
    if any(not is_const(it.extent, 1) for it in spatial) or not loops:
        return 0
    if len(loops) > 1 and sch.why_not("fuse", *loops) is not None:
        return 0
    whole = fuse_all(sch, loops)
    assert whole is not None
    extent = sch.get_extent(whole)
    if not isinstance(extent, int) or sch.why_not("rfactor", BlockRef(name), whole) is not None:
        return 0
    return extent


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """How rows are reduced."""

    lanes: int = decision("elements of a vector", lambda p, t: (t.lanes(p.itemsize),))
    parallel: bool = decision("run rows on all cores", yes_or_no)
    parts: int = decision(
        "parts of a reduction to a single value; 0 to leave it whole",
        lambda p, t: range(1 + min(p.single, 8 * t.num_cores)),
    )
    accumulators: tuple[int, ...] = decision(
        "vectors of partial results of each reduction; 0 for none",
        lambda p, t: tuple(product(range(ACCUMULATORS + 1), repeat=len(p.runs))),
        is_scale=False,
    )


def accumulators(run: Run, lanes: int, target: CpuTarget) -> int:
    """How many vectors of partial results for a run: fewer where more would leave many of them idle at its end; 0 for a short one."""
    if run.extent < (2 if run.is_whole else 1) * lanes:
        return 0
    vectors, wait = ceil(run.extent / lanes), target.costs.accumulator_wait
    if vectors < 2 * ACCUMULATORS:
        return 1
    return min(range(ACCUMULATORS, 1, -1), key=lambda a: ceil(vectors / a) * a * (1 + wait * (ACCUMULATORS - a)))


def plan(p: Problem, target: CpuTarget) -> RowsPlan:
    """A reduction along the row keeps several vectors of partial results; one to a single value is cut into parts first."""
    lanes, parallel = target.lanes(p.itemsize), p.work.is_worth_threads(target)
    parts = target.num_cores * CHUNKS
    if parallel and p.single >= 4 * parts * lanes:
        return RowsPlan(lanes, parallel, parts, (accumulators(Run(ceil(p.single / parts)), lanes, target),))
    return RowsPlan(lanes, parallel, 0, tuple(accumulators(r, lanes, target) for r in p.runs))


def apply(sch: Schedule, plan: RowsPlan) -> None:
    """Rows run in parallel; all stages of a row are computed together, while it is in cache.

    The vectors of partial results are combined into one, and that one's lanes by an instruction (rfactor). The stages are placed at
    the loop over rows of the last block; elementwise stages run in vectors along the row. The parts of a reduction to a single value
    are the rows.
    """
    inline_elementwise(sch)
    names, last, partial = reductions(sch.func), final_blocks(sch.func)[0], []
    if plan.parts:
        names = [last := _share(sch, names[0], plan.parts)]
    for name, count in zip(names, plan.accumulators):
        combined, vectors = factor(sch, name, plan.lanes, count)
        last = combined if name == last else last
        partial += vectors
    site = _rows_of(sch, last)
    if site is not None:
        for name in reversed([b for b in sch.func.blocks if b != last]):
            if sch.why_not("compute_at", BlockRef(name), site) is None:
                sch.compute_at(name, site)
    for name in list(sch.func.blocks):
        inner = sch.get_loops(name)
        if name in partial:
            vectorize_partial(sch, name)
        elif site is not None and not sch.func.blocks[name].is_reduction and len(inner) > 1 and inner[0] is site:
            vectorize_innermost(sch, name, plan.lanes, 1)
    if plan.parallel:
        for loop in dict.fromkeys(loops[0] for b in sch.func.blocks if (loops := sch.get_loops(b))):
            if sch.get_extent(loop) != 1 and sch.why_not("parallel", loop) is None:
                sch.parallel(loop)


def _rows_of(sch: Schedule, final: str) -> Var | None:
    """One loop over the rows of the last block; None where it has no rows."""
    block = sch.func.blocks[final]
    spatial = block.spatial
    return fuse_all(sch, sch.get_loops(final)[: len(spatial) - (0 if block.is_reduction else 1)])


def _share(sch: Schedule, name: str, parts: int) -> str:
    """Cut a reduction to a single value into parts, to be computed in parallel; the block of the parts."""
    whole = fuse_all(sch, sch.get_loops(name))
    assert whole is not None
    outer, _ = sch.split(whole, [parts, None])
    return sch.rfactor(name, outer).name


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
        if not goes_on or sch.why_not("fuse", outer, *run) is not None:
            break
        run.insert(0, outer)
    return run


def factor(sch: Schedule, name: str, lanes: int, count: int) -> tuple[str, list[str]]:
    """Make a reduction's run one loop, and give it `count` vectors of partial results (0: none): its name now, and the blocks that
    fill them."""
    loops = reduce_loops(sch, name)
    if loops and loops == sch.get_loops(name)[-len(loops) :]:
        fuse_all(sch, _contiguous(sch, name, loops))
    if not count:
        return name, []
    filled = rfactor_lanes(sch, name, lanes * count)
    combined, vectors = combine_lanes(sch, name, lanes)
    return combined.name, [b.name for b in (filled, vectors) if b is not None]
