"""What the default rules share: how much work a kernel is. What they do to it is in `tcomp.schedule.library`."""

from __future__ import annotations

from math import prod

from ....analysis.regions import consumers, writes
from ....ir.expr import Buffer
from ....ir.primfunc import PrimFunc
from ...library import is_costly, is_output, points
from ...schedule import Schedule

PARALLEL_SECONDS = 10e-6
"""Work on one core below which a second thread is not worth its trouble: a region costs about a microsecond while the
threads are awake, and tens of them when one must be woken."""


def reductions(func: PrimFunc) -> list[str]:
    return [b.name for b in func.blocks.values() if b.is_reduction]


def final_blocks(func: PrimFunc) -> list[str]:
    """The blocks that write outputs."""
    return [b.name for b in func.blocks.values() if is_output(func, b)]


def widest_itemsize(func: PrimFunc) -> int:
    """Bytes of the widest element that the function touches."""
    return max((b.dtype.itemsize for b in (*func.buffers, *func.allocs)), default=4)


def seconds(func: PrimFunc) -> float:
    """Time of a function on one core, roughly: multiply-adds at 60 GFLOP/s, elementary functions at one a nanosecond,
    memory at 10 GB/s, each counted apart; unknown extents count as large."""
    flops = costly = 0.0
    for b in func.blocks.values():
        count = points(b)
        count = 1 << 20 if count is None else count
        flops += 2.0 * count
        costly += count if is_costly(b) else 0
    return flops / 60e9 + costly * 1e-9 + sum(map(nbytes, func.buffers)) / 10e9


def nbytes(b: Buffer) -> int:
    """Bytes of a buffer; unknown extents count as large."""
    extents = [getattr(e, "value", 1 << 10) for e in b.shape]
    return prod(extents) * b.dtype.itemsize


def is_worth_threads(func: PrimFunc, num_cores: int) -> bool:
    """Whether the loops should run in parallel."""
    return num_cores > 1 and seconds(func) >= PARALLEL_SECONDS


def keep_local(sch: Schedule, reduction: str) -> str:
    """Keep a reduction's result in local memory; the block that writes it back, or what follows it."""
    block = sch.func.blocks[reduction]
    if is_output(sch.func, block):
        return sch.cache_write(reduction, 0, "local").name
    sch.set_scope(reduction, 0, "local")
    return consumers(sch.func, writes(sch.func.blocks[reduction])[0])[0].name


def inline_into_output(sch: Schedule, name: str) -> str:
    """Inline a block into the elementwise ones that follow it, up to the output; the block that writes that."""
    while not is_output(sch.func, sch.func.blocks[name]):
        following = consumers(sch.func, writes(sch.func.blocks[name])[0])[0].name
        sch.compute_inline(name)
        name = following
    return name
