"""The default schedule of kernels without reductions: elementwise chains, transposes, copies."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.arith import linear
from ....ir.expr import LT, Const, Load, Select, Var
from ....ir.node import walk
from ....ir.primfunc import PrimFunc
from ....target import CpuTarget
from ...library import fuse_all, inline_elementwise, loaded, transposed_loop
from ...schedule import Schedule
from ..plan import decision, yes_or_no
from .common import Work, final_blocks, reductions, widest_itemsize

NAME = "elementwise"

VECTORS = 4
"""Vectors in a step of a loop, so that counting costs little."""
MAX_PARTS = 64
"""Most operands of a concatenation that get loops of their own."""
TILE = 16
"""Rows of a tile of a transpose: the elements of a cache line, of 4 bytes each."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel: bytes of its widest element, its work."""

    itemsize: int
    work: Work


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    return not reductions(func)


def problem_of(func: PrimFunc) -> Problem:
    """The facts of a kernel to which the rule applies, elementwise stages inlined."""
    return Problem(widest_itemsize(func), Work.of(func))


@dataclass(frozen=True, slots=True)
class ElementwisePlan:
    """How elements are walked through."""

    lanes: int = decision("elements of a vector", lambda p, t: [t.lanes(p.itemsize) * f for f in (1, 2, 4)])
    vectors: int = decision("vectors in a step of a loop, where that comes out even", lambda p, t: range(1, 9))
    short: int = decision(
        "elements of the last axis that are one vector", lambda p, t: [t.lanes(p.itemsize) * f for f in (1, 2, 4)]
    )
    tile: int = decision("rows of a tile of a transpose", lambda p, t: (4, 8, 16, 32, 64))
    parallel: bool = decision("run rows on all cores", yes_or_no)
    merge: bool = decision("compute several results of one shape in one loop nest", yes_or_no)


def plan(p: Problem, target: CpuTarget) -> ElementwisePlan:
    """The vector width is that of the widest element; a transpose reads whole cache lines."""
    lanes = target.lanes(p.itemsize)
    return ElementwisePlan(lanes, VECTORS, 2 * lanes, TILE, p.work.is_worth_threads(target), True)


def apply(sch: Schedule, plan: ElementwisePlan) -> None:
    """Everything inlined into the blocks that write outputs; each runs its rows in parallel, its last axis in vectors.

    Where every operand has the output's own index, all axes become one loop, so that short rows leave no lanes idle. What is put
    together from several operands is done one operand after another. Several results are computed side by side, so that an operand
    that they share is read once, and what one takes from another is still in a register.
    """
    inline_elementwise(sch)
    for group in _nests(sch, plan):
        for part in _parts(sch, group[0]) if len(group) == 1 else [group[0]]:
            _run(sch, [part, *group[1:]], plan)


def run_block(sch: Schedule, name: str, lanes: int, parallel: bool) -> None:
    """One block without reductions, in vectors of so many elements."""
    _run(sch, [name], ElementwisePlan(lanes, VECTORS, 2 * lanes, TILE, parallel, False))


def _run(sch: Schedule, names: list[str], plan: ElementwisePlan) -> None:
    outer = _schedule(sch, names, plan)
    if plan.parallel and outer is not None:
        sch.parallel(outer)


def _nests(sch: Schedule, plan: ElementwisePlan) -> list[list[str]]:
    """The blocks, those in one loop nest together, which they share from here on."""
    last = final_blocks(sch.func)
    apart = [[b] for b in sch.func.blocks if b not in last] + [[b] for b in last]
    names = list(sch.func.blocks)
    if not plan.merge or len(names) < 2 or any(transposed_loop(sch, b) is not None for b in names if sch.get_loops(b)):
        return apart
    nests = [sch.get_loops(b) for b in names]
    if not nests[0] or any(len(loops) != len(nests[0]) for loops in nests):
        return apart
    if all(_is_pointwise(sch, b) for b in names):
        nests = [[whole] for loops in nests if (whole := fuse_all(sch, loops)) is not None]
    trial = Schedule(sch.func)
    for level in zip(*nests):
        if trial.why_not("merge", *level) is not None:
            return apart
        trial.merge(*level)
    for level in zip(*nests):
        sch.merge(*level)
    return [names]


def _schedule(sch: Schedule, names: list[str], plan: ElementwisePlan) -> Var | None:
    """Vectorize blocks that share all their loops; the loop around them, to run in parallel."""
    name = names[0]
    loops = sch.get_loops(name)
    if not loops:
        return None
    if all(_is_pointwise(sch, b) for b in names):
        whole = fuse_all(sch, loops)
        assert whole is not None
        return _vectors(sch, whole, plan)
    other = transposed_loop(sch, name) if len(names) == 1 else None
    if other is not None:
        return _tile_transpose(sch, loops, other, plan)
    extent = sch.get_extent(loops[-1])
    if isinstance(extent, int) and 1 < extent <= plan.short:
        sch.vectorize(loops[-1])
        return fuse_all(sch, loops[:-1])
    steps = _vectors(sch, loops[-1], plan)
    return fuse_all(sch, loops[:-1]) if len(loops) > 1 else steps


def _parts(sch: Schedule, name: str) -> list[str]:
    """A block that takes elements from here or from there, by its place along an axis, cut where that changes: its parts."""
    block = sch.func.blocks[name]
    for loop in sch.get_loops(name):
        own = next((it.var for it in block.iters if it.binding is loop), None)
        extent = sch.get_extent(loop)
        cuts = {c for e in walk(block.body) if isinstance(e, Select) and (c := _joint(e, own)) is not None}
        if not cuts or not isinstance(extent, int) or len(cuts) >= MAX_PARTS:
            continue
        ends = sorted({c for c in cuts if 0 < c < extent} | {extent})
        around = sch.get_loops(name).index(loop)
        if around:  # outermost while it is cut, so that each part has all loops to itself
            sch.reorder(loop, *sch.get_loops(name)[:around])
        known = set(sch.func.blocks)
        sch.loop_partition(loop, [end - start for start, end in zip([0, *ends], ends)])
        parts = [name, *(b for b in sch.func.blocks if b not in known)]
        for part in parts if around else ():
            moved, *rest = sch.get_loops(part)[: around + 1]
            sch.reorder(*rest, moved)
        return parts
    return [name]


def _joint(e: Select, axis: Var | None) -> int | None:
    """The place on an axis before which it takes one buffer's elements, and another's from there on; None where there is none."""
    if not isinstance(e.cond, LT) or e.cond.a is not axis or not isinstance(e.cond.b, Const):
        return None
    takes_two = all(any(isinstance(x, Load) for x in walk(side)) for side in (e.then, e.orelse))
    return int(e.cond.b.value) if takes_two else None


def _vectors(sch: Schedule, loop: Var, plan: ElementwisePlan) -> Var:
    """Split a loop into vectors, several of them in a step where that comes out even; returns the outer loop."""
    extent = sch.get_extent(loop)
    is_even = isinstance(extent, int) and extent % (plan.vectors * plan.lanes) == 0
    steps = [None, plan.vectors, plan.lanes] if is_even else [None, plan.lanes]
    outer, *middle, inner = sch.split(loop, steps)
    for vector in middle:
        sch.unroll(vector)
    sch.vectorize(inner)
    return outer


def _tile_transpose(sch: Schedule, loops: list[Var], other: Var, plan: ElementwisePlan) -> Var | None:
    """Tiles of some rows along the operand's contiguous axis: every cache line that is read is used whole before it is lost."""
    last = loops[-1]
    far, near = sch.split(other, [None, plan.tile])
    column, lane = sch.split(last, [None, plan.lanes])
    rest = [loop for loop in loops if loop not in (other, last)]
    sch.reorder(*rest, far, column, near, lane)
    sch.vectorize(lane)
    return fuse_all(sch, [*rest, far])


def _is_pointwise(sch: Schedule, name: str) -> bool:
    """Whether every load is at the block's own point, or at a fixed one."""
    block = sch.func.blocks[name]
    own = tuple(it.var for it in block.iters)
    return all(indices == own or not any(linear(i).terms for i in indices) for _, indices in loaded(block))
