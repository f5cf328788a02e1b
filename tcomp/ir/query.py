"""Small questions about expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard, overload

from .expr import EQ, NE, And, BinaryExpr, Broadcast, Call, Cast, Const, Expr, Load, Not, Ramp, Select, Var, binary
from .node import Node, children, unique_nodes


def all_of(conditions: Sequence[Expr]) -> Expr | None:
    """The conjunction, or None of no conditions."""
    result: Expr | None = None
    for c in conditions:
        result = c if result is None else And(result, c)
    return result


def conjuncts(condition: Expr | None) -> list[Expr]:
    """The conditions whose conjunction this is."""
    if condition is None:
        return []
    found, stack = [], [condition]
    while stack:
        c = stack.pop()
        if isinstance(c, And):
            stack += (c.b, c.a)
        else:
            found.append(c)
    return found


MAX_HEIGHT = 100
"""Operations, one inside another, that an expression of a kernel may have: passes walk down it by recursion."""

MAX_NEST = 100
"""Loops, one inside another, that a kernel may have, for the same reason."""


def height(e: Node) -> int:
    """How many operations of an expression, or a statement, stand one inside another."""
    heights: dict[int, int] = {}
    for x in unique_nodes(e):
        heights[id(x)] = 1 + max([heights[id(c)] for c in children(x)], default=-1)
    return heights[id(e)]


def is_const(e: Any, value: int | None = None) -> TypeGuard[Const]:
    """Whether an expression is a literal (of that value)."""
    return isinstance(e, Const) and (value is None or e.value == value)


@overload
def as_int(e: int | Expr) -> int | None: ...
@overload
def as_int(e: int | Expr, default: int) -> int: ...
def as_int(e: int | Expr, default: int | None = None) -> int | None:
    """The value of an extent that is an integer or a literal; of a symbolic one the default."""
    if isinstance(e, Const):
        return int(e.value)
    return e if isinstance(e, int) else default


def int_of(e: int | Expr) -> int:
    """The value of an extent that is known to be no symbolic one."""
    value = as_int(e)
    assert value is not None, e
    return value


def free_vars(e: Any) -> set[Var]:
    """The variables that occur in an expression."""
    out: set[Var] = set()
    stack = [e]
    while stack:
        x = stack.pop()
        if type(x) is Var:
            out.add(x)
        elif type(x) is Const:
            continue
        elif isinstance(x, BinaryExpr):
            stack += (x.a, x.b)
        elif isinstance(x, Load):
            stack += x.indices
            if x.mask is not None:
                stack.append(x.mask)
        elif isinstance(x, Select):
            stack += (x.cond, x.then, x.orelse)
        elif isinstance(x, Call):
            stack += x.args
        elif isinstance(x, (Cast, Broadcast)):
            stack.append(x.value)
        elif isinstance(x, Ramp):
            stack += (x.base, x.stride)
        elif isinstance(x, Not):
            stack.append(x.a)
    return out


def equal(a: Any, b: Any) -> Expr:
    """The comparison a == b as an expression."""
    return binary(EQ, a, b)


def not_equal(a: Any, b: Any) -> Expr:
    """The comparison a != b as an expression."""
    return binary(NE, a, b)
