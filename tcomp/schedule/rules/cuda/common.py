"""What the GPU's rules share: how elements of a stage are spread over threads."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ....analysis.regions import consumers, producers, reads, writes
from ....ir.expr import Var
from ....ir.query import as_int, free_vars
from ....target.cuda import GRID_YZ
from ...library import fuse_all, is_costly, is_output, loaded, reduce_loops
from ...primitives import BlockRef
from ...schedule import Schedule

BLOCKS, THREADS = "blockIdx.x", "threadIdx.x"
GRID = ("blockIdx.x", "blockIdx.y", "blockIdx.z")
WIDEST = 16
"""Bytes of the widest access to memory."""


def grid_of(sch: Schedule, loops: Sequence[Var]) -> list[Var]:
    """At most three loops of nested ones, for the axes z, y, x of a grid: the last two stay, those before them become one. All become one where
    y or z might be longer than a grid can be."""
    extents = [sch.get_extent(v) for v in loops]
    known = [e if isinstance(e, int) else GRID_YZ + 1 for e in extents]
    is_short = all(n <= GRID_YZ for n in (prod(known[:-2]), *known[-2:-1]))
    rest = loops[:-2] if is_short else loops
    first = fuse_all(sch, rest)
    return ([] if first is None else [first]) + list(loops[len(rest) :])


def spread(sch: Schedule, name: str, threads: int, lanes: int = 1) -> set[str]:
    """Give each point of the outer loops of a block a thread of its own, or each run of `lanes` of them along the last axes, if these are made of
    such runs. A reduction runs in a thread, in registers, and what follows it element by element goes along.

    Returns:
        The names of the blocks of the launch.
    """
    block = sch.func.blocks[name]
    if not block.is_reduction or any(b is not block for b in producers(sch.func, writes(block)[0])):
        _to_threads(sch, name, threads, lanes)
        return {name}
    last = write_back(sch, name)
    thread = _to_threads(sch, last, threads, lanes)
    if thread is None or sch.why_not("compute_at", BlockRef(name), thread) is not None:
        _to_threads(sch, name, threads, lanes)
        return {name, last}
    sch.compute_at(name, thread)
    loops = sch.get_loops(name)
    reduce = reduce_loops(sch, name)
    vector = [v for v in loops[loops.index(thread) + 1 :] if v not in reduce]
    if vector and reduce:
        sch.reorder(*reduce, *vector)
    for v in vector:
        sch.vectorize(v) if v is vector[-1] and sch.get_extent(v) != 1 else sch.unroll(v)
    return {name, last, *([sch.decompose_reduction(name, reduce[0]).name] if reduce else [])}


def inline_cheap(sch: Schedule, names: Sequence[str]) -> None:
    """Compute what reductions read where they read it, such as the border around an image, unless that calls a function. Before anything is
    bound."""
    for buffer in [b for name in names if sch.func.blocks[name].is_reduction for b in reads(sch.func.blocks[name])]:
        for made in producers(sch.func, buffer):
            is_fine = not made.is_reduction and not is_costly(made) and len(consumers(sch.func, buffer)) == 1
            if is_fine and sch.why_not("compute_inline", BlockRef(made.name)) is None:
                sch.compute_inline(made.name)


def _to_threads(sch: Schedule, name: str, threads: int, lanes: int) -> Var | None:
    """Bind the outer loops of a block; the innermost of those that are bound."""
    own = list(_independent(sch, name))
    vector = _run(sch, name, own, lanes) if own and lanes > 1 else None
    whole = fuse_all(sch, own)
    if whole is None:
        return None
    block, thread = sch.split(whole, [None, threads])
    sch.bind(block, BLOCKS)
    sch.bind(thread, THREADS)
    if vector is not None and sch.why_not("vectorize", vector) is None:
        sch.vectorize(vector)
    return thread


def write_back(sch: Schedule, name: str) -> str:
    """Keep a reduction's result in registers; the block that writes it back, with what follows element by element if that has the same
    axes."""
    block = sch.func.blocks[name]
    if not is_output(sch.func, block):
        users = consumers(sch.func, writes(block)[0])
        if len(users) == 1 and not users[0].is_reduction:
            extents = [[it.extent for it in b.spatial] for b in (block, users[0])]
            made = writes(block)[0]
            own = [it.var for it in users[0].spatial if as_int(it.extent) != 1]
            reads = [[x for x, e in zip(i, b.shape) if as_int(e) != 1] for b, i in loaded(users[0]) if b is made]
            if extents[0] == extents[1] and all(i == own for i in reads):
                sch.set_scope(name, 0, "local")
                return users[0].name
    return sch.cache_write(name, 0, "local").name


def _run(sch: Schedule, name: str, own: list[Var], lanes: int) -> Var | None:
    """Split runs of neighbours off the last of the loops, the last two as one where that is short; None where they do not come out even."""
    if not _is_last_axis(sch, name, own[-1]):
        return None
    extents = [sch.get_extent(v) for v in own]
    last = extents[-1]
    if isinstance(last, int) and last < lanes and len(own) > 1 and isinstance(extents[-2], int):
        last *= extents[-2]
        own[-2:] = [sch.fuse(*own[-2:])]
    if not isinstance(last, int) or last % lanes:
        return None
    own[-1], vector = sch.split(own[-1], [None, lanes])
    inner = sch.get_loops(name)
    inner = inner[inner.index(vector) + 1 :]
    if inner and sch.why_not("reorder", *inner, vector) is None:
        sch.reorder(*inner, vector)
    return vector


def _is_last_axis(sch: Schedule, name: str, loop: Var) -> bool:
    """Whether a loop runs along the axis whose elements are neighbours in the block's result."""
    block = sch.func.blocks[name]
    last = writes(block)[0].shape
    return bool(last) and bool(block.spatial) and loop in free_vars(block.spatial[-1].binding)


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
