"""Primitives that say how a loop runs, and free annotations."""

from __future__ import annotations

from typing import Any

from ...analysis.dependence import carried
from ...analysis.regions import blocks_under, loops_around
from ...ir.expr import Const, Var
from ...ir.node import with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import For, LoopKind, walk_statements
from .base import BlockRef, Primitive, Refusal, replace

MAX_LANES = 1024
MAX_UNROLL = 4096


def _reduction_of(s: For) -> tuple[Any, str] | None:
    for block in blocks_under(s.body):
        for it in block.iters:
            if it.kind == "reduce" and s.var in free_vars(it.binding):
                return block, it.var.name
    return None


def _independent(func: PrimFunc, loop: Var, verb: str, hint: str) -> Refusal | None:
    """Refuse where the iterations of the loop are not independent."""
    s = func.loops[loop]
    what = f"cannot {verb} loop {loop.name}"
    if s.kind != "serial":
        return Refusal(what, f"it is already {s.kind}", {s: s.kind})
    conflict = carried(func, s)
    if conflict is None:
        return None
    reduction = _reduction_of(s)
    if reduction is not None:
        block, _ = reduction
        return Refusal(
            f"{what} of block {block.name}",
            f"it carries a reduction: {conflict.text}",
            {s: f"reduction axis of {block.name}"},
            hint,
        )
    return Refusal(what, conflict.text, {s: "its iterations depend on one another", conflict.sink: "here"}, hint)


def check_parallel(func: PrimFunc, loop: Var) -> Refusal | None:
    s = func.loops[loop]
    refusal = _independent(func, loop, "parallelize", "parallelize a loop over a spatial axis")
    if refusal is not None:
        return refusal
    vector = next((x for x in loops_around(func, s) if x.kind == "vectorized"), None)
    if vector is not None:
        return Refusal(
            f"cannot parallelize loop {loop.name}", "it runs inside a vectorized loop", {vector: "vectorized"}
        )
    return None


def check_vectorize(func: PrimFunc, loop: Var) -> Refusal | None:
    s = func.loops[loop]
    what = f"cannot vectorize loop {loop.name}"
    if not isinstance(s.extent, Const):
        return Refusal(what, "its extent is symbolic", {s: "unknown extent"}, "split it by the vector width first")
    if s.extent.value > MAX_LANES:
        return Refusal(
            what,
            f"{s.extent.value} lanes are more than {MAX_LANES}",
            {s: "too wide"},
            f"split({loop.name}, [None, 16])",
        )
    inner = next(
        (x for x in walk_statements(s.body) if isinstance(x, For) and x.kind != "serial" and x.kind != "unrolled"), None
    )
    outer = next((x for x in loops_around(func, s) if x.kind == "vectorized"), None)
    other = inner if inner is not None else outer
    if other is not None:
        return Refusal(what, f"{other.kind} loop {other.var.name} is nested with it", {s: "this", other: other.kind})
    hint = "vectorize a loop over a spatial axis"
    refusal = _independent(func, loop, "vectorize", hint)
    reduction = _reduction_of(s)
    if refusal is None and reduction is not None:
        # at most one iteration does anything, but lanes that add to one element have no vector form
        return Refusal(what, f"it runs over a reduce axis of block {reduction[0].name}", {s: "reduction axis"}, hint)
    return refusal


def check_unroll(func: PrimFunc, loop: Var) -> Refusal | None:
    s = func.loops[loop]
    what = f"cannot unroll loop {loop.name}"
    if s.kind != "serial":
        return Refusal(what, f"it is already {s.kind}", {s: s.kind})
    if not isinstance(s.extent, Const):
        return Refusal(what, "its extent is symbolic", {s: "unknown extent"}, "split it by a constant first")
    if s.extent.value > MAX_UNROLL:
        return Refusal(what, f"{s.extent.value} copies are more than {MAX_UNROLL}", {s: "too long"}, "split it first")
    return None


def _set_kind(kind: LoopKind) -> Any:
    def apply(func: PrimFunc, loop: Var) -> tuple[PrimFunc, None]:
        s = func.loops[loop]
        return replace(func, s, with_fields(s, kind=kind)), None

    return apply


def check_annotate(func: PrimFunc, target: Var | BlockRef, key: str, value: Any) -> Refusal | None:
    what = f"cannot annotate with {key!r}"
    if not key.isidentifier():
        return Refusal(what, "a key is an identifier")
    if not isinstance(value, (bool, int, float, str)):
        return Refusal(what, f"a value is a bool, number or string, got {type(value).__name__}")
    return None


def apply_annotate(func: PrimFunc, target: Var | BlockRef, key: str, value: Any) -> tuple[PrimFunc, None]:
    """Attach `key=value` to a loop or block, for the code generator or for people."""
    s = func.blocks[target.name] if isinstance(target, BlockRef) else func.loops[target]
    return replace(func, s, with_fields(s, annotations=s.annotations.with_(**{key: value}))), None


PARALLEL = Primitive("parallel", check_parallel, _set_kind("parallel"))
VECTORIZE = Primitive("vectorize", check_vectorize, _set_kind("vectorized"))
UNROLL = Primitive("unroll", check_unroll, _set_kind("unrolled"))
ANNOTATE = Primitive("annotate", check_annotate, apply_annotate)
