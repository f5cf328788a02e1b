"""A lowered kernel as launches: each statement of its top level runs on a grid of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from ...errors import UnsupportedError
from ...ir.expr import Buffer, Call, Expr, Load, Var, const
from ...ir.matrix_intrin import TILE
from ...ir.node import walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, as_int, equal
from ...ir.stmt import Allocate, Attrs, For, If, Seq, Stmt, Store, Sync, map_statements, sub_statements, walk_statements
from ..lowering.cross_threads import ACROSS

AXES = "xyz"


@dataclass(frozen=True)
class GridLaunch:
    """One launch.

    Attributes:
        body: what each thread runs; bound loops name its indices.
        grid: blocks along x, y, z, expressions of the symbolic extents. block: threads along x, y, z.
        buffers, dims: what it uses of the kernel's parameters and scratch, in their order.
    """

    body: Stmt
    grid: tuple[Expr, ...]
    block: tuple[int, ...]
    buffers: tuple[Buffer, ...]
    dims: tuple[Var, ...]


@dataclass(frozen=True)
class Launches:
    """What a kernel does on the device.

    Attributes:
        scratch: buffers in the device's memory that live while the kernel runs.
    """

    scratch: tuple[Buffer, ...]
    launches: tuple[GridLaunch, ...]


def launches_of(func: PrimFunc) -> Launches:
    """The launches of a function that went through all lowering steps.

    Raises:
        UnsupportedError: a loop bound to blockIdx inside one that is not bound, or loops of different extents bound to one index.
    """
    scratch: list[Buffer] = []
    parts: list[Stmt] = []
    has_blocks = any(isinstance(s, For) and s.thread.startswith("blockIdx") for s in walk_statements(func.body))

    def collect(s: Stmt) -> None:
        if isinstance(s, Allocate) and s.buffer.scope == "global":
            scratch.append(s.buffer)
            collect(s.body)
        elif isinstance(s, Seq) and has_blocks:
            for x in s.stmts:
                collect(x)
        elif not isinstance(s, Sync):
            parts.append(s)

    collect(func.body)
    known = (*func.buffers, *scratch)
    return Launches(tuple(scratch), tuple(_launch(p, known, func.dims, func.name) for p in parts))


def _launch(body: Stmt, buffers: tuple[Buffer, ...], dims: tuple[Var, ...], name: str) -> GridLaunch:
    extents: dict[str, Expr] = {}
    _collect_extents(body, extents, name, False)
    block = tuple(as_int(extents.get(f"threadIdx.{a}", const(1)), 0) for a in AXES)
    grid = tuple(extents.get(f"blockIdx.{a}", const(1)) for a in AXES)
    threads = {index: Var(index) for index in extents if index.startswith("threadIdx")}
    _refuse_beside(body, frozenset(i for i in extents if i not in threads), name)
    guarded, needed = _guarded(body, threads)
    for index in reversed([i for i in threads if i in needed]):
        guarded = For(threads[index], extents[index], guarded, "bound", thread=index)
    used = {x.buffer if isinstance(x, (Load, Store)) else x for x in walk(guarded) if isinstance(x, (Load, Store, Var))}
    return GridLaunch(
        guarded, grid, block, tuple(b for b in buffers if b in used), tuple(v for v in dims if v in used)
    )  # fmt: skip


def _collect_extents(s: Stmt, extents: dict[str, Expr], name: str, in_loop: bool) -> None:
    """Note the range of each index of the hardware that loops are bound to."""
    if isinstance(s, For) and s.kind == "bound" and not s.thread.startswith("vthread"):
        if in_loop and s.thread.startswith("blockIdx"):
            raise UnsupportedError(
                f"cannot launch kernel {name}",
                why=f"loop {s.var.name}, bound to {s.thread}, stands inside a loop that is not bound",
                hint="reorder the loops bound to blockIdx outside",
            )
        if extents.setdefault(s.thread, s.extent) != s.extent:
            raise UnsupportedError(
                f"cannot launch kernel {name}", why=f"loops of different extents are bound to {s.thread}"
            )
    inside = in_loop or (isinstance(s, For) and s.kind != "bound")
    for x in sub_statements(s):
        _collect_extents(x, extents, name, inside)


def _refuse_beside(s: Stmt, missing: frozenset[str], name: str) -> None:
    """Refuse what is not in all loops bound to indices of the grid: every block would do it, and blocks do not wait for each other."""
    if isinstance(s, For):
        missing = missing - {s.thread}
    if isinstance(s, Store) and missing:
        raise UnsupportedError(
            f"cannot launch kernel {name}",
            why=f"{s.buffer.name} is written beside the loop bound to {min(missing)}, not inside of it",
            hint="make it a nest of its own, or bind an inner loop",
        )
    for x in sub_statements(s):
        _refuse_beside(x, missing, name)


def _guarded(s: Stmt, threads: Mapping[str, Var]) -> tuple[Stmt, set[str]]:
    """What not all threads are to run is run by the first: statements that are bound to some indices of a launch, and not to others. In
    exchanges between threads all take part.

    Returns:
        The statement, and the indices that its conditions name.
    """
    needed: set[str] = set()

    def visit(x: Stmt, have: frozenset[str]) -> Stmt:
        if isinstance(x, For) and x.kind == "bound":
            have = have | {x.thread}
        lacking = [i for i in threads if i not in have]
        if is_of_warp(x):  # one warp writes to memory; what warps hold is their own
            lacking = [i for i in lacking if i != "threadIdx.x" and x.buffer.scope != "warp"]
        if lacking and (is_of_warp(x) or _is_for_one(x)):
            needed.update(lacking)
            condition = all_of([equal(threads[i], 0) for i in lacking])
            assert condition is not None
            return If(condition, x)
        return map_statements(x, lambda y: visit(y, have))

    return visit(s, frozenset()), needed


def _is_for_one(s: Stmt) -> bool:
    """Whether a thread can run a statement alone: it does something, waits for nobody and binds no loop to threads."""
    parts = list(walk_statements(s))
    is_shared = any(
        isinstance(x, Sync) or (isinstance(x, For) and x.kind == "bound") or exchanges_values(x) or is_of_warp(x)
        for x in parts
    )
    return not is_shared and any(isinstance(x, Store) for x in parts)


def is_of_warp(s: Stmt) -> TypeGuard[Store]:
    """Whether the lanes of a warp do a statement together, with tiles that they hold together."""
    return isinstance(s, Store) and isinstance(s.value, Call) and s.value.op.startswith(TILE)


def exchanges_values(s: Stmt) -> bool:
    """Whether all threads take part in a statement, to combine what each has."""
    return isinstance(s, Store) and isinstance(s.value, Call) and s.value.op in ACROSS.values()


def with_body(func: PrimFunc, launch: GridLaunch) -> PrimFunc:
    """A launch as a function of what it uses."""
    params = (*launch.buffers, *launch.dims)
    pairs = ([func.params[i] for i in pair] for pair in func.attrs.get("aliases", ()))
    aliases = tuple(tuple(params.index(p) for p in pair) for pair in pairs if set(pair) <= set(params))
    return with_fields(func, params=params, body=launch.body, num_outputs=0, attrs=Attrs.of(aliases=aliases))
