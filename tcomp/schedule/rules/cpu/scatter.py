"""The default schedule of kernels that store at computed places."""

from __future__ import annotations

from dataclasses import dataclass

from ....analysis.regions import computes_places
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int
from ....target import CpuTarget
from ...library import domain_size, fuse_all, inline_elementwise, reduce_loops, spatial_loops
from ...schedule import Schedule
from ..plan import decision, yes_or_no
from . import elementwise
from .common import Work, widest_itemsize

NAME = "scatter"


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel.

    Attributes:
        itemsize: bytes of its widest element; columns: elements of the last axis, where each value of it leads to elements of its own.
        changes, copies: the work of changing elements, and of copying what the kernel begins with.
    """

    itemsize: int
    columns: int
    changes: Work
    copies: Work


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    return any(map(computes_places, func.blocks.values()))


def problem_of(func: PrimFunc) -> Problem:
    """The facts of a kernel to which the rule applies, elementwise stages inlined."""
    itemsize = widest_itemsize(func)
    columns, changed, copied = 1, 0, 0
    for b in func.blocks.values():
        known = domain_size(b)
        count = 1 << 20 if known is None else known
        if not computes_places(b):
            copied += count
            continue
        changed += count
        last = b.iters[-1] if b.iters else None
        if last is not None and last.kind == "spatial":
            columns = as_int(last.extent, 1 << 10)
    works = (Work(n, 0, streams * n * itemsize) for n, streams in ((changed, 3), (copied, 2)))
    return Problem(itemsize, columns, *works)


@dataclass(frozen=True, slots=True)
class ScatterPlan:
    """How points are walked through: each task owns a range of the elements that they change, so that no two tasks meet."""

    lanes: int = decision("elements of a vector", lambda p, t: [t.lanes(p.itemsize) * f for f in (1, 2, 4)])
    columns: int = decision(
        "elements of the last axis that a task owns",
        lambda p, t: [t.lanes(p.itemsize) * f for f in (1, 2, 4, 8, 16, 32, 64)],
    )
    parallel: bool = decision("run tasks on all cores", yes_or_no)
    parallel_copies: bool = decision("copy what it begins with on all cores", yes_or_no)


def plan(p: Problem, target: CpuTarget) -> ScatterPlan:
    """As many tasks as cores, each of whole vectors, and of 64 of them at most."""
    lanes = target.lanes(p.itemsize)
    columns = lanes
    while columns < 64 * lanes and columns * target.num_cores < p.columns:
        columns *= 2
    return ScatterPlan(lanes, columns, p.changes.is_worth_threads(target), p.copies.is_worth_threads(target))


def apply(sch: Schedule, plan: ScatterPlan) -> None:
    """Axes along which no two points meet stand outside, and the last of them in vectors inside; between them the points run in order."""
    inline_elementwise(sch)
    for name in list(sch.func.blocks):
        if not computes_places(sch.func.blocks[name]):
            elementwise.run_block(sch, name, plan.lanes, plan.parallel_copies)
            continue
        spatial, ordered = spatial_loops(sch, name), reduce_loops(sch, name)
        if not spatial:
            continue
        *outer, last = spatial
        if ordered and sch.get_loops(name)[-1] is not last:
            outer, runs = spatial, []
        else:
            tasks, run = sch.split(last, [None, plan.columns])
            vectors, lane = sch.split(run, [None, plan.lanes])
            outer, runs = [*outer, tasks], [vectors, lane]
            sch.vectorize(lane)
        if ordered and outer:
            sch.reorder(*outer, *ordered, *runs)
        whole = fuse_all(sch, outer)
        if plan.parallel and whole is not None:
            sch.parallel(whole)
