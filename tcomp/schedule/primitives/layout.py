"""Primitives that rearrange a buffer or a block's iteration: transform_layout, transform_block_layout,
reorder_block_iter_var."""

from __future__ import annotations

from collections.abc import Sequence

from ...analysis.maps import covers, image_extents, inverse, is_injective
from ...analysis.regions import accesses, loops_around, producers
from ...analysis.sets import NotAffineError
from ...ir.arith import dims_env, loop_range, simplify
from ...ir.expr import Buffer, Const, Expr, Load, Var, const
from ...ir.index_map import IndexMap
from ...ir.node import Node, rewrite, substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import Block, IterVar, Stmt, Store
from .base import (
    BlockRef,
    Primitive,
    Refusal,
    fresh_name,
    insert_at_top,
    nest_of,
    replace,
    top_statement,
    with_body,
)
from .patterns import own_loops, tensorized


def _ranges(index_map: IndexMap, shape: Sequence[Expr]) -> dict[Var, tuple[Expr, Expr]]:
    return {v: loop_range(e) for v, e in zip(index_map.params, shape)}


def _map_refusal(func: PrimFunc, index_map: IndexMap, shape: Sequence[Expr], what: str, mark: dict) -> Refusal | None:
    if len(index_map.params) != len(shape):
        return Refusal(what, f"the map takes {len(index_map.params)} indices, not {len(shape)}", mark)
    domain = _ranges(index_map, shape)
    if image_extents(index_map.exprs, domain, dims_env(func.dims)) is None:
        return Refusal(what, "the map has no bounds, or goes below 0", mark)
    try:
        if not is_injective(index_map.exprs, domain, func.dims):
            return Refusal(what, "the map sends two indices to one", mark, "a map that can be undone")
    except NotAffineError as error:
        return Refusal(what, f"the map is not affine ({error}), so nothing can be proved about it", mark)
    return None


def check_transform_layout(
    func: PrimFunc, block: BlockRef, buffer: Buffer, index_map: IndexMap, pad_value: float | int | None = None
) -> Refusal | None:
    what = f"cannot change the layout of {buffer.name}"
    mark: dict[Node, str] = {buffer: "this buffer"}
    if buffer not in func.allocs:
        hint = "cache_read or cache_write it, and change the copy's layout"
        return Refusal(what, "it is a parameter: its layout is the caller's", mark, hint)
    if buffer.stride_rules:
        return Refusal(what, "its strides are aligned for the present layout", mark, "storage_align after it")
    user = next((b for b in tensorized(func) if any(a.buffer is buffer for a in accesses(b))), None)
    if user is not None:
        return Refusal(what, f"block {user.name} is tensorized for the present layout", {user: "tensorized"})
    if pad_value is not None and (isinstance(pad_value, bool) or not isinstance(pad_value, (int, float))):
        return Refusal(what, f"a padding value is a number, got {pad_value!r}", mark)
    if pad_value is not None and buffer.dtype.is_int and int(pad_value) != pad_value:
        return Refusal(what, f"{buffer.dtype} does not hold {pad_value!r}", mark)
    return _map_refusal(func, index_map, buffer.shape, what, mark)


def apply_transform_layout(
    func: PrimFunc, block: BlockRef, buffer: Buffer, index_map: IndexMap, pad_value: float | int | None = None
) -> tuple[PrimFunc, BlockRef | None]:
    """B[i, j]    becomes    B[j // 16, i, j % 16], wherever it is read or written, for that map

    Where the new shape has more elements, nothing touches the padding; with `pad_value` a block fills it, before the first
    writer. Returns that block, or None where there is no padding to fill.

    >>> sch = matmul(4, 6, 8)
    >>> sch.transform_layout("C", 0, lambda i, j: (j // 2, i, j % 2))
    >>> sch.show()
    def matmul(A: float32[4, 8], B: float32[8, 6], out D: float32[4, 6]):
      C = alloc(float32[3, 4, 2])
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vj // 2, vi, vj % 2] = 0.0
              C[vj // 2, vi, vj % 2] = C[vj // 2, vi, vj % 2] + A[vi, vk] * B[vk, vj]
      for i_1 in range(4):
        for j_1 in range(6):
          block D(vi_1 over 4 = i_1; vj_1 over 6 = j_1):
            D[vi_1, vj_1] = max(C[vj_1 // 2, vi_1, vj_1 % 2], 0.0)
    """
    domain = _ranges(index_map, buffer.shape)
    env = dims_env(func.dims)
    extents = image_extents(index_map.exprs, domain, env)
    assert extents is not None
    new = with_fields(buffer, shape=extents)

    def move(x: object) -> object:
        if isinstance(x, (Load, Store)) and x.buffer is buffer:
            indices = tuple(simplify(e, env) for e in index_map(x.indices))
            return with_fields(x, buffer=new, indices=indices)
        return x

    allocs = tuple(new if x is buffer else x for x in func.allocs)
    moved = with_body(func, rewrite(func.body, move), allocs=allocs)
    if pad_value is None or covers(index_map.exprs, domain, extents, func.dims):
        return moved, None
    name = fresh_name(f"{buffer.name}_pad", func.blocks)
    iters = tuple(IterVar(Var(f"vax{d}"), e, "spatial", const(0)) for d, e in enumerate(extents))
    point = tuple(it.var for it in iters)
    fill = Block(name, iters, Store(new, point, const(pad_value, buffer.dtype)))
    first = producers(moved, new)[0]
    body = insert_at_top(moved, top_statement(moved, first), [nest_of(fill)[0]])
    return with_body(moved, body), BlockRef(name)


def check_transform_block_layout(func: PrimFunc, block: BlockRef, index_map: IndexMap) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot change the iteration of block {b.name}"
    mark: dict[Node, str] = {b: "this block"}
    if own_loops(func, b) is None:
        why = "its loops are not, one by one, its iterators"
        return Refusal(what, why, mark, "transform_block_layout before split, fuse or compute_at")
    special = next((s for s in loops_around(func, b) if s.kind != "serial"), None)
    if special is not None:
        return Refusal(what, f"loop {special.var.name} is {special.kind}", {special: special.kind}, "do it before that")
    if any(not isinstance(it.extent, Const) for it in b.iters):
        return Refusal(what, "an extent is symbolic", mark, "split and fuse its loops")
    refusal = _map_refusal(func, index_map, [it.extent for it in b.iters], what, mark)
    if refusal is not None:
        return refusal
    kinds = dict(zip(index_map.params, (it.kind for it in b.iters)))
    if any(len({kinds[v] for v in free_vars(e)}) != 1 for e in index_map.exprs):
        return Refusal(what, "an axis of the map mixes spatial and reduce iterators, or depends on none", mark)
    domain = _ranges(index_map, [it.extent for it in b.iters])
    extents = image_extents(index_map.exprs, domain, {})
    assert extents is not None
    if not covers(index_map.exprs, domain, extents):
        return Refusal(what, "the map leaves gaps between its values", mark, "factors that divide the extents")
    if inverse(index_map.exprs, domain, [Var("x") for _ in extents]) is None:
        return Refusal(what, "no one expression undoes the map", mark)
    if b.init is not None and not _zero_stays_zero(b, index_map):
        return Refusal(what, "the first iteration of the reduction would not stay the first", mark)
    return None


def _zero_stays_zero(b: Block, index_map: IndexMap) -> bool:
    """Whether the reduce iterators are 0 exactly where the new ones are: there the init runs."""
    zero = {v: const(0) for v in index_map.params}
    return all(simplify(substitute(e, zero)) == const(0) for e in index_map.exprs if _is_reduce(b, index_map, e))


def _is_reduce(b: Block, index_map: IndexMap, e: Expr) -> bool:
    reduce = {p for p, it in zip(index_map.params, b.iters) if it.kind == "reduce"}
    return bool(free_vars(e) & reduce)


def apply_transform_block_layout(func: PrimFunc, block: BlockRef, index_map: IndexMap) -> tuple[PrimFunc, list[Var]]:
    """for i, j: C[i, j] = ...    becomes, for lambda i, j: (j, i),    for j, i: C[i, j] = ...

    The block's iterators become the map's values, in loops of their own, which are returned; what it computes stays.

    >>> sch = product(4, 6, 8)
    >>> loops = sch.transform_block_layout("C", lambda i, j, k: (i * 6 + j, k))
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      for x0 in range(24):
        for k in range(8):
          block C(vx0 over 24 = x0; vk reduce 8 = k):
            init:
              C[vx0 // 6, vx0 - vx0 // 6 * 6] = 0.0
            C[vx0 // 6, vx0 - vx0 // 6 * 6] = C[vx0 // 6, vx0 - vx0 // 6 * 6] + A[vx0 // 6, vk] * B[vk, vx0 - vx0 // 6 * 6]
    """
    b = func.blocks[block.name]
    loops = own_loops(func, b)
    assert loops is not None
    domain = _ranges(index_map, [it.extent for it in b.iters])
    extents = image_extents(index_map.exprs, domain, {})
    assert extents is not None
    names = [_name(e, d) for d, e in enumerate(index_map.exprs)]
    values = [Var(f"v{n}") for n in names]
    back = inverse(index_map.exprs, domain, values)
    assert back is not None
    env = {v: loop_range(e) for v, e in zip(values, extents)}
    old = {it.var: simplify(back[p], env) for it, p in zip(b.iters, index_map.params)}
    iters = tuple(
        IterVar(v, e, "reduce" if _is_reduce(b, index_map, x) else "spatial", const(0))
        for v, e, x in zip(values, extents, index_map.exprs)
    )

    def moved(s: Stmt) -> Stmt:
        return rewrite(
            substitute(s, old),
            lambda x: (
                with_fields(x, indices=tuple(simplify(i, env) for i in x.indices))
                if isinstance(x, (Load, Store))
                else x
            ),
        )

    init = None if b.init is None else moved(b.init)
    changed = with_fields(b, iters=iters, body=moved(b.body), init=init)
    nest, variables = nest_of(changed)
    outermost = loops_around(func, b)[0] if loops else b
    return replace(func, outermost, nest), variables


def _name(e: Expr, position: int) -> str:
    return e.name if isinstance(e, Var) else f"x{position}"


def check_reorder_block_iter_var(func: PrimFunc, block: BlockRef, order: Sequence[int]) -> Refusal | None:
    b = func.blocks[block.name]
    if sorted(order) == list(range(len(b.iters))):
        return None
    what = f"cannot reorder the iterators of block {b.name} to {list(order)}"
    return Refusal(what, f"that is no permutation of 0 to {len(b.iters) - 1}", {b: "this block"})


def apply_reorder_block_iter_var(func: PrimFunc, block: BlockRef, order: Sequence[int]) -> tuple[PrimFunc, None]:
    """List a block's iterators in another order; what it computes and its loops stay.

    >>> sch = product(4, 6, 8)
    >>> sch.reorder_block_iter_var("C", [2, 0, 1])
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vk reduce 8 = k; vi over 4 = i; vj over 6 = j):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
    """
    b = func.blocks[block.name]
    return replace(func, b, with_fields(b, iters=tuple(b.iters[i] for i in order))), None


TRANSFORM_LAYOUT = Primitive("transform_layout", check_transform_layout, apply_transform_layout)
TRANSFORM_BLOCK_LAYOUT = Primitive("transform_block_layout", check_transform_block_layout, apply_transform_block_layout)
REORDER_BLOCK_ITER_VAR = Primitive("reorder_block_iter_var", check_reorder_block_iter_var, apply_reorder_block_iter_var)
