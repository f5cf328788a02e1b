"""Primitives on padding: pad_einsum adds it, decompose_padding takes it out of the loops."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...analysis.regions import accesses, writes
from ...analysis.sets import always
from ...ir.arith import Env, dims_env, linear, simplify
from ...ir.expr import LE, LT, Add, Buffer, Cast, Expr, Load, Mul, Select, Var, const
from ...ir.node import Node, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, conjuncts, free_vars
from ...ir.stmt import Block, For, IterVar, Stmt, Store, replace_statements, seq
from .base import (
    BlockRef,
    Primitive,
    Refusal,
    duplicate,
    fresh_buffer,
    fresh_name,
    insert_at_top,
    nest_of,
    replace,
    top_statement,
    with_body,
)
from .caching import check_cache_write
from .patterns import own_chain, own_loops, parts


def _rounded(b: Block, padding: Sequence[int]) -> dict[Var, Expr]:
    """The extents that grow: each iterator's, rounded up to a multiple of its number."""
    found = {}
    for it, p in zip(b.iters, padding):
        extent = simplify((it.extent + (p - 1)) // p * p, {})
        if simplify(extent - it.extent) != const(0):
            found[it.var] = extent
    return found


def _operands(b: Block) -> list[tuple[Buffer, tuple[Expr, ...]]]:
    own = writes(b)[0]
    return list(dict.fromkeys((a.buffer, a.indices) for a in accesses(b) if a.buffer is not own))


def _is_product(e: Expr) -> bool:
    """Whether an expression is a product of elements: 0 where one of them is."""
    if isinstance(e, Mul):
        return _is_product(e.a) and _is_product(e.b)
    return isinstance(e, Load) or (isinstance(e, Cast) and _is_product(e.value))


def check_pad_einsum(func: PrimFunc, block: BlockRef, padding: Sequence[int]) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot pad block {b.name} to multiples of {list(padding)}"
    mark: dict[Node, str] = {b: "this block"}
    if len(padding) != len(b.iters) or any(not isinstance(p, int) or p < 1 for p in padding):
        return Refusal(what, f"it takes one positive integer for each of its {len(b.iters)} iterators", mark)
    if own_loops(func, b) is None:
        return Refusal(what, "its loops are not, one by one, its iterators", mark, "pad before split and compute_at")
    form = parts(b)
    if form is None or form.op is not Add or not _is_product(form.element):
        return Refusal(what, "it is no sum of products with its own init", mark)
    grown = _rounded(b, padding)
    if not grown:
        return Refusal(what, "its extents are such multiples already", mark)
    iterators = {it.var for it in b.iters}
    for buffer, indices in [(form.target, form.index), *_operands(b)]:
        if not set(indices) <= iterators or len(set(indices)) != len(indices):
            return Refusal(what, f"it does not use {buffer.name} at its own iterators", mark, "reindex it first")
    sums = {it.var for it in b.iters if it.kind == "reduce"} & grown.keys()
    for buffer, indices in _operands(b):
        if not sums <= set(indices):
            why = f"{buffer.name} does not run along the padded reduce axes, and might hold an infinity"
            return Refusal(what, f"{why}: 0 times that is not 0", mark, "pad the spatial axes only")
    return check_cache_write(func, block, form.target, "global")


def apply_pad_einsum(func: PrimFunc, block: BlockRef, padding: Sequence[int]) -> tuple[PrimFunc, list[BlockRef]]:
    """for i in range(7): C[i] += A[i, k] * B[k]

    becomes, for multiples of 4 along i,

        for i in range(8): A_pad[i, k] = A[i, k] if i < 7 else 0
        for i in range(8): C_pad[i] += A_pad[i, k] * B[k]
        for i in range(7): C[i] = C_pad[i]

    Returns the blocks that pad and the one that copies back. Zeros add nothing to a sum of products.

    >>> sch = product(3, 4, 5)
    >>> blocks = sch.pad_einsum("C", [2, 1, 4])
    >>> sch.show()
    def product(A: float32[3, 5], B: float32[5, 4], out C: float32[3, 4]):
      A_pad = alloc(float32[4, 8])
      B_pad = alloc(float32[8, 4])
      C_pad = alloc(float32[4, 4])
      for ax0 in range(4):
        for ax1 in range(8):
          block A_pad(vax0 over 4 = ax0; vax1 over 8 = ax1):
            A_pad[vax0, vax1] = select(vax0 < 3 and vax1 < 5, A[vax0, vax1], 0.0)
      for ax0_1 in range(8):
        for ax1_1 in range(4):
          block B_pad(vax0_1 over 8 = ax0_1; vax1_1 over 4 = ax1_1):
            B_pad[vax0_1, vax1_1] = select(vax0_1 < 5, B[vax0_1, vax1_1], 0.0)
      for i in range(4):
        for j in range(4):
          for k in range(8):
            block C(vi over 4 = i; vj over 4 = j; vk reduce 8 = k):
              init:
                C_pad[vi, vj] = 0.0
              C_pad[vi, vj] = C_pad[vi, vj] + A_pad[vi, vk] * B_pad[vk, vj]
      for ax0_2 in range(3):
        for ax1_2 in range(4):
          block C_pad(vax0_2 over 3 = ax0_2; vax1_2 over 4 = ax1_2):
            C[vax0_2, vax1_2] = C_pad[vax0_2, vax1_2]
    """
    b = func.blocks[block.name]
    grown, dims = _rounded(b, padding), dims_env(func.dims)
    top = top_statement(func, b)
    before: list[Stmt] = []
    after: list[Stmt] = []
    refs: list[BlockRef] = []
    exchange: dict[Buffer, Buffer] = {}
    target = writes(b)[0]
    form = parts(b)
    assert form is not None
    index = form.index
    for buffer, indices in [*_operands(b), (target, index)]:
        if not grown.keys() & set(indices) or buffer in exchange:
            continue
        shape = tuple(grown.get(v, e) if isinstance(v, Var) else e for v, e in zip(indices, buffer.shape))
        padded = fresh_buffer(func, Buffer(buffer.name, shape, buffer.dtype), "pad")
        name = fresh_name(padded.name, {*func.blocks, *(r.name for r in refs)})
        refs.append(BlockRef(name))
        exchange[buffer] = padded
        if buffer is target:
            after.append(_copy(name, padded, buffer, buffer.shape, dims))
        else:
            before.append(_copy(name, buffer, padded, shape, dims))
    changed = substitute(b, exchange)
    iters = tuple(with_fields(it, extent=grown.get(it.var, it.extent)) for it in b.iters)
    nest: Stmt = with_fields(changed, iters=iters)
    for s in reversed(own_chain(func, b)):
        v = next(it.var for it in b.iters if it.binding is s.var)
        nest = with_fields(s, extent=grown.get(v, s.extent), body=nest)
    body = replace_statements(insert_at_top(func, top, before, after), {top: nest})
    return with_body(func, body, allocs=(*func.allocs, *exchange.values())), refs


def _copy(name: str, source: Buffer, target: Buffer, shape: Sequence[Expr], dims: Env) -> Stmt:
    """target = source over a shape, and zero where the source ends earlier."""
    iters = tuple(IterVar(Var(f"vax{d}"), e, "spatial", const(0)) for d, e in enumerate(shape))
    point = tuple(it.var for it in iters)
    inside = all_of([v < have for v, have, e in zip(point, source.shape, shape) if not always(e <= have, dims)])
    value: Expr = Load(source, point)
    if inside is not None:
        value = Select(inside, value, const(0, source.dtype))
    return nest_of(Block(name, iters, Store(target, point, value)))[0]


# decompose_padding


def _bounds(condition: Expr, iterators: Collection[Var]) -> tuple[Var, Expr | None, Expr | None] | None:
    """One of the iterators, and the least value or the end that a comparison sets it."""
    if not isinstance(condition, (LT, LE)):
        return None
    form = linear(condition.b - condition.a - (1 if isinstance(condition, LT) else 0))  # must be at least 0
    for term, c in form.terms.items():
        if isinstance(term, Var) and term in iterators and c in (1, -1):
            rest = form.without(term).expr()
            return (term, simplify(const(0) - rest), None) if c == 1 else (term, None, simplify(rest + 1))
    return None


def _inner_box(func: PrimFunc, b: Block, loop: For) -> dict[Var, tuple[Expr, Expr]] | str:
    """The part of each iterator's range that is not padding: [low, end), or why it cannot be told."""
    store = b.body
    if b.is_reduction or not isinstance(store, Store) or not isinstance(store.value, Select):
        return "it is no store of a value or a constant"
    if any(isinstance(x, Load) for x in walk(store.value.orelse)):
        return "what it pads with is no constant"
    chain = own_chain(func, b)
    if loop not in chain:
        return "the loop is not around the block alone"
    inside = {s.var: s for s in chain[chain.index(loop) :]}
    ranges: dict[Var, tuple[Expr, Expr]] = {}
    dims = dims_env(func.dims)
    for c in conjuncts(store.value.cond):
        found = _bounds(c, [it.var for it in b.iters])
        it = None if found is None else next((it for it in b.iters if it.var is found[0]), None)
        if found is None or it is None or free_vars(c) - {it.var} - set(func.dims):
            return "its condition is no range of single iterators"
        s = inside.get(it.binding) if isinstance(it.binding, Var) else None
        if s is None or simplify(s.extent - it.extent) != const(0):
            return f"no loop inside the given one runs over all of iterator {it.var.name}"
        if any(s.var in free_vars(x) for x in [b.where, *(o.binding for o in b.iters if o is not it)] if x is not None):
            return f"loop {s.var.name} has other uses"
        low, end = ranges.get(it.var, (const(0), it.extent))
        if found[1] is not None and not always(found[1] <= low, dims):
            low, known = found[1], always(low <= found[1], dims)
        elif found[2] is not None and not always(end <= found[2], dims):
            end, known = found[2], always(found[2] <= end, dims)
        else:
            known = True
        if not known:
            return f"it is not certain where the padding of iterator {it.var.name} ends"
        ranges[it.var] = (low, end)
    if any(always(end <= low, dims) for low, end in ranges.values()):
        return "all of it is padding"
    if not all(always(low <= end, dims) for low, end in ranges.values()):
        return "it is not certain that the padding leaves anything"
    return ranges


def check_decompose_padding(func: PrimFunc, block: BlockRef, loop: Var) -> Refusal | None:
    b, s = func.blocks[block.name], func.loops[loop]
    found = _inner_box(func, b, s)
    if isinstance(found, str):
        return Refusal(f"cannot decompose the padding of block {b.name} at loop {loop.name}", found, {b: "this block"})
    vector = next((x for x in own_chain(func, b) if x.kind != "serial"), None)
    if vector is not None:
        what = f"cannot decompose the padding of block {b.name} at loop {loop.name}"
        return Refusal(what, f"loop {vector.var.name} is {vector.kind}", {vector: vector.kind}, "do it before that")
    return None


def apply_decompose_padding(func: PrimFunc, block: BlockRef, loop: Var) -> tuple[PrimFunc, BlockRef]:
    """for i in range(n + 2): P[i] = A[i - 1] if 1 <= i <= n else 0

    becomes

        for i in range(n + 2): P[i] = 0
        for i in range(n): P[i + 1] = A[i]

    so that the copy has no conditions. Returns the block that fills.

    >>> sch = padded(6)
    >>> (i,) = sch.get_loops("P")
    >>> fill = sch.decompose_padding("P", i)
    >>> sch.show()
    def padded(A: float32[6], out S: float32[6]):
      P = alloc(float32[8])
      for i in range(8):
        block P_pad(vi over 8 = i):
          P[vi] = 0.0
      for i_1 in range(6):
        block P(vi_1 over 8 = i_1 + 1):
          P[vi_1] = A[vi_1 - 1]
      for i_2 in range(6):
        block S(vi_2 over 6 = i_2):
          S[vi_2] = P[vi_2] + P[vi_2 + 2]
    """
    b, s = func.blocks[block.name], func.loops[loop]
    ranges = _inner_box(func, b, s)
    assert isinstance(ranges, dict) and isinstance(b.body, Store) and isinstance(b.body.value, Select)
    taken = set(func.blocks) - {b.name}
    name = fresh_name(f"{b.name}_pad", func.blocks)
    constant = with_fields(b, name=name, body=with_fields(b.body, value=b.body.value.orelse))
    fill = duplicate(replace_statements(s, {b: constant}), taken)
    iters = tuple(
        with_fields(it, binding=simplify(it.binding + ranges[it.var][0])) if it.var in ranges else it for it in b.iters
    )
    copy: Stmt = with_fields(b, iters=iters, body=with_fields(b.body, value=b.body.value.then))
    chain = own_chain(func, b)
    for x in reversed(chain[chain.index(s) :]):
        v = next((it.var for it in b.iters if it.binding is x.var and it.var in ranges), None)
        extent = x.extent if v is None else simplify(ranges[v][1] - ranges[v][0])
        copy = with_fields(x, extent=extent, body=copy)
    return replace(func, s, seq([fill, copy])), BlockRef(name)


PAD_EINSUM = Primitive("pad_einsum", check_pad_einsum, apply_pad_einsum)
DECOMPOSE_PADDING = Primitive("decompose_padding", check_decompose_padding, apply_decompose_padding)
