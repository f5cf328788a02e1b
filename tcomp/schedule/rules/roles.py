"""Kernels whose stages have roles: what rules for certain operators find them by, on every target."""

from __future__ import annotations

from ...analysis.regions import consumers, writes
from ...ir.primfunc import PrimFunc
from ..library import is_output
from ..schedule import Schedule


def has_role(func: PrimFunc, role: str) -> bool:
    """Whether a stage of the kernel has a role (see `te.compute`)."""
    return any(b.annotations.get("role") == role for b in func.blocks.values())


def by_role(kernel: PrimFunc | Schedule, role: str) -> str:
    """The name of the block that has a role."""
    func = kernel.func if isinstance(kernel, Schedule) else kernel
    return next(b.name for b in func.blocks.values() if b.annotations.get("role") == role)


def inline_into_output(sch: Schedule, name: str) -> str:
    """Inline a block into the elementwise ones that follow it, up to the output; the block that writes that."""
    pending, last = [name], name
    while pending:
        last = pending.pop(0)
        if not is_output(sch.func, sch.func.blocks[last]):
            following = [c.name for b in writes(sch.func.blocks[last]) for c in consumers(sch.func, b)]
            sch.compute_inline(last)
            pending += [n for n in following if n not in pending]
    return last
