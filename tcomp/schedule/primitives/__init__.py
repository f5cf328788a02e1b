"""The schedule primitives, one file a family; `ALL` lists them by name.

The examples in their docstrings are run by the tests. They begin with a Schedule of a small kernel: add (B = A + 1), product
(C = A B), matmul (product, then D = max(C, 0)), matmul_bias (product, then D = C + b), blur (S from A2 = 2 A and A3 = 3 A),
matmul_relu_scale (two elementwise stages), strided, gathered, padded, quantized (uint8 x int8).
"""

from __future__ import annotations

from typing import Any

from ...analysis.dependence import carried
from ...analysis.regions import computes_places
from ...ir.primfunc import PrimFunc
from . import (
    annotate,
    blockize,
    caching,
    inline,
    layout,
    loops,
    padding,
    placement,
    reduction,
    reindex,
    sampling,
    sequence,
    storage,
)
from .annotate import crosses_threads
from .base import BlockRef, Primitive, Refusal

FAMILIES = (
    loops, sequence, annotate, placement, inline, caching, reindex, storage, reduction, padding, layout, blockize, sampling,
)  # fmt: skip

ALL: dict[str, Primitive] = {p.name: p for f in FAMILIES for p in vars(f).values() if isinstance(p, Primitive)}

_KEEP_ACCESSES = {
    "split", "fuse", "reorder", "merge", "add_unit_loop", "reorder_block_iter_var", "parallel", "vectorize", "unroll", "bind",
    "annotate", "unannotate", "pragma", "set_scope", "storage_align", "tensorize", *sampling.DRAW,
}  # fmt: skip
"""Primitives that change no access, or check the loops around it themselves."""

_KEEP_PLACES = {
    "split", "fuse", "reorder", "add_unit_loop", "parallel", "vectorize", "unroll", "annotate", "unannotate", "pragma",
    "compute_inline", *sampling.DRAW,
}  # fmt: skip
"""Primitives of kernels that store at computed places: no other knows which elements those are."""


def why_not(func: PrimFunc, name: str, *args: Any) -> Refusal | None:
    """Why a primitive may not be applied, or None.

    Besides the primitive's own check: a loop whose iterations run side by side must stay free of dependences.
    """
    primitive = ALL[name]
    scatter = next((b for b in func.blocks.values() if computes_places(b)), None)
    if scatter is not None and name not in _KEEP_PLACES:
        what, why = f"cannot {name.replace('_', ' ')} here", f"block {scatter.name} stores at computed places"
        return Refusal(
            what, why, {scatter: "here"}, f"one of {', '.join(sorted(_KEEP_PLACES))}; or a kernel of its own"
        )
    found = primitive.check(func, *args)
    special = ("parallel", "vectorized", "bound")
    if found is not None or name in _KEEP_ACCESSES or not any(s.kind in special for s in func.loops.values()):
        return found
    before = func.loops
    after = primitive.apply(func, *args)[0]
    for s in after.loops.values():
        if s.kind in special and s is not before.get(s.var):
            conflict = carried(after, s)
            if conflict is not None and not (s.thread.startswith("threadIdx") and crosses_threads(after, s)):
                what = f"cannot {name.replace('_', ' ')} here"
                why = f"loop {s.var.name} is {s.thread or s.kind}, and then {conflict.text}"
                marks = {before[s.var]: s.thread or s.kind} if s.var in before else {}
                return Refusal(what, why, marks, f"do it before loop {s.var.name} becomes {s.thread or s.kind}")
    return None


__all__ = ["ALL", "BlockRef", "Primitive", "Refusal", "why_not"]
