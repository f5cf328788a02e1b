"""Blocks -> plain statements: iterators become their bindings, init and conditions become ifs."""

from __future__ import annotations

from ...analysis.match import match
from ...analysis.regions import accesses, writes
from ...ir.arith import dims_env, linear, simplify
from ...ir.expr import EQ, LT, Buffer, Const, Expr, FloorDiv, FloorMod, Load, Select, Var, const
from ...ir.node import rewrite, substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, conjuncts, free_vars, is_const
from ...ir.reduction import start_empty
from ...ir.stmt import EMPTY, Block, For, If, Let, Stmt, Store, map_statements, seq, walk_statements
from ...ir.tensor_intrin import tensor_intrin
from .common import Env, extend


def operands_of_instructions(func: PrimFunc) -> dict[Buffer, int]:
    """Buffers that must lie in memory as instructions expect them: how many leading dimensions may shrink.

    An instruction fixes the steps between the elements that it takes: the extents behind the first index that moves in it; but for operands whose
    rows may lie apart.
    """
    free: dict[Buffer, int] = {}
    for b in func.blocks.values():
        if "tensor_intrin" in b.annotations:
            moving = {s.var for s in walk_statements(b.body) if isinstance(s, For)}
            apart = _rows_apart(b)
            for a in accesses(b):
                if a.buffer in apart:
                    continue
                first = next((d for d, i in enumerate(a.indices) if free_vars(i) & moving), a.buffer.ndim - 1)
                free[a.buffer] = min(free.get(a.buffer, a.buffer.ndim), first + 1)
    return free


def _rows_apart(b: Block) -> set[Buffer]:
    """The operands of a tensorized block whose rows may lie apart."""
    intrin = tensor_intrin(str(b.annotations["tensor_intrin"]))
    if intrin is None or not intrin.apart:
        return set()
    operands = match(intrin.description, b.body, {}, intrin.apart)
    return {operands[name].buffer for name in intrin.apart}


def lower_blocks(func: PrimFunc) -> PrimFunc:
    """Replace every block by its body.

    A block's `where` becomes an If around it. Its init runs under the condition that all reduce iterators are 0, or where there is
    nothing to reduce.
    A load in one side of a Select is masked by the Select's condition wherever it might leave its buffer otherwise.
    """
    func = start_empty(func)
    scratch = set(func.allocs) - operands_of_instructions(func).keys()

    def visit(s: Stmt, env: Env) -> Stmt:
        if isinstance(s, For):
            inner = extend(env, s)
            return map_statements(s, lambda x: visit(x, inner))
        if isinstance(s, Block):
            return _lower(_relax(s, scratch, env), env)
        return map_statements(s, lambda x: visit(x, env))

    return with_fields(func, body=visit(func.body, dims_env(func.dims)))


def _relax(b: Block, scratch: set[Buffer], env: Env) -> Block:
    """Let a block that fills a scratch buffer run over whole tiles, past the buffer's edge.

    Storage will make the buffer as large as the tiles. What lies past the edge is never read, so the condition is needed
    only for the loads of other memory; there it becomes a mask, and the padding reads as zero.
    """
    if b.where is None or not isinstance(b.body, Store) or not all(x in scratch for x in writes(b)):
        return b
    write = next(a.indices for a in accesses(b) if a.is_write)
    edges = {}
    for it in b.iters:
        binding = simplify(it.binding, env)
        if it.kind == "spatial" and it.var in _apart(write) and all(isinstance(t, Var) for t in linear(binding).terms):
            edges[LT(binding, it.extent)] = it
    parts = [simplify(c, env) for c in conjuncts(b.where)]
    dropped = [c for c in parts if c in edges]
    if not dropped:
        return b
    # in terms of the iterators, so that they stay with the body
    inside = {edges[c].var: edges[c].var < edges[c].extent for c in dropped}

    def post(e: object) -> object:
        if isinstance(e, Load):
            # scratch memory is made as large where each value of the iterator has a place of its own
            used = {v for i in e.indices for v in free_vars(i)}
            if e.buffer in scratch:
                used -= _apart(e.indices)
            mask = all_of([condition for var, condition in inside.items() if var in used])
            if mask is not None:
                return with_fields(e, mask=mask if e.mask is None else mask & e.mask)
        return e

    kept = all_of([c for c in parts if c not in edges])
    return with_fields(b, body=rewrite(b.body, post), where=kept)


def _apart(indices: tuple[Expr, ...]) -> set[Var]:
    """Iterators each value of which has a place of its own: an index itself, or split into a quotient and a remainder, and in no
    other index."""
    own: dict[Var, set[Expr]] = {i: {i} for i in indices if isinstance(i, Var)}
    for i in indices:
        if isinstance(i, FloorMod) and isinstance(i.a, Var) and isinstance(i.b, Const):
            quotient = FloorDiv(i.a, i.b)
            if quotient in indices:
                own[i.a] = {i, quotient}
    return {v for v, places in own.items() if all(i in places or v not in free_vars(i) for i in indices)}


def _lower(b: Block, env: Env) -> Stmt:
    bindings = {it.var: simplify(it.binding, env) for it in b.iters}
    body = _guard(substitute(b.body, bindings), env)
    if "tensor_intrin" in b.annotations:
        body = with_fields(body, annotations=b.annotations)  # of the outermost loop in the block
    if b.init is not None:
        first = [EQ(bindings[it.var], const(0)) for it in b.reduce]
        condition = simplify(all_of(first), env)
        init = _guard(substitute(b.init, bindings), env)
        if not is_const(condition, False):
            body = seq([init if isinstance(condition, Const) else If(condition, init), body])
    if b.where is not None:
        for condition in reversed(conjuncts(simplify(b.where, env))):
            # one If a condition, so that each keeps to the loops that it is about
            if not isinstance(condition, Const):
                body = If(condition, body)
            elif not condition.value:
                return EMPTY
    return body


def _guard(s: Stmt, env: Env) -> Stmt:
    if isinstance(s, Store):
        value, indices = guard_loads(s.value, env), tuple(guard_loads(i, env) for i in s.indices)
        is_same = value is s.value and all(i is j for i, j in zip(indices, s.indices))
        return s if is_same else with_fields(s, value=value, indices=indices)
    if isinstance(s, Let):
        s = with_fields(s, value=guard_loads(s.value, env))
    if isinstance(s, For):
        env = extend(env, s)
    return map_statements(s, lambda x: _guard(x, env))


def guard_loads(e: Expr, env: Env, mask: Expr | None = None) -> Expr:
    """Mask the loads behind each Select that are not certainly inside their buffers; a Select that is decided by the loops around
    goes.

    Args:
        mask: the condition under which the expression is evaluated.
    """

    def pre(x: object) -> Expr | None:
        if isinstance(x, Select):
            decided = simplify(x.cond, env)
            if isinstance(decided, Const):
                return guard_loads(x.then if decided.value else x.orelse, env, mask)
            cond = guard_loads(x.cond, env, mask)
            then = guard_loads(x.then, env, cond if mask is None else mask & cond)
            orelse = guard_loads(x.orelse, env, ~cond if mask is None else mask & ~cond)
            return x if (cond is x.cond and then is x.then and orelse is x.orelse) else Select(cond, then, orelse)
        if isinstance(x, Load) and mask is not None:
            indices = tuple(guard_loads(i, env, mask) for i in x.indices)
            x = x if all(i is j for i, j in zip(indices, x.indices)) else with_fields(x, indices=indices)
            if _inside(x.buffer, x.indices, env):
                return x
            return with_fields(x, mask=mask if x.mask is None else mask & x.mask)
        return None

    return rewrite(e, lambda x: x, pre)


def _inside(buffer: Buffer, indices: tuple[Expr, ...], env: Env) -> bool:
    for index, extent in zip(indices, buffer.shape):
        inside = simplify((const(0) <= index) & (index < extent), env)
        if not (isinstance(inside, Const) and inside.value):
            return False
    return True
