"""The default schedule of a GPU for everything else: each stage a launch of its own, each of its elements a thread."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ....analysis.regions import writes
from ....ir.expr import Buffer, Var
from ....ir.index_map import IndexMap
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int, free_vars
from ....target import CudaTarget
from ...library import inline_elementwise, reduce_loops, steps_along
from ...primitives import BlockRef
from ...schedule import Schedule
from ..plan import decision
from .common import WIDEST, inline_cheap, spread

NAME = "plain"


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel.

    Attributes:
        itemsize: bytes of an element of its results.
        points, depth: of its longest reduction, how many results and steps it has; 0 without one.
    """

    itemsize: int
    points: int
    depth: int


def applies(func: PrimFunc, target: CudaTarget) -> bool:
    return True


def problem_of(func: PrimFunc) -> Problem:
    found = [
        (prod(as_int(it.extent, 1 << 10) for it in b.reduce), prod(as_int(it.extent, 1 << 10) for it in b.spatial))
        for b in func.blocks.values()
        if b.is_reduction
    ]
    depth, points = max(found, default=(0, 0))
    return Problem(max((b.dtype.itemsize for b in func.outputs), default=4), points, depth)


@dataclass(frozen=True, slots=True)
class PlainPlan:
    """How elements are spread over threads."""

    threads: int = decision("threads of a block", lambda p, t: (32, 64, 128, 256, 512, 1024))
    lanes: int = decision("neighbours that a thread computes at once", lambda p, t: (1, 2, 4, 8))
    parts: int = decision("parts of a reduction, summed up apart", lambda p, t: (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))


THREADS, LEAST_STEPS, MOST_PARTS = 256, 8, 512
"""Of a block; steps of a part of a reduction, at least; parts, at most."""


def plan(p: Problem, target: CudaTarget) -> PlainPlan:
    """A thread moves as much as one access to memory does. Reductions with few results have parts, as many as keep all SMs busy: one more launch
    adds these up."""
    lanes = min(max(WIDEST // p.itemsize, 1), 8)
    parts = 1
    while (
        parts < MOST_PARTS
        and 2 * parts * p.points <= target.sms * THREADS * lanes
        and 2 * parts * LEAST_STEPS <= p.depth
    ):
        parts *= 2
    return PlainPlan(THREADS, lanes, parts)


def apply(sch: Schedule, plan: PlainPlan) -> None:
    """The loops of a block over its results become threads, as far as they are independent; those of a reduction run in a thread."""
    inline_elementwise(sch)
    if plan.parts > 1:
        for name in [b.name for b in sch.func.blocks.values() if b.is_reduction]:
            _split_reduction(sch, name, plan.parts)
    inline_cheap(sch, list(sch.func.blocks))
    done: set[str] = set()
    for name in list(sch.func.blocks):
        if name not in done:
            done |= spread(sch, name, plan.threads, plan.lanes)


def _split_reduction(sch: Schedule, name: str, parts: int) -> None:
    """Make parts of a reduction results of their own: neighbours in turn, where it walks along these, so that threads side by side read what lies
    side by side; else each part some steps in a row."""
    loops = reduce_loops(sch, name)
    if len(loops) > 1 and sch.why_not("fuse", *loops) is None:
        loops = [sch.fuse(*loops)]
    known = [(n, v) for v in loops if isinstance(n := sch.get_extent(v), int)]
    extent, longest = max(known, key=lambda found: found[0], default=(0, None))
    while parts > extent // 2:
        parts //= 2
    if longest is None or parts < 2:
        return
    steps = steps_along(sch, name, longest)
    takes_turns = bool(steps) and steps[max(steps, key=_elements)] == 1  # by what most is read of
    outer, inner = sch.split(longest, [None, parts] if takes_turns else [parts, None])
    part = inner if takes_turns else outer
    if sch.why_not("rfactor", BlockRef(name), part) is not None:
        return
    factored = sch.rfactor(name, part)
    if not takes_turns:  # the results of each part side by side
        axes = len(writes(sch.func.blocks[factored.name])[0].shape)
        params = tuple(Var(f"i{d}") for d in range(axes))
        sch.transform_layout(factored, 0, IndexMap(params, (params[-1], *params[:-1])))
        around = sch.get_loops(factored)
        own = next(v for v in around if v in free_vars(sch.func.blocks[factored.name].spatial[-1].binding))
        sch.reorder(own, *around[: around.index(own)])


def _elements(b: Buffer) -> int:
    return prod(as_int(e, 1 << 10) for e in b.shape)
