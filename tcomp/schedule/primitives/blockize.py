"""Primitives that make several iterations one unit, and an instruction of it: blockize, tensorize."""

from __future__ import annotations

from ...analysis.match import MismatchError, match
from ...analysis.regions import loops_around
from ...ir import matrix_intrin  # noqa: F401  registers the intrinsics of GPUs
from ...ir.arith import dims_env, interval, linear, loop_range, simplify
from ...ir.expr import Const, Expr, Var, const
from ...ir.node import Node, map_children, substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import conjuncts, free_vars
from ...ir.stmt import Block, For, IterVar, Stmt, Store
from ...ir.tensor_intrin import tensor_intrin, tensor_intrins
from .base import BlockRef, Primitive, Refusal, env_at, fresh_name, replace
from .patterns import own_chain


def _block_in(s: For) -> Block | None:
    """The one block of a nest that holds nothing else."""
    inner: Stmt = s
    while isinstance(inner, For):
        inner = inner.body
    return inner if isinstance(inner, Block) else None


def _tiles(func: PrimFunc, b: Block, inside: list[For]) -> dict[Var, tuple[int, Expr, Expr]] | str:
    """For each iterator the size of its tile, the tile's number and the place in it; or why there are no whole tiles."""
    inner = {s.var for s in inside}
    env = env_at(func, b)
    found: dict[Var, tuple[int, Expr, Expr]] = {}
    for it in b.iters:
        form = linear(it.binding, env)
        place, start = form, form
        for term in form.terms:
            used = free_vars(term)
            if used & inner and used - inner:
                return f"iterator {it.var.name} mixes loops inside and outside"
            if used & inner:
                start = start.without(term)
            else:
                place = place.without(term)
        at = simplify(place.add(type(place)(None, -place.constant)).expr(), env)
        low, high = interval(at, env)
        if low != 0 or high is None:
            return f"iterator {it.var.name} does not run over a range that is known"
        size = high + 1
        number = simplify(start.expr() // size, env)
        if simplify(number * size - start.expr(), env) != const(0) or simplify(it.extent % size, {}) != const(0):
            return f"iterator {it.var.name} is not covered by whole tiles of {size}"
        found[it.var] = (size, number, at)
    return found


def check_blockize(func: PrimFunc, loop: Var) -> Refusal | None:
    s = func.loops[loop]
    what = f"cannot make loop {loop.name} a block"
    mark: dict[Node, str] = {s: "this loop"}
    b = _block_in(s)
    if b is None:
        return Refusal(what, "it holds more than one block", mark, "a loop around one block alone")
    chain = own_chain(func, b)
    inside = chain[chain.index(s) :]
    for x in inside:
        if not isinstance(x.extent, Const):
            return Refusal(what, f"the extent of loop {x.var.name} is symbolic", {x: "symbolic"}, "split it first")
        if x.kind in ("parallel", "bound", "vectorized"):
            return Refusal(what, f"loop {x.var.name} is {x.kind}", {x: x.kind}, "blockize before that")
    if not isinstance(b.body, Store) or (b.init is not None and not isinstance(b.init, Store)):
        return Refusal(what, f"block {b.name} is more than one store", {b: "this block"})
    inner = {x.var for x in inside}
    if any(free_vars(c) & inner for c in conjuncts(b.where)):
        return Refusal(what, "the last tile is not whole", {b: "conditional"}, "pad_einsum, or factors that divide")
    for x in inside:
        kinds = {it.kind for it in b.iters if x.var in free_vars(it.binding)}
        if len(kinds) > 1:
            return Refusal(what, f"loop {x.var.name} runs over spatial and reduce axes at once", {x: "fused loop"})
    if b.init is not None and (unbound := [x for x in inside if not _binds(b, x)]):
        return Refusal(what, f"loop {unbound[0].var.name} repeats the reduction", {unbound[0]: "repeats"})
    tiles = _tiles(func, b, inside)
    return Refusal(what, tiles, mark) if isinstance(tiles, str) else None


def _binds(b: Block, s: For) -> bool:
    return s.extent == const(1) or any(s.var in free_vars(it.binding) for it in b.iters)


def apply_blockize(func: PrimFunc, loop: Var) -> tuple[PrimFunc, BlockRef]:
    """for i_0:
      for i_1 in range(16): block B(i = i_0 * 16 + i_1)

    becomes a block that runs once a tile, with the loop inside it:

        for i_0:
          block B_o(io = i_0):
            for i_1 in range(16): B at io * 16 + i_1

    >>> sch = product(4, 8, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> j_0, j_1 = sch.split(j, [None, 4])
    >>> sch.reorder(j_0, k, j_1)
    >>> tile = sch.blockize(j_1)
    >>> sch.show()
    def product(A: float32[4, 8], B: float32[8, 8], out C: float32[4, 8]):
      for i in range(4):
        for j_0 in range(2):
          for k in range(8):
            block C_o(vio over 4 = i; vjo over 2 = j_0; vko reduce 8 = k):
              init:
                for j_1 in range(4):
                  C[vio, vjo * 4 + j_1] = 0.0
              for j_1_1 in range(4):
                C[vio, vjo * 4 + j_1_1] = C[vio, vjo * 4 + j_1_1] + A[vio, vko] * B[vko, vjo * 4 + j_1_1]
    """
    s = func.loops[loop]
    b = _block_in(s)
    assert b is not None
    chain = own_chain(func, b)
    inside = chain[chain.index(s) :]
    tiles = _tiles(func, b, inside)
    assert not isinstance(tiles, str)
    iters, values, init_values = [], {}, {}
    fresh: dict[Var, Var] = {x.var: Var(x.var.name) for x in inside}
    for it in b.iters:
        size, number, at = tiles[it.var]
        var = Var(f"{it.var.name}o")
        iters.append(IterVar(var, simplify(it.extent // size), it.kind, number))
        values[it.var] = simplify(var * size + at)
        init_values[it.var] = simplify(var * size + substitute(at, fresh))
    env = {it.var: loop_range(it.extent) for it in iters} | {x.var: loop_range(x.extent) for x in inside}
    env |= {fresh[x.var]: loop_range(x.extent) for x in inside}
    body: Stmt = map_children(substitute(b.body, values), lambda e: simplify(e, env))
    for x in reversed(inside):
        body = with_fields(x, body=body)
    init: Stmt | None = None
    if b.init is not None:
        init = map_children(substitute(b.init, init_values), lambda e: simplify(e, env))
        for x in reversed(inside):
            if any(x.var in free_vars(it.binding) for it in b.spatial):
                init = For(fresh[x.var], x.extent, init)
    name = fresh_name(f"{b.name}_o", func.blocks)
    return replace(func, s, Block(name, tuple(iters), body, init, b.where, b.annotations)), BlockRef(name)


def check_tensorize(func: PrimFunc, place: Var | BlockRef, intrin: str) -> Refusal | None:
    shown = f"block {place.name}" if isinstance(place, BlockRef) else f"loop {place.name}"
    what = f"cannot tensorize {shown} with {intrin}"
    known = tensor_intrin(intrin)
    if known is None:
        return Refusal(what, "there is no such intrinsic", hint=f"one of {', '.join(tensor_intrins())}")
    if isinstance(place, Var):
        refusal = check_blockize(func, place)
        if refusal is not None:
            return refusal
        func, place = apply_blockize(func, place)
    b = func.blocks[place.name]
    if "tensor_intrin" in b.annotations:
        return Refusal(what, f"it is tensorized with {b.annotations['tensor_intrin']} already", {b: "this block"})
    vector = next((s for s in loops_around(func, b) if s.kind == "vectorized"), None)
    if vector is not None:
        return Refusal(what, f"loop {vector.var.name} around it is vectorized", {vector: "vectorized"})
    try:
        match(known.description, b.body, dims_env(func.dims), known.apart)
    except MismatchError as error:
        return Refusal(what, str(error), {b: "this block"}, "blockize the loops of the description, in its order")
    return None


def apply_tensorize(func: PrimFunc, place: Var | BlockRef, intrin: str) -> tuple[PrimFunc, BlockRef]:
    """Let an instruction do what the loops inside a block do (of a loop: blockize it first).

    The block keeps its loops as its meaning; code generation writes the instruction. Returns the block.

    >>> sch = quantized(2, 16, 8)
    >>> i, j, k = sch.get_loops("C")
    >>> k_0, k_1 = sch.split(k, [None, 4])
    >>> sch.reorder(k_0, j, k_1)
    >>> tile = sch.tensorize(j, "avx512_vnni_u8i8")
    >>> sch.show()
    def quantized(A: uint8[2, 8], B: int8[2, 16, 4], out C: int32[2, 16]):
      for i in range(2):
        for k_0 in range(2):
          block C_o(vio over 2 = i; vjo over 1 = 0; vko reduce 2 = k_0):  # tensor_intrin=avx512_vnni_u8i8
            init:
              for j in range(16):
                C[vio, j] = int32(0)
            for j_1 in range(16):
              for k_1 in range(4):
                C[vio, j_1] = C[vio, j_1] + int32(A[vio, vko * 4 + k_1]) * int32(B[vko, j_1, k_1])
    """
    if isinstance(place, Var):
        func, place = apply_blockize(func, place)
    b, known = func.blocks[place.name], tensor_intrin(intrin)
    assert known is not None and match(known.description, b.body, dims_env(func.dims), known.apart)
    marked = with_fields(b, annotations=b.annotations.with_(tensor_intrin=intrin))
    return replace(func, b, marked), place


BLOCKIZE = Primitive("blockize", check_blockize, apply_blockize)
TENSORIZE = Primitive("tensorize", check_tensorize, apply_tensorize)
