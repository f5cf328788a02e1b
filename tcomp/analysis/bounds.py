"""Whether every access of a kernel lies inside its buffer: proved with integer sets, guards counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from ..ir.stmt import Block, Prefetch, Store, walk_statements
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


def accesses_outside(func: PrimFunc) -> Iterator[Outside]:
    """The accesses of a kernel's blocks that may leave their buffers."""
    dims = dims_env(func.dims)
    for b in (s for s in walk_statements(func.body) if isinstance(s, Block)):
        env: Ranges = {**dims, **{it.var: loop_range(it.extent) for it in b.iters}}
        for buffer, indices, guards in _accesses(b):
            for axis, (index, extent) in enumerate(zip(indices, buffer.shape)):
                if not _is_inside(index, extent, env, guards):
                    yield Outside(b, buffer, indices, axis, *interval(index, env))


def _accesses(b: Block) -> Iterator[tuple[Buffer, tuple[Expr, ...], tuple[Expr, ...]]]:
    """(buffer, indices, conditions that hold where it happens) of each access."""
    for part in (b.init, b.body):
        for s in walk_statements(part) if part is not None else ():
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


def _is_inside(index: Expr, extent: Expr, env: Ranges, guards: Sequence[Expr]) -> bool:
    inside = (LE(const(0), index), LT(index, extent))
    if all(can_prove(c, env) for c in inside):
        return True
    from_memory = any(isinstance(x, Load) for x in walk(index))
    if not from_memory and (_is_nonlinear(index) or _is_nonlinear(extent)):
        return True  # products of symbolic extents: out of reach of integer sets; the interpreter watches such accesses
    unknown: dict[Expr, Var] = {}
    known = [_affine(g, unknown) for g in guards]
    wanted = [_affine(c, unknown) for c in inside]
    space = Space([*env, *unknown.values()], 0)
    points = space.ranged(env, {})
    for c in known:
        try:
            points = points.intersect(space.condition(c, {}))
        except NotAffineError:
            continue  # a guard that says nothing about places
    try:
        return all(points.is_subset(space.condition(c, {})) for c in wanted)
    except NotAffineError:
        return False


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
