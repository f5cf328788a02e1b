"""What a schedule can tell about itself: explain, diff, estimate."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ..analysis.cost import flops, footprint, tile_registers, traffic, with_sizes
from ..analysis.regions import blocks_under, loops_around
from ..errors import ScheduleError
from ..ir.expr import Var
from ..ir.primfunc import PrimFunc
from ..ir.printer import Printer, text
from ..ir.query import free_vars
from ..target import CpuTarget, Target
from .primitives import why_not

_QUESTIONS = {"parallel": (), "vectorize": (), "unroll": (), "bind": ("threadIdx.x",)}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a kernel costs by arithmetic, before it runs.

    Attributes:
        flops: arithmetic operations.
        footprint: bytes of memory that it touches.
        traffic: bytes that move into the registers, L1 and L2 (of one core).
        registers: vector registers of the largest inner tile; available: how many the target has.
    """

    flops: int
    footprint: int
    traffic: Mapping[str, int]
    registers: int
    available: int

    def intensity(self, level: str = "L2") -> float:
        """Operations for each byte that moves into a level."""
        return self.flops / max(self.traffic[level], 1)

    def __str__(self) -> str:
        rows = [f"{self.flops / 1e6:,.2f} Mflop over {self.footprint / 1024:,.1f} KiB"]
        for level, count in self.traffic.items():
            rows.append(f"into {level:<9} {count / 1024:>14,.1f} KiB  {self.intensity(level):>8.2f} flop/byte")
        spill = "" if self.registers <= self.available else "  (the rest spills)"
        rows.append(f"inner tile     {self.registers:>10} of {self.available} vector registers{spill}")
        return "\n".join(rows)


def estimate(func: PrimFunc, target: Target, sizes: Mapping[str, int]) -> Estimate:
    """The cost of a kernel on a target.

    Args:
        sizes: values of symbolic extents, by name.

    Raises:
        ScheduleError: a symbolic extent has no value, or the target is no CPU.
    """
    if not isinstance(target, CpuTarget):
        raise ScheduleError(f"cannot estimate {func.name} for {target}", hint="the estimate is of a CPU's caches")
    missing = [v.name for v in func.dims if v.name not in sizes]
    if missing:
        raise ScheduleError(
            f"cannot estimate {func.name}", why=f"extent {missing[0]} is symbolic", hint=f"estimate({missing[0]}=1024)"
        )
    known = with_sizes(func, {v: sizes[v.name] for v in func.dims})
    levels = {
        "registers": target.num_registers * target.vector_bytes,
        "L1": target.l1_bytes,
        "L2": target.l2_bytes,
    }
    moved = {level: traffic(known, capacity) for level, capacity in levels.items()}
    touched = sum(footprint(known, known.body, ()).values())
    return Estimate(flops(known), touched, moved, tile_registers(known, target.vector_bytes), target.num_registers)


def explain(func: PrimFunc, loop: Var) -> str:
    """What a loop is, and what may be done with it, with reasons."""
    s = func.loops[loop]
    printer = Printer()
    extent = printer.expr(s.extent)
    depth = len(loops_around(func, s))
    lines = [f"loop {loop.name}: {s.thread or s.kind}, {extent} iterations, {depth} loops around it"]
    for b in blocks_under(s):
        along = [f"{it.kind} iterator {it.var.name}" for it in b.iters if loop in free_vars(it.binding)]
        lines.append(f"  block {b.name}: {', '.join(along) or 'does not depend on it, and is repeated'}")
    for name, args in _QUESTIONS.items():
        refused = why_not(func, name, loop, *args)
        verdict = "yes" if refused is None else f"no: {refused.why}"
        if refused is not None and refused.hint:
            verdict += f" (try: {refused.hint})"
        lines.append(f"  {name:<10} {verdict}")
    return "\n".join(lines)


def difference(before: PrimFunc, after: PrimFunc) -> str:
    """What changed between two states, as a unified diff of their texts."""
    lines = difflib.unified_diff(
        text(before).splitlines(), text(after).splitlines(), "before", "after", lineterm="", n=2
    )
    return "\n".join(lines)
