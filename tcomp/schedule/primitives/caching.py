"""Primitives that put a copy of a buffer between a block and memory: cache_read, cache_write, set_scope."""

from __future__ import annotations

from ...analysis.regions import accesses, blocks_under, consumers, producers, reads, writes
from ...ir.expr import Buffer, Load, Var
from ...ir.node import with_fields
from ...ir.primfunc import PrimFunc
from ...ir.stmt import Block, For, IterVar, Seq, Stmt, Store, seq
from .base import BlockRef, Primitive, Refusal, fresh_name, replace, replace_buffer, top_statement, with_body

SCOPES = ("global", "local")


def _copy_nest(source: Buffer, target: Buffer, name: str) -> Stmt:
    """target[...] = source[...] over the whole shape, as a block of its own."""
    loops = [Var(f"ax{d}") for d in range(source.ndim)]
    iters = tuple(
        IterVar(Var(f"vax{d}"), extent, "spatial", loop) for d, (extent, loop) in enumerate(zip(source.shape, loops))
    )
    index = tuple(it.var for it in iters)
    nest: Stmt = Block(name, iters, Store(target, index, Load(source, index)))
    for loop, extent in reversed(list(zip(loops, source.shape))):
        nest = For(loop, extent, nest)
    return nest


def _at_top(func: PrimFunc, place: Stmt, before: list[Stmt], after: list[Stmt]) -> Stmt:
    stmts = list(func.body.stmts) if isinstance(func.body, Seq) else [func.body]
    i = stmts.index(place)
    return seq([*stmts[:i], *before, place, *after, *stmts[i + 1 :]])


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
    names = {x.name for x in (*func.buffers, *func.allocs)}
    cache = Buffer(fresh_name(f"{buffer.name}_{scope}", names), buffer.shape, buffer.dtype, scope)
    name = fresh_name(f"{buffer.name}_{scope}", func.blocks)
    nest = _copy_nest(cache, buffer, name) if after else _copy_nest(buffer, cache, name)
    body = _at_top(func, top_statement(func, b), [] if after else [nest], [nest] if after else [])
    inside = with_body(func, body, allocs=(*func.allocs, cache))
    return replace(inside, b, replace_buffer(b, buffer, cache)), BlockRef(name)


def apply_cache_read(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, BlockRef]:
    """C[i] = f(A[i])    becomes    A_local[i] = A[i];  C[i] = f(A_local[i])

    The copy is a block of its own; compute_at moves it to where it pays, and there it shrinks to the part in use.
    """
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
    """
    return _insert_copy(func, func.blocks[block.name], buffer, scope, after=True)


def check_set_scope(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> Refusal | None:
    what = f"cannot set the scope of {buffer.name}"
    if buffer not in func.allocs:
        return Refusal(what, "it is a parameter of the function", {buffer: "parameter"}, "cache_read or cache_write it")
    return _bad_scope(what, scope)


def apply_set_scope(func: PrimFunc, block: BlockRef, buffer: Buffer, scope: str) -> tuple[PrimFunc, None]:
    """Move an intermediate buffer to another scope."""
    moved = with_fields(buffer, scope=scope)
    users = [b for b in func.blocks.values() if any(a.buffer is buffer for a in accesses(b))]
    for b in users:
        func = replace(func, func.blocks[b.name], replace_buffer(func.blocks[b.name], buffer, moved))
    return with_fields(func, allocs=tuple(moved if x is buffer else x for x in func.allocs)), None


CACHE_READ = Primitive("cache_read", check_cache_read, apply_cache_read)
CACHE_WRITE = Primitive("cache_write", check_cache_write, apply_cache_write)
SET_SCOPE = Primitive("set_scope", check_set_scope, apply_set_scope)
