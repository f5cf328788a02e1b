"""Primitives that give a block operands in the order of its own iterators: reindex, reindex_cache_read,
reindex_cache_write, cache_index."""

from __future__ import annotations

from ...analysis.maps import determines, image_extents, is_injective
from ...analysis.regions import Access, accesses, reads, writes
from ...analysis.sets import NotAffineError, always
from ...dtype import int64
from ...ir.arith import dims_env, loop_range
from ...ir.expr import Buffer, Expr, FloorDiv, FloorMod, Load, Var, const
from ...ir.index_map import IndexMap
from ...ir.node import rewrite, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, free_vars
from ...ir.stmt import Block, IterVar, Stmt, Store
from .base import (
    BlockRef,
    Primitive,
    Refusal,
    fresh_buffer,
    fresh_name,
    insert_at_top,
    nest_of,
    replace,
    top_statement,
    with_body,
)
from .caching import check_cache_read, check_cache_write


def _domain(b: Block, variables: set[Var]) -> dict[Var, tuple[Expr, Expr]]:
    return {it.var: loop_range(it.extent) for it in b.iters if it.var in variables}


def _one_access(b: Block, buffer: Buffer) -> tuple[Expr, ...] | None:
    """The index at which a block touches a buffer, if it is the same everywhere."""
    places = {a.indices for a in accesses(b) if a.buffer is buffer}
    return next(iter(places)) if len(places) == 1 and not any(_of(b, buffer)) else None


def _of(b: Block, buffer: Buffer) -> list[Access]:
    return [a for a in accesses(b) if a.buffer is buffer and a.inner]


def _own_map(b: Block, buffer: Buffer) -> IndexMap:
    """The iterators that the access mentions, in the block's order."""
    index = _one_access(b, buffer) or ()
    used = set().union(*map(free_vars, index)) if index else set()
    return IndexMap(tuple(it.var for it in b.iters), tuple(it.var for it in b.iters if it.var in used))


def _targets(b: Block, index_map: IndexMap) -> tuple[Expr, ...]:
    return index_map([it.var for it in b.iters])


def _check_map(
    func: PrimFunc, b: Block, buffer: Buffer, index_map: IndexMap, is_read: bool, what: str
) -> Refusal | None:
    mark = {b: "this block"}
    index = _one_access(b, buffer)
    if index is None:
        return Refusal(what, f"it touches {buffer.name} at several places of an iteration", mark)
    if len(index_map.params) != len(b.iters):
        why = f"the map takes {len(index_map.params)} indices, the block has {len(b.iters)} iterators"
        return Refusal(what, why, mark, f"lambda {', '.join(it.var.name for it in b.iters)}: ...")
    target = _targets(b, index_map)
    spatial = {it.var for it in b.iters if it.kind == "spatial"}
    used = set().union(set(), *map(free_vars, target)) & {it.var for it in b.iters}
    if not is_read and not used <= spatial:
        return Refusal(what, "the place of a result may not depend on a reduce iterator", mark)
    if (
        b.init is not None
        and not used <= spatial
        and any(isinstance(x, Load) and x.buffer is buffer for x in walk(b.init))
    ):
        return Refusal(what, f"the init reads {buffer.name}, where reduce iterators have no value", mark)
    dims, env = func.dims, dims_env(func.dims)
    whole = _domain(b, {it.var for it in b.iters} if is_read else spatial)
    if image_extents(target, _domain(b, used), env) is None:
        return Refusal(what, "the map has no bounds, or goes below 0", mark)
    try:
        fixed = determines(target, index, whole, dims)
        own = is_injective(target, _domain(b, used), dims)
    except NotAffineError as error:
        return Refusal(what, f"the index is not affine ({error}), so nothing can be proved about it", mark)
    if not fixed:
        why = f"two elements of {buffer.name} would share one place of the copy"
        return Refusal(what, why, mark, "a map of all iterators that the access depends on")
    if not own:
        return Refusal(what, "the map sends two iterations to one place", mark)
    inside = all_of([c for i, e in zip(index, buffer.shape) for c in (const(0) <= i, i < e)])
    # where the copy reads: it runs also where an axis without elements keeps the block from running
    copied = None if inside is None else substitute(inside, {it.var: const(0) for it in b.iters if it.var not in used})
    if is_read and copied is not None and not always(copied, {**env, **_domain(b, used)}):
        return Refusal(what, f"it is not certain that every index is inside {buffer.name}", mark, "cache_read")
    return None


def check_reindex_cache_read(
    func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str, index_map: IndexMap
) -> Refusal | None:
    b = func.blocks[block.name]
    refusal = check_cache_read(func, block, buffer, scope)
    what = f"cannot reindex what block {b.name} reads of {buffer.name}"
    return refusal or _check_map(func, b, buffer, index_map, True, what)


def _reindexed(
    func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str, index_map: IndexMap, is_read: bool, suffix: str
) -> tuple[PrimFunc, BlockRef]:
    b = func.blocks[block.name]
    index = _one_access(b, buffer)
    assert index is not None
    target = _targets(b, index_map)
    used = set().union(set(), *map(free_vars, target)) & {it.var for it in b.iters}
    env = dims_env(func.dims)
    extents = image_extents(target, _domain(b, used), env)
    assert extents is not None
    cache = fresh_buffer(func, Buffer(buffer.name, extents, buffer.dtype, scope), suffix)
    iters = [it for it in b.iters if it.var in used]
    own = {it.var: Var(it.var.name) for it in iters}
    gone = {it.var: const(0) for it in b.iters if it.var not in used}  # of extent 1, as far as the index goes
    new_iters = tuple(IterVar(own[it.var], it.extent, "spatial", const(0)) for it in iters)
    outside, inside = (tuple(substitute(e, {**own, **gone}) for e in part) for part in (index, target))
    copy = Store(cache, inside, Load(buffer, outside)) if is_read else Store(buffer, outside, Load(cache, inside))
    name = fresh_name(cache.name, func.blocks)
    nest, _ = nest_of(Block(name, new_iters, copy))
    top = top_statement(func, b)
    body = insert_at_top(func, top, [nest] if is_read else [], [] if is_read else [nest])

    def use(x: object) -> object:
        if isinstance(x, (Load, Store)) and x.buffer is buffer:
            return with_fields(x, buffer=cache, indices=target)
        return x

    moved = with_body(func, body, allocs=(*func.allocs, cache))
    return replace(moved, b, rewrite(b, use)), BlockRef(name)


def apply_reindex_cache_read(
    func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str, index_map: IndexMap
) -> tuple[PrimFunc, BlockRef]:
    """C[i] = f(A[p(i)])    becomes    A_local[g(i)] = A[p(i)];  C[i] = f(A_local[g(i)]), for a map g of the iterators

    >>> sch = product(4, 6, 8)
    >>> copy = sch.reindex_cache_read("C", "B", "global", lambda i, j, k: (j // 2, k, j % 2))
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      B_global = alloc(float32[3, 8, 2])
      for j in range(6):
        for k in range(8):
          block B_global(vj over 6 = j; vk over 8 = k):
            B_global[vj // 2, vk, vj % 2] = B[vk, vj]
      for i in range(4):
        for j_1 in range(6):
          for k_1 in range(8):
            block C(vi over 4 = i; vj_1 over 6 = j_1; vk_1 reduce 8 = k_1):
              init:
                C[vi, vj_1] = 0.0
              C[vi, vj_1] = C[vi, vj_1] + A[vi, vk_1] * B_global[vj_1 // 2, vk_1, vj_1 % 2]
    """
    return _reindexed(func, block, buffer, scope, index_map, True, scope)


def check_reindex_cache_write(
    func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str, index_map: IndexMap
) -> Refusal | None:
    b = func.blocks[block.name]
    refusal = check_cache_write(func, block, buffer, scope)
    what = f"cannot reindex what block {b.name} writes to {buffer.name}"
    return refusal or _check_map(func, b, buffer, index_map, False, what)


def apply_reindex_cache_write(
    func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str, index_map: IndexMap
) -> tuple[PrimFunc, BlockRef]:
    """C[p(i)] = f(i)    becomes    C_local[g(i)] = f(i);  C[p(i)] = C_local[g(i)], for a map g of the spatial iterators

    >>> sch = product(4, 6, 8)
    >>> copy = sch.reindex_cache_write("C", "C", "local", lambda i, j, k: (j, i))
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      C_local = alloc(float32[6, 4], local)
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C_local[vj, vi] = 0.0
              C_local[vj, vi] = C_local[vj, vi] + A[vi, vk] * B[vk, vj]
      for i_1 in range(4):
        for j_1 in range(6):
          block C_local(vi_1 over 4 = i_1; vj_1 over 6 = j_1):
            C[vi_1, vj_1] = C_local[vj_1, vi_1]
    """
    return _reindexed(func, block, buffer, scope, index_map, False, scope)


def _reads_it(func: PrimFunc, block: BlockRef, buffer: Buffer) -> bool:
    return buffer in reads(func.blocks[block.name])


def check_reindex(func: PrimFunc, block: BlockRef, buffer: Buffer) -> Refusal | None:
    b = func.blocks[block.name]
    if buffer not in reads(b) and buffer not in writes(b):
        return Refusal(f"cannot reindex {buffer.name} in block {b.name}", "the block does not use it", {b: "here"})
    check = check_reindex_cache_read if _reads_it(func, block, buffer) else check_reindex_cache_write
    return check(func, block, buffer, "global", _own_map(b, buffer))


def apply_reindex(func: PrimFunc, block: BlockRef, buffer: Buffer) -> tuple[PrimFunc, BlockRef]:
    """C[i, j] += X[i + j * 2]    becomes    X_reindex[i, j] = X[i + j * 2];  C[i, j] += X_reindex[i, j]

    The operand then has the block's own iterators as its index: the form in which a convolution is a matrix product.

    >>> sch = strided(6, 3)
    >>> copy = sch.reindex("C", "X")
    >>> sch.show()
    def strided(X: float32[15], F: float32[3], out C: float32[6]):
      X_reindex = alloc(float32[6, 3])
      for i in range(6):
        for k in range(3):
          block X_reindex(vi over 6 = i; vk over 3 = k):
            X_reindex[vi, vk] = X[vi * 2 + vk]
      for i_1 in range(6):
        for k_1 in range(3):
          block C(vi_1 over 6 = i_1; vk_1 reduce 3 = k_1):
            init:
              C[vi_1] = 0.0
            C[vi_1] = C[vi_1] + X_reindex[vi_1, vk_1] * F[vk_1]
    """
    own = _own_map(func.blocks[block.name], buffer)
    return _reindexed(func, block, buffer, "global", own, _reads_it(func, block, buffer), "reindex")


# cache_index


def _computed_indices(b: Block) -> list[Expr]:
    """The read indices that cost a division."""
    found = [i for a in accesses(b) if not a.is_write and not a.inner for i in a.indices]
    return [e for e in dict.fromkeys(found) if any(isinstance(x, (FloorDiv, FloorMod)) for x in walk(e))]


def check_cache_index(func: PrimFunc, block: BlockRef, scope: str) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot cache the indices of block {b.name}"
    found = _computed_indices(b)
    if not found:
        return Refusal(what, "it computes no index by // or %", {b: "this block"})
    if any(isinstance(x, Load) for e in found for x in walk(e)):
        return Refusal(what, "an index depends on a value from memory", {b: "this block"}, "cache_read that buffer")
    if scope not in ("global", "shared", "local"):
        return Refusal(what, f"there is no scope {scope!r}", hint="global, shared or local")
    return None


def apply_cache_index(func: PrimFunc, block: BlockRef, scope: str) -> tuple[PrimFunc, list[BlockRef]]:
    """C[i] = A[i // 3 % 5]    becomes    index[i] = i // 3 % 5;  C[i] = A[index[i]]

    >>> sch = gathered(12)
    >>> rows, columns = sch.cache_index("R", "global")
    >>> sch.show()
    def gathered(A: float32[12, 4], out R: float32[48]):
      R_index = alloc(int64[48])
      R_index_1 = alloc(int64[48])
      for i in range(48):
        block R_index(vi over 48 = i):
          R_index[vi] = vi // 4
      for i_1 in range(48):
        block R_index_1(vi_1 over 48 = i_1):
          R_index_1[vi_1] = vi_1 % 4
      for i_2 in range(48):
        block R(vi_2 over 48 = i_2):
          R[vi_2] = A[R_index[vi_2], R_index_1[vi_2]] + 1.0
    """
    b = func.blocks[block.name]
    nests: list[Stmt] = []
    refs: list[BlockRef] = []
    table: dict[Expr, Expr] = {}
    allocs = list(func.allocs)
    for e in _computed_indices(b):
        iters = [it for it in b.iters if it.var in free_vars(e)]
        own = {it.var: Var(it.var.name) for it in iters}
        grown = with_fields(func, allocs=tuple(allocs))
        cache = fresh_buffer(grown, Buffer(b.name, tuple(it.extent for it in iters), int64, scope), "index")
        allocs.append(cache)
        name = fresh_name(cache.name, {*func.blocks, *(r.name for r in refs)})
        point = tuple(own[it.var] for it in iters)
        new_iters = tuple(IterVar(own[it.var], it.extent, "spatial", const(0)) for it in iters)
        nests.append(nest_of(Block(name, new_iters, Store(cache, point, substitute(e, own))))[0])
        refs.append(BlockRef(name))
        table[e] = Load(cache, tuple(it.var for it in iters))

    def use(x: object) -> object:
        if isinstance(x, Load) and any(i in table for i in x.indices):
            return with_fields(x, indices=tuple(table.get(i, i) for i in x.indices))
        return x

    body = insert_at_top(func, top_statement(func, b), nests)
    moved = with_body(func, body, allocs=tuple(allocs))
    return replace(moved, b, rewrite(b, use)), refs


REINDEX = Primitive("reindex", check_reindex, apply_reindex)
REINDEX_CACHE_READ = Primitive("reindex_cache_read", check_reindex_cache_read, apply_reindex_cache_read)
REINDEX_CACHE_WRITE = Primitive("reindex_cache_write", check_reindex_cache_write, apply_reindex_cache_write)
CACHE_INDEX = Primitive("cache_index", check_cache_index, apply_cache_index)
