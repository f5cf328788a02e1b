"""What the CPU's rules share: how much work a kernel is, and steps that several of them take."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ....analysis.regions import consumers, writes
from ....ir.expr import Buffer
from ....ir.primfunc import PrimFunc
from ....ir.query import as_int
from ....target import CpuTarget
from ...library import domain_size, is_costly, is_output
from ...schedule import Schedule


@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel has to do; unknown extents count as large.

    Attributes:
        points: iterations of all blocks; functions: calls of elementary functions; nbytes: of the operands.
    """

    points: int
    functions: int
    nbytes: int

    @staticmethod
    def of(func: PrimFunc) -> Work:
        """The work of a kernel."""
        total = functions = 0
        for b in func.blocks.values():
            known = domain_size(b)
            count = 1 << 20 if known is None else known
            total += count
            functions += count if is_costly(b) else 0
        return Work(total, functions, sum(map(nbytes, func.buffers)))

    def seconds(self, target: CpuTarget) -> float:
        """Its time on one core, roughly: multiply-adds, elementary functions and memory, each counted apart."""
        costs = target.costs
        arithmetic = 2.0 * self.points / costs.flops
        return arithmetic + self.functions * costs.function_seconds + self.nbytes / costs.memory_bytes

    def is_worth_threads(self, target: CpuTarget) -> bool:
        """Whether the loops should run in parallel."""
        return target.num_cores > 1 and self.seconds(target) >= target.costs.parallel_seconds


def nbytes(b: Buffer) -> int:
    """Bytes of a buffer; unknown extents count as large."""
    extents = [as_int(e, 1 << 10) for e in b.shape]
    return prod(extents) * b.dtype.itemsize


def reductions(func: PrimFunc) -> list[str]:
    """The blocks that reduce."""
    return [b.name for b in func.blocks.values() if b.is_reduction]


def final_blocks(func: PrimFunc) -> list[str]:
    """The blocks that write outputs."""
    return [b.name for b in func.blocks.values() if is_output(func, b)]


def widest_itemsize(func: PrimFunc) -> int:
    """Bytes of the widest element that the function touches."""
    return max((b.dtype.itemsize for b in (*func.buffers, *func.allocs)), default=4)


def keep_local(sch: Schedule, reduction: str) -> str:
    """Keep a reduction's result in local memory; the block that writes it back, or what follows it."""
    block = sch.func.blocks[reduction]
    if is_output(sch.func, block):
        return sch.cache_write(reduction, 0, "local").name
    sch.set_scope(reduction, 0, "local")
    return consumers(sch.func, writes(sch.func.blocks[reduction])[0])[0].name
