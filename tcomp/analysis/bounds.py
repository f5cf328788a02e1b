"""Whether every access of a kernel lies inside its buffer: proved with integer sets, guards counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.arith import can_prove, dims_env, interval, loop_range
from ..ir.expr import (
    EQ,
    LE,
    LT,
    NE,
    Add,
    And,
    Buffer,
    Const,
    Expr,
    FloorDiv,
    FloorMod,
    Load,
    Max,
    Min,
    Mul,
    Not,
    Or,
    Select,
    Sub,
    Var,
    const,
)  # fmt: skip
from ..ir.node import child_fields, map_children, walk
from ..ir.primfunc import PrimFunc
from ..ir.query import conjuncts, free_vars
from ..ir.stmt import Block, For, Prefetch, Stmt, Store, sub_statements
from . import products
from .regions import loop_env, loops_around
from .sets import NotAffineError, Space

Ranges = dict[Var, tuple[Expr, Expr]]


@dataclass(frozen=True, slots=True)
class Outside:
    """An access that is not proved to lie inside its buffer.

    Attributes:
        axis: the dimension; low, high: what its index may be, None where nothing is known.
    """

    block: Block
    buffer: Buffer
    indices: tuple[Expr, ...]
    axis: int
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class _Place:
    """What is known where an access happens.

    Attributes:
        ranges: of the variables around it.
        facts: conditions that hold there.
    """

    ranges: Ranges
    facts: tuple[Expr, ...]


def accesses_outside(func: PrimFunc) -> Iterator[Outside]:
    """The accesses of a kernel's blocks that may leave their buffers."""
    dims = dims_env(func.dims)
    for b in func.blocks.values():
        domain: Ranges = {**dims, **{it.var: loop_range(it.extent) for it in b.iters}}
        around = {**dims, **loop_env(loops_around(func, b))}
        facts = (*conjuncts(b.where), *(EQ(it.var, it.binding) for it in b.iters))
        for part in (b.init, b.body):
            for s, env in _inside(part, domain) if part is not None else ():
                place = _Place({**around, **env}, facts)
                for buffer, indices, guards in _accesses(s):
                    for axis, (index, extent) in enumerate(zip(indices, buffer.shape)):
                        if not _is_inside(index, extent, env, guards, place):
                            yield Outside(b, buffer, indices, axis, *interval(index, env))


def _inside(root: Stmt, domain: Ranges) -> Iterator[tuple[Stmt, Ranges]]:
    """Every statement of a block's body, with the ranges of the variables around it."""
    stack = [(root, domain)]
    while stack:
        s, env = stack.pop()
        yield s, env
        inner = {**env, s.var: loop_range(s.extent)} if isinstance(s, For) else env
        stack += [(x, inner) for x in reversed(sub_statements(s))]


def _accesses(s: Stmt) -> Iterator[tuple[Buffer, tuple[Expr, ...], tuple[Expr, ...]]]:
    """(buffer, indices, conditions that hold where it happens) of each access that a statement itself makes."""
    if isinstance(s, (Store, Prefetch)):
        yield s.buffer, s.indices, ()
    for name in child_fields(type(s)):
        value = getattr(s, name)
        for e in value if isinstance(value, tuple) else (value,):
            if isinstance(e, Expr):
                yield from _loads(e)


def _loads(e: Expr) -> Iterator[tuple[Buffer, tuple[Expr, ...], tuple[Expr, ...]]]:
    stack: list[tuple[Expr, tuple[Expr, ...]]] = [(e, ())]
    while stack:
        x, guards = stack.pop()
        if isinstance(x, Load):
            yield x.buffer, x.indices, guards
            stack += [(i, guards) for i in x.indices]
        elif isinstance(x, Select):
            taken = (*guards, *conjuncts(x.cond))
            stack += [(x.cond, guards), (x.then, taken), (x.orelse, (*guards, Not(x.cond)))]
        else:
            for name in child_fields(type(x)):
                value = getattr(x, name)
                stack += [(c, guards) for c in (value if isinstance(value, tuple) else (value,)) if isinstance(c, Expr)]


def _is_inside(index: Expr, extent: Expr, env: Ranges, guards: Sequence[Expr], place: _Place) -> bool:
    inside = (LE(const(0), index), LT(index, extent))
    if all(can_prove(c, env) for c in inside):
        return True
    if _follows(inside, env, guards) or _follows(inside, place.ranges, (*guards, *place.facts)):
        return True
    if not any(map(_is_nonlinear, (index, extent, *guards, *place.facts))):
        return False
    return products.follows(inside, env, guards) or products.follows(inside, place.ranges, (*guards, *place.facts))


def _follows(wanted: Sequence[Expr], ranges: Ranges, facts: Sequence[Expr]) -> bool:
    """Whether conditions hold wherever the variables lie in their ranges and the facts hold."""
    unknown: dict[Expr, Var] = {}
    known = [_affine(c, unknown) for c in facts]
    asked = [_affine(c, unknown) for c in wanted]
    space = Space([*ranges, *unknown.values()], 0)
    points = space.universe()
    for v, (low, high) in ranges.items():
        for c in (LE(low, v), LE(v, high)):
            points = _restricted(points, space, c)
    for c in known:
        points = _restricted(points, space, c)
    if points.is_empty():
        return True  # it never happens
    try:
        return all(points.is_subset(space.condition(c, {})) for c in asked)
    except NotAffineError:
        return False


def _restricted(points: Any, space: Space, condition: Expr) -> Any:
    try:
        return points.intersect(space.condition(condition, {}))
    except NotAffineError:
        return points  # what sets cannot hold says nothing about places


def _is_nonlinear(e: Expr) -> bool:
    """Whether it multiplies, divides by or takes remainders of what is known only when the kernel runs."""
    return any(
        free_vars(x.a) and free_vars(x.b) if isinstance(x, Mul) else bool(free_vars(x.b))
        for x in walk(e)
        if isinstance(x, (Mul, FloorDiv, FloorMod))
    )


_HELD = (Add, Sub, Mul, FloorDiv, FloorMod, Min, Max, LT, LE, EQ, NE, And, Or, Not)
"""What integer sets hold, of affine operands."""


def _affine(e: Expr, unknown: dict[Expr, Var]) -> Expr:
    """A condition or an index with what sets cannot hold (values from memory, choices between them) as variables of their own; equal
    ones are one variable."""
    if isinstance(e, (Const, Var)):
        return e
    if isinstance(e, _HELD):
        return map_children(e, lambda c: _affine(c, unknown))
    return unknown.setdefault(e, Var(f"unknown{len(unknown)}"))
