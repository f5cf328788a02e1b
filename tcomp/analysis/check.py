"""All that is checked of a kernel in verify mode."""

from __future__ import annotations

from ..errors import VerifyError
from ..ir.expr import Load
from ..ir.node import walk
from ..ir.primfunc import PrimFunc
from ..ir.printer import excerpt, text
from ..ir.verify import verify
from .bounds import accesses_outside


def check(func: PrimFunc) -> None:
    """Check that a kernel is well formed, and that its accesses lie inside their buffers.

    Places that a schedule keeps in memory (cache_index) cannot be proved; the interpreter watches these.

    Raises:
        VerifyError: it is not; the excerpt marks the place.
    """
    verify(func)
    for bad in accesses_outside(func):
        if any(isinstance(x, Load) and x.buffer in func.allocs for x in walk(bad.indices[bad.axis])):
            continue
        index, extent = text(bad.indices[bad.axis]), text(bad.buffer.shape[bad.axis])
        raise VerifyError(
            f"{func.name}: {bad.block.name} accesses {bad.buffer.name} outside its {extent} elements of axis {bad.axis}, at {index}",
            excerpt=excerpt(func, {bad.block: "this block"}),
        )
