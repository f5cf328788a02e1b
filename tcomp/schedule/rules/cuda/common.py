"""What the GPU's rules share: how elements of a stage are spread over threads."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ....ir.expr import Var
from ....target.cuda import GRID_YZ
from ...library import fuse_all, loaded, reduce_loops
from ...schedule import Schedule

BLOCKS, THREADS = "blockIdx.x", "threadIdx.x"
GRID = ("blockIdx.x", "blockIdx.y", "blockIdx.z")


def grid_of(sch: Schedule, loops: Sequence[Var]) -> list[Var]:
    """At most three loops of nested ones, for the axes z, y, x of a grid: the last two stay, those before them become one. All become one where
    y or z might be longer than a grid can be."""
    extents = [sch.get_extent(v) for v in loops]
    known = [e if isinstance(e, int) else GRID_YZ + 1 for e in extents]
    is_short = all(n <= GRID_YZ for n in (prod(known[:-2]), *known[-2:-1]))
    rest = loops[:-2] if is_short else loops
    first = fuse_all(sch, rest)
    return ([] if first is None else [first]) + list(loops[len(rest) :])


def spread(sch: Schedule, name: str, threads: int, lanes: int = 1) -> None:
    """Give each point of the outer loops of a block a thread of its own, or each run of `lanes` of them; reductions run in a thread."""
    whole = fuse_all(sch, _independent(sch, name))
    if whole is None:
        return
    extent = sch.get_extent(whole)
    is_even = isinstance(extent, int) and extent % lanes == 0
    if lanes > 1 and is_even and _is_pointwise(sch, name):
        block, thread, vector = sch.split(whole, [None, threads, lanes])
        sch.vectorize(vector)
    else:
        block, thread = sch.split(whole, [None, threads])
    sch.bind(block, BLOCKS)
    sch.bind(thread, THREADS)


def _independent(sch: Schedule, name: str) -> Sequence[Var]:
    """The outermost loops of a block whose iterations are independent, those over reduce axes moved inside."""
    reduce = set(reduce_loops(sch, name))
    loops = sch.get_loops(name)
    inner = [v for v in loops if v in reduce]
    outer = [v for v in loops if v not in reduce]
    if inner and outer and loops != [*outer, *inner] and sch.why_not("reorder", *outer, *inner) is None:
        sch.reorder(*outer, *inner)
    found: list[Var] = []
    for v in sch.get_loops(name):
        if v in reduce or sch.why_not("bind", v, BLOCKS) is not None:
            break
        if found and sch.why_not("fuse", *found, v) is not None:
            break
        found.append(v)
    return found


def _is_pointwise(sch: Schedule, name: str) -> bool:
    """Whether every load is at the block's own point, so that neighbouring points load neighbours."""
    block = sch.func.blocks[name]
    own = tuple(it.var for it in block.iters)
    return not block.is_reduction and all(indices == own for _, indices in loaded(block))
