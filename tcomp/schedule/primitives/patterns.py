"""Forms of blocks that primitives recognise."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.regions import accesses, loops_around, producers, writes
from ...dtype import DType
from ...ir.arith import simplify
from ...ir.expr import LT, Add, BinaryExpr, Buffer, Const, Expr, Load, Max, Min, Mul, Var, const
from ...ir.node import Node, walk
from ...ir.primfunc import PrimFunc
from ...ir.query import conjuncts, is_const
from ...ir.stmt import Block, For, Stmt, Store
from .base import Refusal


def own_chain(func: PrimFunc, b: Block) -> list[For]:
    """The loops directly around a block that hold nothing else, outermost first."""
    found: list[For] = []
    inner: Stmt = b
    for s in reversed(loops_around(func, b)):
        if s.body is not inner:
            break
        found.insert(0, s)
        inner = s
    return found


def own_loops(func: PrimFunc, b: Block) -> dict[Var, For] | None:
    """The loop that each iterator is; None unless the block stands alone in a nest of exactly its iterators' loops."""
    around = own_chain(func, b)
    by_var = {s.var: s for s in around}
    if len(loops_around(func, b)) != len(around) or b.where is not None:
        return None
    found: dict[Var, For] = {}
    for it in b.iters:
        s = by_var.pop(it.binding, None) if isinstance(it.binding, Var) else None
        if s is None and not (is_const(it.binding, 0) and is_const(it.extent, 1)):
            return None
        if s is not None:
            if simplify(s.extent - it.extent) != Const(0, it.var.dtype):
                return None
            found[it.var] = s
    return None if by_var else found


def runs_once(b: Block, s: For) -> bool:
    """Whether a loop around a block runs it in one iteration at most: the tail of a split of an axis of extent 1 does."""
    return is_const(s.extent, 1) or any(
        isinstance(c, LT) and c.a is s.var and is_const(c.b, 1) for c in conjuncts(b.where)
    )


def only_output(block: Block) -> Buffer | None:
    written = writes(block)
    return written[0] if len(written) == 1 else None


def spatial_index(block: Block, indices: tuple[Expr, ...], or_reduce: bool = False) -> dict[int, Var] | None:
    """Which spatial iterator each dimension of an index is; None unless each is a different one or the constant 0.

    Args:
        or_reduce: reduce iterators will do as well.
    """
    spatial = {it.var for it in block.iters if it.kind == "spatial" or or_reduce}
    found: dict[int, Var] = {}
    for d, index in enumerate(indices):
        if is_const(index, 0):
            continue
        if index not in spatial or index in found.values():
            return None
        found[d] = index
    return found


def pinned(b: Block, what: str) -> Refusal | None:
    """Refuse to move a block that uses a buffer whose elements take one value after another."""
    ring = next((a.buffer for a in accesses(b) if a.buffer.reused), None)
    if ring is None:
        return None
    why = f"it uses {ring.name}, whose elements are overwritten as the loops go on"
    return Refusal(what, why, {b: "this block"}, "do it before rolling_buffer or double_buffer")


def movable_output(func: PrimFunc, block: Block, what: str) -> Refusal | Buffer:
    """The one intermediate buffer that a block alone writes, at its own spatial iterators."""
    buffer = only_output(block)
    mark: dict[Node, str] = {block: "this block"}
    if buffer is None:
        return Refusal(what, "it writes several buffers", mark)
    if buffer not in func.allocs:
        return Refusal(
            what, f"it writes {buffer.name}, an output of the function", mark, f"cache_write({block.name}) first"
        )
    refusal = pinned(block, what)
    if refusal is not None:
        return refusal
    others = [b for b in producers(func, buffer) if b is not block]
    if others:
        return Refusal(
            what, f"block {others[0].name} writes {buffer.name} as well", {**mark, others[0]: "also writes it"}
        )
    for a in accesses(block):
        if a.is_write and spatial_index(block, a.indices) is None:
            return Refusal(what, f"it does not write {buffer.name} at its own spatial iterators", mark)
    return buffer


@dataclass(frozen=True, slots=True)
class Parts:
    """A reduction of the form target[index] = op(target[index], element), where the element does not read the target."""

    op: type[BinaryExpr]
    target: Buffer
    index: tuple[Expr, ...]
    element: Expr


def parts(b: Block) -> Parts | None:
    s = b.body
    if not isinstance(s, Store) or not isinstance(s.value, (Add, Mul, Min, Max)) or not isinstance(b.init, Store):
        return None
    held = Load(s.buffer, s.indices)
    for mine, other in ((s.value.a, s.value.b), (s.value.b, s.value.a)):
        if mine == held and not any(isinstance(x, Load) and x.buffer is s.buffer for x in walk(other)):
            return Parts(type(s.value), s.buffer, s.indices, other)
    return None


def neutral(op: type[BinaryExpr], dtype: DType) -> Const:
    """The element that changes nothing in a combination."""
    values = {Add: 0, Mul: 1, Min: dtype.highest, Max: dtype.lowest}
    return const(values[op], dtype)


def starts_neutral(b: Block) -> bool:
    """Whether a reduction starts with the neutral element, and not with something to add."""
    form = parts(b)
    return form is not None and isinstance(b.init, Store) and b.init.value == neutral(form.op, form.target.dtype)


def tensorized(func: PrimFunc) -> list[Block]:
    """The blocks that an instruction stands for: their operands must keep their layout."""
    return [b for b in func.blocks.values() if "tensor_intrin" in b.annotations]
