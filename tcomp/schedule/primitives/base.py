"""What every schedule primitive is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...analysis.regions import loop_env, path_to
from ...ir.arith import dims_env, simplify
from ...ir.expr import Buffer, Expr, Var
from ...ir.node import substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, conjuncts
from ...ir.stmt import Block, For, Let, Seq, Stmt, map_statements, replace_statements, seq


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a step is refused.

    Attributes:
        what: what cannot be done, in one line.
        why: the reason, with a witness where there is one.
        marks: places in the program, each with a note.
        hint: what would work.
    """

    what: str
    why: str
    marks: Mapping[Any, str] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block's handle: its name, which every primitive keeps."""

    name: str


@dataclass(frozen=True, slots=True)
class Primitive:
    """A schedule primitive: a check and a pure transformation.

    Attributes:
        check: (func, *args) -> Refusal or None; never raises for arguments of the right types.
        apply: (func, *args) -> (func, results); defined where the check returns None.
    """

    name: str
    check: Callable[..., Refusal | None]
    apply: Callable[..., tuple[PrimFunc, Any]]


def with_body(func: PrimFunc, body: Stmt, **changes: Any) -> PrimFunc:
    return with_fields(func, body=body, **changes)


def replace(func: PrimFunc, old: Stmt, new: Stmt) -> PrimFunc:
    """The function with one statement replaced."""
    return with_body(func, replace_statements(func.body, {old: new}))


def chain(outer: For, inner: For) -> list[For] | None:
    """The loops from `outer` down to `inner` if they are perfectly nested, else None."""
    loops = [outer]
    while loops[-1] is not inner:
        if not isinstance(loops[-1].body, For):
            return None
        loops.append(loops[-1].body)
    return loops


def rebind(s: Stmt, mapping: Mapping[Var, Expr], condition: Expr | None, env: dict[Var, tuple[Expr, Expr]]) -> Stmt:
    """Rewrite loop variables in the bindings and conditions of all blocks below; add a condition to each.

    Only bindings and conditions can mention loop variables, so bodies stay the same objects.
    """

    def visit(x: Stmt, env: dict[Var, tuple[Expr, Expr]]) -> Stmt:
        if isinstance(x, Block):
            iters = tuple(with_fields(it, binding=simplify(substitute(it.binding, mapping), env)) for it in x.iters)
            parts = [simplify(substitute(c, mapping), env) for c in conjuncts(x.where)]
            return with_fields(x, iters=iters, where=all_of([*parts, *([condition] if condition is not None else [])]))
        if isinstance(x, For):
            inner = {**env, **loop_env([x])}
            return map_statements(x, lambda y: visit(y, inner))
        return map_statements(x, lambda y: visit(y, env))

    return visit(s, env)


def env_at(func: PrimFunc, target: Stmt, inclusive: bool = False) -> dict[Var, tuple[Expr, Expr]]:
    """Ranges of the loops around a statement, and of the symbolic extents."""
    path = path_to(func.body, target)
    loops = [s for s in (path if inclusive else path[:-1]) if isinstance(s, For)]
    return {**dims_env(func.dims), **loop_env(loops)}


def duplicate(s: Stmt, taken: set[str]) -> Stmt:
    """A copy of a statement with loops, iterators, lets and block names of its own; the names join `taken`."""
    fresh: dict[Var, Var] = {}

    def visit(x: Stmt) -> Stmt:
        if isinstance(x, (For, Let)):
            fresh[x.var] = Var(x.var.name, x.var.dtype)
            x = with_fields(x, var=fresh[x.var])
        elif isinstance(x, Block):
            fresh.update({it.var: Var(it.var.name, it.var.dtype) for it in x.iters})
            name = fresh_name(x.name, taken)
            taken.add(name)
            x = with_fields(x, name=name, iters=tuple(with_fields(it, var=fresh[it.var]) for it in x.iters))
        return map_statements(x, visit)

    return substitute(visit(s), fresh)


def fresh_buffer(func: PrimFunc, like: Buffer, suffix: str, **changes: Any) -> Buffer:
    """An intermediate buffer like another one, under a name that is not taken."""
    names = {x.name for x in (*func.buffers, *func.allocs)}
    return with_fields(like, name=fresh_name(f"{like.name}_{suffix}", names), **changes)


def nest_of(b: Block, ranges: Mapping[Var, Expr] | None = None) -> tuple[Stmt, list[Var]]:
    """A block in fresh loops, one an iterator (of a given extent, else the whole), and these loops."""
    loops = [Var(it.var.name.removeprefix("v")) for it in b.iters]
    extents = [(ranges or {}).get(it.var, it.extent) for it in b.iters]
    nest: Stmt = with_fields(b, iters=tuple(with_fields(it, binding=v) for it, v in zip(b.iters, loops)))
    for v, extent in reversed(list(zip(loops, extents))):
        nest = For(v, extent, nest)
    return nest, loops


def insert_at_top(func: PrimFunc, place: Stmt, before: Sequence[Stmt] = (), after: Sequence[Stmt] = ()) -> Stmt:
    """The body with statements before and after one of its top level."""
    stmts = list(func.body.stmts) if isinstance(func.body, Seq) else [func.body]
    i = stmts.index(place)
    return seq([*stmts[:i], *before, place, *after, *stmts[i + 1 :]])


def fresh_name(wanted: str, taken: Any) -> str:
    """A name that is not taken."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def top_statement(func: PrimFunc, target: Stmt) -> Stmt:
    """The statement at the top level of the body that holds `target`."""
    path = path_to(func.body, target)
    return path[1] if isinstance(path[0], Seq) and len(path) > 1 else path[0]


def replace_buffer(s: Stmt, old: Buffer, new: Buffer) -> Stmt:
    """A statement with every access of one buffer made to another."""
    return substitute(s, {old: new})


def exchange_buffer(func: PrimFunc, old: Buffer, new: Buffer) -> PrimFunc:
    """The function with an intermediate buffer exchanged for another of the same shape."""
    return with_body(
        func, replace_buffer(func.body, old, new), allocs=tuple(new if x is old else x for x in func.allocs)
    )
