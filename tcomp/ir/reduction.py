"""The init of a reduction, as loops of its own."""

from __future__ import annotations

from collections.abc import Sequence

from .expr import LT, Const, Expr, Or, Var, const
from .node import substitute, with_fields
from .primfunc import PrimFunc
from .query import all_of, conjuncts, free_vars, is_const
from .stmt import Block, For, If, IterVar, Stmt, map_statements, own_binders, seq, sub_statements


def init_nest(b: Block, inside: Sequence[For], name: str) -> Stmt:
    """The init of a reduction in loops of its own, for the points that some of the loops around the block reach.

    Args:
        inside: loops around the block, outermost first; all that reduce are among them. Those that run over spatial axes alone are
            kept; a spatial axis that shares a loop with a reduce axis, or is empty, is run over as a whole.
        name: of the new block.
    """
    assert b.init is not None
    spatial = b.spatial
    reducing = {v for it in b.reduce for v in free_vars(it.binding)} & {x.var for x in inside}
    fresh = {x.var: Var(x.var.name) for x in inside if x.var not in reducing}
    renamed = {it.var: Var(it.var.name) for it in spatial}
    bindings: dict[Var, Expr] = {it.var: substitute(it.binding, fresh) for it in spatial}
    whole: list[tuple[Var, Expr]] = []
    for it in spatial:
        # of an axis without elements no loop may be left: all loops around were empty, and their quotient was 0
        if free_vars(it.binding) & reducing or is_const(it.extent, 0):
            bindings[it.var] = loop = Var(it.var.name.removeprefix("v"))
            whole.append((loop, it.extent))
    used = {v for e in bindings.values() for v in free_vars(e)}
    left_out = reducing | {x.var for x in inside if fresh.get(x.var) not in used}
    where = all_of([substitute(c, fresh) for c in conjuncts(b.where) if not free_vars(c) & left_out])
    iters = tuple(IterVar(renamed[it.var], it.extent, "spatial", bindings[it.var]) for it in spatial)
    nest: Stmt = Block(name, iters, substitute(own_binders(b.init), renamed), None, where)
    for loop, extent in reversed(whole):
        nest = For(loop, extent, nest)
    for x in reversed(inside):
        if fresh.get(x.var) in used:
            nest = For(fresh[x.var], x.extent, nest, x.kind, thread=x.thread)
    return nest


def start_empty(func: PrimFunc) -> PrimFunc:
    """Let reductions over no elements at all, which some values of the symbolic extents make, leave their first value.

    An init runs with the first element of its reduction. Where there may be none, it gets loops of its own in front, under the
    condition that there is none.
    """
    starts: dict[Stmt, list[Stmt]] = {}
    for b, around in _loops_around_blocks(func.body):
        unknown = [it for it in b.reduce if not isinstance(it.extent, Const)]
        if b.init is None or not unknown:
            continue
        empty: Expr = LT(unknown[0].extent, const(1))
        for it in unknown[1:]:
            empty = Or(empty, LT(it.extent, const(1)))
        reducing = {v for it in b.reduce for v in free_vars(it.binding)}
        outermost = next((n for n, x in enumerate(around) if x.var in reducing), len(around))
        nest = init_nest(b, around[outermost:], f"{b.name}_empty")
        starts.setdefault(around[outermost] if outermost < len(around) else b, []).append(If(empty, nest))

    def visit(s: Stmt) -> Stmt:
        new = map_statements(s, visit)
        return seq([*starts[s], new]) if s in starts else new

    return with_fields(func, body=visit(func.body)) if starts else func


def _loops_around_blocks(root: Stmt) -> list[tuple[Block, list[For]]]:
    """Each block and the loops around it, outermost first."""
    found: list[tuple[Block, list[For]]] = []
    stack: list[tuple[Stmt, tuple[For, ...]]] = [(root, ())]
    while stack:
        s, around = stack.pop()
        if isinstance(s, Block):
            found.append((s, list(around)))
            continue
        inner = (*around, s) if isinstance(s, For) else around
        stack += [(x, inner) for x in reversed(sub_statements(s))]
    return found
