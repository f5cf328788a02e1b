"""Primitives that put a copy of a buffer between a block and memory, and those that set where and as what it is kept:
cache_read, cache_write, cache_inplace, read_at, write_at, set_scope, unsafe_set_dtype."""

from __future__ import annotations

from ...analysis.regions import accesses, blocks_under, consumers, producers, reads, writes
from ...dtype import dtype as _dtype
from ...errors import TcompError
from ...ir.expr import Buffer, Load, Var, cast, const
from ...ir.node import rewrite, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.stmt import Block, IterVar, Stmt, Store
from .base import (
    BlockRef,
    Primitive,
    Refusal,
    exchange_buffer,
    fresh_buffer,
    fresh_name,
    insert_at_top,
    nest_of,
    replace,
    replace_buffer,
    top_statement,
    with_body,
)
from .patterns import tensorized
from .placement import (
    apply_compute_at,
    apply_reverse_compute_at,
    check_compute_at,
    check_reverse_compute_at,
)

SCOPES = ("global", "shared", "warp", "local")


def _copy_nest(source: Buffer, target: Buffer, name: str) -> Stmt:
    """target[...] = source[...] over the whole shape, as a block of its own."""
    iters = tuple(IterVar(Var(f"vax{d}"), extent, "spatial", const(0)) for d, extent in enumerate(source.shape))
    index = tuple(it.var for it in iters)
    return nest_of(Block(name, iters, Store(target, index, Load(source, index))))[0]


def _bad_scope(what: str, scope: str) -> Refusal | None:
    if scope in SCOPES:
        return None
    return Refusal(what, f"there is no scope {scope!r} on this target", hint=f"one of {', '.join(SCOPES)}")


def check_cache_read(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot cache what block {b.name} reads of {buffer.name}"
    if buffer not in reads(b):
        names = ", ".join(x.name for x in reads(b)) or "nothing"
        return Refusal(what, f"the block does not read it; it reads {names}", {b: "this block"})
    top = top_statement(func, b)
    inside = [p for p in producers(func, buffer) if p in blocks_under(top)]
    if inside:
        return Refusal(
            what,
            f"block {inside[0].name} writes {buffer.name} in the same loop nest, so there is no place to copy all of it",
            {inside[0]: f"writes {buffer.name}", b: "reads it"},
            "cache_read before compute_at",
        )
    return _bad_scope(what, scope)


def _insert_copy(func: PrimFunc, b: Block, buffer: Buffer, scope: str, after: bool) -> tuple[PrimFunc, BlockRef]:
    """Give a block a copy of a buffer, filled before it or copied back after it, over the whole shape."""
    cache = fresh_buffer(func, Buffer(buffer.name, buffer.shape, buffer.dtype, scope), scope)
    name = fresh_name(f"{buffer.name}_{scope}", func.blocks)
    nest = _copy_nest(cache, buffer, name) if after else _copy_nest(buffer, cache, name)
    body = insert_at_top(func, top_statement(func, b), [] if after else [nest], [nest] if after else [])
    inside = with_body(func, body, allocs=(*func.allocs, cache))
    return replace(inside, b, replace_buffer(b, buffer, cache)), BlockRef(name)


def apply_cache_read(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, BlockRef]:
    """C[i] = f(A[i])    becomes    A_local[i] = A[i];  C[i] = f(A_local[i])

    The copy is a block of its own; compute_at moves it to where it pays, and there it shrinks to the part in use.

    >>> sch = add(10)
    >>> copy = sch.cache_read("B", "A", "local")
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      A_local = alloc(float32[10], local)
      for ax0 in range(10):
        block A_local(vax0 over 10 = ax0):
          A_local[vax0] = A[vax0]
      for i in range(10):
        block B(vi over 10 = i):
          B[vi] = A_local[vi] + 1.0
    """
    assert buffer in reads(func.blocks[block.name])
    return _insert_copy(func, func.blocks[block.name], buffer, scope, after=False)


def check_cache_write(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot cache what block {b.name} writes to {buffer.name}"
    if buffer not in writes(b):
        return Refusal(
            what, f"the block does not write it; it writes {', '.join(x.name for x in writes(b))}", {b: "here"}
        )
    others = [p for p in producers(func, buffer) if p is not b]
    if others:
        return Refusal(
            what,
            f"block {others[0].name} writes it as well",
            {others[0]: f"writes {buffer.name}", b: "this block"},
            "cache_write before decompose_reduction",
        )
    inside = [c for c in consumers(func, buffer) if c in blocks_under(top_statement(func, b)) and c is not b]
    if inside:
        return Refusal(
            what,
            f"block {inside[0].name} reads {buffer.name} in the same loop nest, before it could be copied back",
            {inside[0]: f"reads {buffer.name}", b: "writes it"},
            "cache_write before compute_at",
        )
    return _bad_scope(what, scope)


def apply_cache_write(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, BlockRef]:
    """C[i] = f(i)    becomes    C_local[i] = f(i);  C[i] = C_local[i]

    The copy back is a block of its own, placed with reverse_compute_at; or tile it and compute_at the block into it.

    >>> sch = add(10)
    >>> copy = sch.cache_write("B", 0, "local")
    >>> sch.show()
    def add(A: float32[10], out B: float32[10]):
      B_local = alloc(float32[10], local)
      for i in range(10):
        block B(vi over 10 = i):
          B_local[vi] = A[vi] + 1.0
      for ax0 in range(10):
        block B_local(vax0 over 10 = ax0):
          B[vax0] = B_local[vax0]
    """
    assert buffer in writes(func.blocks[block.name])
    return _insert_copy(func, func.blocks[block.name], buffer, scope, after=True)


# cache_inplace


def check_cache_inplace(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> Refusal | None:
    b = func.blocks[block.name]
    what = f"cannot cache what block {b.name} updates in {buffer.name}"
    if buffer not in writes(b):
        return Refusal(what, "the block does not write it", {b: "this block"}, "cache_read")
    nest = blocks_under(top_statement(func, b))
    other = next((c for c in nest if c is not b and any(a.buffer is buffer for a in accesses(c))), None)
    if other is not None:
        why = f"block {other.name} uses {buffer.name} in the same loop nest"
        return Refusal(what, why, {other: f"uses {buffer.name}", b: "this block"})
    return _bad_scope(what, scope)


def apply_cache_inplace(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, list[BlockRef]]:
    """C[i] += f(i)    becomes    C_local[i] = C[i];  C_local[i] += f(i);  C[i] = C_local[i]

    Elements that the block does not write keep their values, so that it may be one of several writers.

    Returns the block that copies in and the one that copies back.

    >>> sch = product(4, 6, 8)
    >>> init = sch.decompose_reduction("C", sch.get_loops("C")[0])
    >>> copy_in, copy_out = sch.cache_inplace("C", "C", "local")
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      C_local = alloc(float32[4, 6], local)
      for i in range(4):
        for j in range(6):
          block C_init(vi over 4 = i; vj over 6 = j):
            C[vi, vj] = 0.0
      for ax0 in range(4):
        for ax1 in range(6):
          block C_local_in(vax0 over 4 = ax0; vax1 over 6 = ax1):
            C_local[vax0, vax1] = C[vax0, vax1]
      for i_1 in range(4):
        for j_1 in range(6):
          for k in range(8):
            block C(vi_1 over 4 = i_1; vj_1 over 6 = j_1; vk reduce 8 = k):
              C_local[vi_1, vj_1] = C_local[vi_1, vj_1] + A[vi_1, vk] * B[vk, vj_1]
      for ax0_1 in range(4):
        for ax1_1 in range(6):
          block C_local_out(vax0_1 over 4 = ax0_1; vax1_1 over 6 = ax1_1):
            C[vax0_1, vax1_1] = C_local[vax0_1, vax1_1]
    """
    b = func.blocks[block.name]
    assert buffer in writes(b)
    cache = fresh_buffer(func, Buffer(buffer.name, buffer.shape, buffer.dtype, scope), scope)
    names: list[str] = []
    for suffix in ("in", "out"):
        names.append(fresh_name(f"{cache.name}_{suffix}", func.blocks))
    nests = _copy_nest(buffer, cache, names[0]), _copy_nest(cache, buffer, names[1])
    body = insert_at_top(func, top_statement(func, b), nests[:1], nests[1:])
    inside = with_body(func, body, allocs=(*func.allocs, cache))
    return replace(inside, b, replace_buffer(b, buffer, cache)), [BlockRef(n) for n in names]


# read_at and write_at: a copy, and its place


def check_read_at(func: PrimFunc, loop: Var, block: BlockRef, buffer: Buffer, scope: str) -> Refusal | None:
    refusal = check_cache_read(func, block, buffer, scope)
    if refusal is None:
        copied, copy = apply_cache_read(func, block, buffer, scope)
        refusal = check_compute_at(copied, copy, loop)
    return refusal


def apply_read_at(func: PrimFunc, loop: Var, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, BlockRef]:
    """cache_read, placed: each iteration of the loop copies the part that it reads.

    >>> sch = product(4, 6, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> copy = sch.read_at(i, "C", "A", "local")
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      A_local = alloc(float32[4, 8], local)
      for i in range(4):
        for ax1 in range(8):
          block A_local(vax0 over 4 = i; vax1 over 8 = ax1):
            A_local[vax0, vax1] = A[vax0, vax1]
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A_local[vi, vk] * B[vk, vj]
    """
    copied, copy = apply_cache_read(func, block, buffer, scope)
    return apply_compute_at(copied, copy, loop)[0], copy


def check_write_at(func: PrimFunc, loop: Var, block: BlockRef, buffer: Buffer, scope: str) -> Refusal | None:
    refusal = check_cache_write(func, block, buffer, scope)
    if refusal is None:
        copied, copy = apply_cache_write(func, block, buffer, scope)
        refusal = check_reverse_compute_at(copied, copy, loop)
    return refusal


def apply_write_at(func: PrimFunc, loop: Var, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, BlockRef]:
    """cache_write, placed: each iteration of the loop copies back the part that it completes.

    >>> sch = product(4, 6, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> copy = sch.write_at(i, "C", "C", "local")
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 6], out C: float32[4, 6]):
      C_local = alloc(float32[4, 6], local)
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C_local[vi, vj] = 0.0
              C_local[vi, vj] = C_local[vi, vj] + A[vi, vk] * B[vk, vj]
        for ax1 in range(6):
          block C_local(vax0 over 4 = i; vax1 over 6 = ax1):
            C[vax0, vax1] = C_local[vax0, vax1]
    """
    copied, copy = apply_cache_write(func, block, buffer, scope)
    return apply_reverse_compute_at(copied, copy, loop)[0], copy


# properties of buffers


def check_set_scope(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> Refusal | None:
    what = f"cannot set the scope of {buffer.name}"
    return _parameter(func, buffer, what) or _bad_scope(what, scope)


def _parameter(func: PrimFunc, buffer: Buffer, what: str) -> Refusal | None:
    if buffer in func.allocs:
        return None
    return Refusal(what, "it is a parameter of the function", {buffer: "parameter"}, "cache_read or cache_write it")


def apply_set_scope(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, None]:
    """Move an intermediate buffer to another scope.

    >>> sch = matmul(4, 6, 8)
    >>> sch.set_scope("C", 0, "local")
    >>> sch.show()
    def matmul(A: float32[4, 8], B: float32[8, 6], out D: float32[4, 6]):
      C = alloc(float32[4, 6], local)
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vi, vj] = 0.0
              C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
      for i_1 in range(4):
        for j_1 in range(6):
          block D(vi_1 over 4 = i_1; vj_1 over 6 = j_1):
            D[vi_1, vj_1] = max(C[vi_1, vj_1], 0.0)
    """
    return exchange_buffer(func, buffer, with_fields(buffer, scope=scope)), None


def check_unsafe_set_dtype(func: PrimFunc, block: BlockRef, buffer: Buffer, dtype: str) -> Refusal | None:
    what = f"cannot store {buffer.name} as {dtype}"
    try:
        wanted = _dtype(dtype)
    except TcompError as error:
        return Refusal(what, error.what, hint=error.hint)
    if wanted.is_bool or buffer.dtype.is_bool:
        return Refusal(what, "a bool has no narrower or wider form")
    user = next((b for b in tensorized(func) if any(a.buffer is buffer for a in accesses(b))), None)
    if user is not None:
        return Refusal(what, f"block {user.name} is tensorized for {buffer.dtype}", {user: "tensorized"})
    return _parameter(func, buffer, what)


def apply_unsafe_set_dtype(func: PrimFunc, block: BlockRef, buffer: Buffer, dtype: str) -> tuple[PrimFunc, None]:
    """Keep an intermediate buffer in another dtype: values are converted where they are stored and loaded.

    Nothing checks that the dtype holds them: a narrower one rounds, or wraps.

    >>> sch = matmul(4, 6, 8)
    >>> sch.unsafe_set_dtype("C", 0, "float64")
    >>> sch.show()
    def matmul(A: float32[4, 8], B: float32[8, 6], out D: float32[4, 6]):
      C = alloc(float64[4, 6])
      for i in range(4):
        for j in range(6):
          for k in range(8):
            block C(vi over 4 = i; vj over 6 = j; vk reduce 8 = k):
              init:
                C[vi, vj] = float64(0.0)
              C[vi, vj] = float64(float32(C[vi, vj]) + A[vi, vk] * B[vk, vj])
      for i_1 in range(4):
        for j_1 in range(6):
          block D(vi_1 over 4 = i_1; vj_1 over 6 = j_1):
            D[vi_1, vj_1] = max(float32(C[vi_1, vj_1]), 0.0)
    """
    wanted = _dtype(dtype)
    new = with_fields(buffer, dtype=wanted)

    def convert(x: object) -> object:
        if isinstance(x, Load) and x.buffer is buffer:
            return cast(with_fields(x, buffer=new), buffer.dtype)
        if isinstance(x, Store) and x.buffer is buffer:
            return with_fields(x, buffer=new, value=cast(x.value, wanted))
        return x

    allocs = tuple(new if x is buffer else x for x in func.allocs)
    return with_body(func, rewrite(func.body, convert), allocs=allocs), None


CACHE_READ = Primitive("cache_read", check_cache_read, apply_cache_read)
CACHE_WRITE = Primitive("cache_write", check_cache_write, apply_cache_write)
CACHE_INPLACE = Primitive("cache_inplace", check_cache_inplace, apply_cache_inplace)
READ_AT = Primitive("read_at", check_read_at, apply_read_at)
WRITE_AT = Primitive("write_at", check_write_at, apply_write_at)
SET_SCOPE = Primitive("set_scope", check_set_scope, apply_set_scope)
UNSAFE_SET_DTYPE = Primitive("unsafe_set_dtype", check_unsafe_set_dtype, apply_unsafe_set_dtype)
