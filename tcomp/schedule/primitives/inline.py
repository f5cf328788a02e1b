"""Primitives that put one block's expression into another: compute_inline, reverse_compute_inline, fuse_reduction_epilogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from ...analysis.regions import accesses, consumers, producers, reads, writes
from ...ir.arith import simplify
from ...ir.expr import Add, Buffer, Call, Expr, Load, Mul, Select, Sub, Var, const
from ...ir.node import Node, rewrite, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import MAX_HEIGHT, height
from ...ir.stmt import Block, Stmt, Store, replace_statements, without_block
from .base import BlockRef, Primitive, Refusal, replace, with_body
from .patterns import movable_output, parts, pinned, spatial_index

T = TypeVar("T")


def _may_be_product(e: Expr) -> bool:
    return isinstance(e, Mul) or (isinstance(e, Select) and (_may_be_product(e.then) or _may_be_product(e.orelse)))


def _inlined(body: T, buffer: Buffer, stored: Expr, at: Callable[[Load], Expr]) -> T:
    """What reads `buffer`, with `at(load)`, an instance of the stored value, in place of each load.

    A product that a sum would read stays rounded, as it was in memory: inlining changes no bit of a result.
    """

    def addend(e: Expr) -> Expr:
        if isinstance(e, Load) and e.buffer is buffer:
            return Call("rounded", (e,), e.dtype)
        if not isinstance(e, Select):
            return e
        then, orelse = addend(e.then), addend(e.orelse)
        return e if then is e.then and orelse is e.orelse else Select(e.cond, then, orelse)

    def mark(e: object) -> object:
        if not isinstance(e, (Add, Sub)) or not e.dtype.is_float:
            return e
        a, b = addend(e.a), addend(e.b)
        return e if a is e.a and b is e.b else type(e)(a, b)

    def use(e: object) -> object:
        return at(e) if isinstance(e, Load) and e.buffer is buffer else e

    is_marked = stored.dtype.is_float and _may_be_product(stored)
    return rewrite(rewrite(body, mark) if is_marked else body, use)


def check_compute_inline(func: PrimFunc, block: BlockRef) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot inline block {b.name}"
    if b.is_reduction:
        return Refusal(what, "it is a reduction: its value is not one expression", {b: "reduction"}, "compute_at it")
    if not isinstance(b.body, Store):
        return Refusal(what, "its body is more than one store", {b: "this block"})
    buffer = movable_output(func, b, what)
    if isinstance(buffer, Refusal):
        return buffer
    if any(a.buffer is buffer for a in accesses(b) if not a.is_write):
        return Refusal(what, f"it reads the buffer {buffer.name} that it writes", {b: "this block"})
    users = consumers(func, buffer)
    if not users:
        return Refusal(what, f"nothing reads {buffer.name}", {b: "this block"})
    return next(filter(None, (_too_deep(what, b.body, c) for c in users)), None)


_height = lru_cache(maxsize=64)(height)


def _too_deep(what: str, inner: Stmt, outer: Block) -> Refusal | None:
    """Refuse an expression that passes could not walk down."""
    if _height(inner) + _height(outer.body) <= MAX_HEIGHT:
        return None
    why = f"the expression in block {outer.name} would be more than {MAX_HEIGHT} operations deep"
    return Refusal(what, why, {outer: "reads it"}, "compute_at it")


def apply_compute_inline(func: PrimFunc, block: BlockRef) -> tuple[PrimFunc, None]:
    """B[i] = f(A[i]);  C[i] = g(B[i])    becomes    C[i] = g(f(A[i]))

    >>> sch = blur(8)
    >>> sch.compute_inline("A2")
    >>> sch.show()
    def blur(A: float32[10], out S: float32[8]):
      A3 = alloc(float32[10])
      for y in range(10):
        block A3(vy over 10 = y):
          A3[vy] = A[vy] * 3.0
      for x in range(8):
        block S(vx over 8 = x):
          S[vx] = rounded(A[vx] * 2.0) + rounded(A[vx + 1] * 2.0) + rounded(A[vx + 2] * 2.0) + A3[vx]
    """
    b = func.blocks[block.name]
    store = b.body
    assert isinstance(store, Store)
    where = spatial_index(b, store.indices) or {}

    def at(e: Load) -> Expr:
        return substitute(store.value, {v: e.indices[d] for d, v in where.items()})

    def put(s: Stmt) -> Stmt:
        return _inlined(s, store.buffer, store.value, at)

    body = without_block(func.body, b)
    changed: dict[Stmt, Stmt] = {}
    for c in consumers(func, store.buffer):
        changed[c] = with_fields(c, body=put(c.body), init=None if c.init is None else put(c.init))
    body = replace_statements(body, changed)
    return with_body(func, body, allocs=tuple(x for x in func.allocs if x is not store.buffer)), None


# reverse_compute_inline


def check_reverse_compute_inline(func: PrimFunc, block: BlockRef) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot inline block {b.name} into its producer"
    mark: dict[Node, str] = {b: "this block"}
    if b.is_reduction or not isinstance(b.body, Store):
        return Refusal(what, "it is not one elementwise store", mark)
    inner = [x for x in reads(b) if x in func.allocs]
    made = [(x, p) for x in inner for p in producers(func, x)]
    if len(made) != 1:
        why = "no block" if not made else f"{len(made)} blocks"
        return Refusal(what, f"{why} of this function make what it reads", mark, "exactly one producer")
    buffer, producer = made[0]
    refusal = pinned(b, what) or pinned(producer, what)
    return refusal or _fits_producer(func, b, producer, buffer, what)


def _fits_producer(func: PrimFunc, b: Block, producer: Block, buffer: Buffer, what: str) -> Refusal | None:
    marks: dict[Node, str] = {b: "this block", producer: "its producer"}
    if producer.is_reduction:
        hint = "fuse_reduction_epilogue, or reverse_compute_at"
        return Refusal(what, f"block {producer.name} is a reduction: its result is not one expression", marks, hint)
    if not isinstance(producer.body, Store):
        return Refusal(what, f"the body of block {producer.name} is more than one store", marks)
    if consumers(func, buffer) != [b]:
        return Refusal(what, f"other blocks read {buffer.name} too", marks, "compute_inline the producer")
    deep = _too_deep(what, producer.body, b)
    if deep is not None:
        return deep
    places = [spatial_index(b, a.indices) for a in accesses(b) if a.buffer is buffer]
    place = places[0]
    if place is None or any(p != place for p in places) or len(place) != len(b.iters):
        return Refusal(what, f"it does not read {buffer.name} at all of its own iterators", marks)
    for d, v in place.items():
        extent = next(it.extent for it in b.iters if it.var is v)
        if simplify(extent - buffer.shape[d]) != const(0):
            return Refusal(what, f"it reads only a part of {buffer.name} along axis {v.name}", marks)
    order = list(func.blocks)
    for x in reads(b):
        for p in producers(func, x):
            if p is not producer and order.index(p.name) > order.index(producer.name):
                return Refusal(what, f"it also reads {x.name}, which is computed later", {**marks, p: "later"})
    target = writes(b)[0]
    others = [c for c in producers(func, target) if c is not b]
    others += [c for c in consumers(func, target) if order.index(c.name) <= order.index(b.name)]
    if others:
        return Refusal(what, f"block {others[0].name} uses {target.name} before that", {**marks, others[0]: "uses it"})
    return None


def apply_reverse_compute_inline(func: PrimFunc, block: BlockRef) -> tuple[PrimFunc, None]:
    """B[i] = f(A[i]);  C[i] = g(B[i])    becomes    C[i] = g(f(A[i])), in the loops of B

    >>> sch = matmul_relu_scale()
    >>> sch.reverse_compute_inline("E")
    >>> sch.show()
    def matmul_relu_scale(A: float32[4, 5], B: float32[5, 6], out E: float32[6, 4]):
      C = alloc(float32[4, 6])
      for i in range(4):
        for j in range(6):
          for k in range(5):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 5 = k):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
      for i_1 in range(4):
        for j_1 in range(6):
          block D(vi_1 over 4 = i_1; vj_1 over 6 = j_1):
            E[vj_1, vi_1] = max(C[vi_1, vj_1], 0.0) * 2.0
    """
    b = func.blocks[block.name]
    buffer = next(x for x in reads(b) if x in func.allocs and producers(func, x))
    (producer,) = producers(func, buffer)
    store, use = producer.body, b.body
    assert isinstance(store, Store) and isinstance(use, Store)
    read = next(a for a in accesses(b) if a.buffer is buffer)
    at = {v: store.indices[d] for d, v in (spatial_index(b, read.indices) or {}).items()}

    value = substitute(_inlined(use.value, buffer, store.value, lambda e: store.value), at)
    body = Store(use.buffer, tuple(substitute(i, at) for i in use.indices), value)
    inside = with_body(func, without_block(func.body, b), allocs=tuple(x for x in func.allocs if x is not buffer))
    return replace(inside, producer, with_fields(producer, body=body)), None


# fuse_reduction_epilogue


def _addend(b: Block, buffer: Buffer) -> Expr | None:
    """What an epilogue D[i] = C[i] + x adds."""
    value = b.body.value if isinstance(b.body, Store) else None
    if not isinstance(value, Add):
        return None
    for mine, other in ((value.a, value.b), (value.b, value.a)):
        if isinstance(mine, Load) and mine.buffer is buffer:
            return None if any(isinstance(e, Load) and e.buffer is buffer for e in walk(other)) else other
    return None


def check_fuse_reduction_epilogue(func: PrimFunc, block: BlockRef, epilogue: BlockRef) -> Refusal | None:
    b, e = func.blocks[block.name], func.blocks[epilogue.name]
    what = f"cannot fuse block {e.name} into the reduction of block {b.name}"
    marks: dict[Node, str] = {b: "the reduction", e: "the epilogue"}
    form = parts(b)
    if form is None or form.op is not Add or b.init is None:
        return Refusal(what, f"block {b.name} is not a sum with its own init", marks, "fuse before decompose_reduction")
    buffer = movable_output(func, b, what)
    if isinstance(buffer, Refusal):
        return buffer
    refusal = pinned(e, what)
    if refusal is not None:
        return refusal
    if e.is_reduction or _addend(e, buffer) is None:
        return Refusal(what, f"block {e.name} does not add to {buffer.name}[...]", marks, "reverse_compute_at it")
    if consumers(func, buffer) != [e]:
        return Refusal(what, f"other blocks read {buffer.name} too", marks)
    if any(a.buffer is writes(e)[0] for c in func.blocks.values() if c is not e for a in accesses(c) if a.is_write):
        return Refusal(what, f"{writes(e)[0].name} has other writers", marks)
    read = next(a for a in accesses(e) if a.buffer is buffer)
    place, write = spatial_index(e, read.indices), spatial_index(b, form.index)
    if place is None or len(place) != len(e.iters) or place.keys() != (write or {}).keys():
        return Refusal(what, f"the blocks do not run over the same axes of {buffer.name}", marks)
    for d, v in place.items():
        if simplify(next(it.extent for it in e.iters if it.var is v) - buffer.shape[d]) != const(0):
            return Refusal(what, f"block {e.name} covers only a part of axis {v.name}", marks)
    order = list(func.blocks)
    late = [
        p for x in reads(e) if x is not buffer for p in producers(func, x) if order.index(p.name) > order.index(b.name)
    ]
    if late:
        return Refusal(what, f"block {e.name} also reads what block {late[0].name} computes later", marks)
    return None


def apply_fuse_reduction_epilogue(func: PrimFunc, block: BlockRef, epilogue: BlockRef) -> tuple[PrimFunc, None]:
    """C[i] = 0; C[i] += x(i, k);  D[i] = C[i] + b[i]    becomes    D[i] = b[i]; D[i] += x(i, k)

    The sum starts with what the epilogue would add at its end (in floating point, another order of additions).

    >>> sch = matmul_bias(4, 6, 8)
    >>> sch.fuse_reduction_epilogue("C", "D")
    >>> sch.show()
    def matmul_bias(A: float32[4, 8], B: float32[8, 6], b: float32[6], out D: float32[4, 6]):
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                D[vi, vj] = b[vj]
              D[vi, vj] = D[vi, vj] + A[vi, vk] * B[vk, vj]
    """
    b, e = func.blocks[block.name], func.blocks[epilogue.name]
    form = parts(b)
    assert form is not None and isinstance(e.body, Store)
    buffer = form.target
    first = _addend(e, buffer)
    assert first is not None
    read = next(a for a in accesses(e) if a.buffer is buffer)
    at: dict[Var, Expr] = {v: form.index[d] for d, v in (spatial_index(e, read.indices) or {}).items()}
    target, index = e.body.buffer, tuple(substitute(i, at) for i in e.body.indices)
    update = Store(target, index, Add(Load(target, index), form.element))
    init = Store(target, index, substitute(first, at))
    body = replace_statements(without_block(func.body, e), {b: with_fields(b, body=update, init=init)})
    return with_body(func, body, allocs=tuple(x for x in func.allocs if x is not buffer)), None


COMPUTE_INLINE = Primitive("compute_inline", check_compute_inline, apply_compute_inline)
REVERSE_COMPUTE_INLINE = Primitive("reverse_compute_inline", check_reverse_compute_inline, apply_reverse_compute_inline)
FUSE_REDUCTION_EPILOGUE = Primitive(
    "fuse_reduction_epilogue", check_fuse_reduction_epilogue, apply_fuse_reduction_epilogue
)
