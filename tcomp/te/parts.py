"""Names for parts of an expression, so that no tree of a kernel is deep, and nothing that is used twice is written out twice."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ExprError
from ..ir.expr import Const, Expr, Load, Select, Var
from ..ir.node import Node, children, map_children, unique_nodes
from ..ir.query import MAX_HEIGHT
from .tensor import TensorLoad

NAMED_HEIGHT = 64
"""A part of this many operations, one inside another, gets a name."""
SHARED_SIZE = 32
"""A part of this many operations that several places use gets a name."""
MAX_SIZE = 1_000_000
"""Operations of an expression, written out, above which it is refused."""


def name_parts(roots: Sequence[Expr], where: str) -> tuple[list[tuple[Var, Expr]], list[Expr]]:
    """The parts that get names, in the order in which they are computed, and the expressions in terms of them.

    Parts of an index, of a condition or of an alternative stay where they are: it is by these that accesses are proved inside.

    Raises:
        ExprError: what cannot be named is nested too deep, or too large.
    """
    nodes = _nodes(roots)
    open_ids, uses = _nameable(roots), _uses(nodes)
    named: list[tuple[Var, Expr]] = []
    new: dict[int, Expr] = {}
    heights: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for x in nodes:
        inner = list(children(x))
        node = map_children(x, lambda c: new[id(c)])
        height = 1 + max([heights[id(c)] for c in inner], default=-1)
        size = 1 + sum([sizes[id(c)] for c in inner])
        is_large = height >= NAMED_HEIGHT or (uses[id(x)] > 1 and size >= SHARED_SIZE)
        if is_large and id(x) in open_ids:
            part = Var(f"part{len(named)}", node.dtype)
            named.append((part, node))
            node, height, size = part, 0, 1
        if height > MAX_HEIGHT or size > MAX_SIZE:
            what = (
                f"is nested more than {MAX_HEIGHT} deep" if height > MAX_HEIGHT else f"has over {MAX_SIZE} operations"
            )
            raise ExprError(
                f"{where}: an index, a condition or an alternative {what}",
                hint="compute a part of it as a tensor of its own, or choose by a tree of conditions instead of a chain",
            )
        new[id(x)], heights[id(x)], sizes[id(x)] = node, height, size
    return named, [new[id(r)] for r in roots]


def _nodes(roots: Sequence[Expr]) -> list[Node]:
    """Every object of some trees once, children first."""
    found: dict[int, Node] = {}
    for r in roots:
        for x in unique_nodes(r):
            found.setdefault(id(x), x)
    return list(found.values())


def _uses(nodes: Sequence[Node]) -> dict[int, int]:
    """How many places of the trees hold each object."""
    uses = {id(x): 0 for x in nodes}
    for x in nodes:
        for c in children(x):
            uses[id(c)] += 1
    return uses


def _nameable(roots: Sequence[Expr]) -> set[int]:
    """The objects that are computed whatever the conditions are, and that are no part of an index."""
    found: set[int] = set()
    stack: list[Node] = list(roots)
    while stack:
        x = stack.pop()
        if id(x) in found or isinstance(x, (Var, Const)):
            continue
        found.add(id(x))
        if not isinstance(x, (Select, TensorLoad, Load)):
            stack.extend(children(x))
    return found
