"""What the default rules share. Everything here works through Schedule's public methods."""

from __future__ import annotations

from math import prod

from ...analysis.regions import accesses, consumers, writes
from ...ir.expr import Buffer, Call, Expr, Var
from ...ir.node import walk
from ...ir.primfunc import PrimFunc
from ...ir.stmt import Block
from ..primitives import BlockRef
from ..schedule import Schedule

PARALLEL_SECONDS = 10e-6
"""Work on one core below which a second thread is not worth its trouble: a region costs about a microsecond while the
threads are awake, and tens of them when one must be woken."""


_COSTLY = {"exp", "exp2", "log", "log1p", "tanh", "erf", "pow", "sigmoid", "sin", "cos"}


def domain(block: Block) -> int | None:
    """Number of points of a block; None where an extent is symbolic."""
    extents = [getattr(it.extent, "value", None) for it in block.iters]
    return None if None in extents else prod(extents)


def is_output(func: PrimFunc, block: Block) -> bool:
    return any(b in func.outputs for b in writes(block))


def inline_elementwise(sch: Schedule) -> None:
    """Inline every elementwise block where that computes nothing twice.

    Into other elementwise blocks always; into a reduction where that reads each element once.
    """
    for name in list(sch.func.blocks):
        block = sch.func.blocks[name]
        if (
            block.is_reduction
            or is_output(sch.func, block)
            or sch.refusal("compute_inline", BlockRef(name)) is not None
        ):
            continue
        users = [c for b in writes(block) for c in consumers(sch.func, b)]
        into_reduction = [c for c in users if c.is_reduction]
        if into_reduction and (len(users) > 1 or domain(into_reduction[0]) != domain(block)):
            continue
        if len(users) > 1 and _is_costly(block):
            continue
        sch.compute_inline(name)


def _is_costly(block: Block) -> bool:
    """Whether the block calls a function worth computing once."""
    return any(isinstance(e, Call) and e.op in _COSTLY for e in walk(block.body))


def reductions(func: PrimFunc) -> list[str]:
    return [b.name for b in func.blocks.values() if b.is_reduction]


def final_blocks(func: PrimFunc) -> list[str]:
    """The blocks that write outputs."""
    return [b.name for b in func.blocks.values() if is_output(func, b)]


def vectorize_last(sch: Schedule, block: str, lanes: int, depth: int) -> None:
    """Vectorize the innermost loop of a block below the first `depth` loops, split to the vector width."""
    loops = sch.get_loops(block)[depth:]
    if not loops:
        return
    extent = sch.get_extent(loops[-1])
    if isinstance(extent, int) and extent <= lanes:
        inner = loops[-1]
    else:
        _, inner = sch.split(loops[-1], [None, lanes])
    if isinstance(extent, int) and extent < 2:
        return
    sch.vectorize(inner)


def fuse_all(sch: Schedule, loops: list[Var]) -> Var | None:
    """One loop of several nested ones; None of none."""
    if not loops:
        return None
    return loops[0] if len(loops) == 1 else sch.fuse(*loops)


def widest_itemsize(func: PrimFunc) -> int:
    """Bytes of the widest element that the function touches."""
    return max((b.dtype.itemsize for b in (*func.buffers, *func.allocs)), default=4)


def seconds(func: PrimFunc) -> float:
    """Time of a function on one core, roughly: multiply-adds at 60 GFLOP/s, elementary functions at one a nanosecond,
    memory at 10 GB/s, each counted apart; unknown extents count as large."""
    flops = costly = 0.0
    for b in func.blocks.values():
        points = domain(b)
        points = 1 << 20 if points is None else points
        flops += 2.0 * points
        costly += points if _is_costly(b) else 0
    return flops / 60e9 + costly * 1e-9 + sum(map(_size, func.buffers)) / 10e9


def _size(b: Buffer) -> int:
    extents = [getattr(e, "value", 1 << 10) for e in b.shape]
    return prod(extents) * b.dtype.itemsize


def is_worth_threads(func: PrimFunc, num_cores: int) -> bool:
    """Whether the loops should run in parallel."""
    return num_cores > 1 and seconds(func) >= PARALLEL_SECONDS


def loaded(block: Block) -> list[tuple[Buffer, tuple[Expr, ...]]]:
    """(buffer, indices) of what a block loads, its own accumulator left out."""
    own = set(writes(block))
    return [(a.buffer, a.indices) for a in accesses(block) if not a.is_write and a.buffer not in own]
