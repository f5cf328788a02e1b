"""Small questions about expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .expr import EQ, NE, And, BinaryExpr, Broadcast, Call, Cast, Const, Expr, Load, Not, Ramp, Select, Var, binary


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
    if isinstance(condition, And):
        return conjuncts(condition.a) + conjuncts(condition.b)
    return [condition]


def is_const(e: Any, value: int | None = None) -> bool:
    """Whether an expression is a literal (of that value)."""
    return isinstance(e, Const) and (value is None or e.value == value)


def free_vars(e: Any) -> set[Var]:
    """The variables that occur in an expression."""
    out: set[Var] = set()
    stack = [e]
    while stack:
        x = stack.pop()
        if isinstance(x, Var):
            out.add(x)
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
