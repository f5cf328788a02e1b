"""Scheduled PrimFunc -> PrimFunc for a GPU: where buffers live, which registers are whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.dependence import private_loops
from ...analysis.regions import accesses, blocks_under, loops_around
from ...errors import UnsupportedError
from ...ir.arith import dims_env
from ...ir.expr import Buffer, Expr, Load, Var, const
from ...ir.node import rewrite, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import as_int
from ...ir.stmt import Allocate, For, If, Let, Seq, Stmt, Store, map_statements, sub_statements, walk_statements
from . import simplify_func
from .blocks import lower_blocks, operands_of_instructions
from .common import Env, extend
from .cross_threads import lower_cross_threads
from .flatten import flatten_buffers
from .intrinsics import place_intrinsics
from .open_tiles import split_open_tiles
from .owners import part_of
from .pipeline import pipeline_copies
from .pragmas import apply_pragmas
from .storage import place_storage
from .syncs import place_syncs
from .vectorize import vectorize_loops

OWN = ("local", "warp")
"""Scopes of what lies in registers."""


def choose_scopes(func: PrimFunc) -> PrimFunc:
    """Decide where intermediate buffers live: in registers of a thread, shared memory of a block, or the device's memory.

    A buffer of scope "global" that one thread alone sees, or the threads of one block, becomes one of theirs; one of scope "local" that several
    launches use becomes global.

    Raises:
        UnsupportedError: a buffer of scope "shared" is used by several launches; a loop bound to threads stands beside other statements inside of
            another one.
    """
    _refuse_beside_threads(func.body, None, func.name)
    private, loops = private_loops(func), func.loops
    scopes: dict[Buffer, Buffer] = {}
    for b in func.allocs:
        own = private[b] & _common_loops(func, b)
        by_thread = any(loops[v].thread.startswith("threadIdx") for v in own)
        by_block = any(loops[v].thread.startswith("blockIdx") for v in own) or _is_in_one_block(func, b)
        scope = _scope(b, by_thread, by_block)
        if scope != b.scope:
            scopes[b] = with_fields(b, scope=scope)
    if not scopes:
        return func
    allocs = tuple(scopes.get(b, b) for b in func.allocs)
    return with_fields(func, body=substitute(func.body, scopes), allocs=allocs)


def place_on_gpu(func: PrimFunc) -> PrimFunc:
    """Blocks become statements over buffers of their final size. What threads share is allocated outside of their loops."""
    private, loops = private_loops(func), func.loops
    may_enter = {b: {v for v in private[b] if _may_enter(b.scope, loops[v].thread)} for b in func.allocs}
    return place_storage(lower_blocks(func), may_enter, operands_of_instructions(func))


def _refuse_beside_threads(s: Stmt, around: For | None, name: str) -> None:
    """Refuse loops over threads some of which share what is computed beside them: threads wait for each other outside of such loops alone."""
    if isinstance(s, Seq) and around is not None:
        inner = next((x for x in walk_statements(s) if isinstance(x, For) and x.thread.startswith("threadIdx")), None)
        if inner is not None:
            raise UnsupportedError(
                f"cannot run kernel {name} by threads",
                why=f"loop {inner.var.name}, bound to {inner.thread}, has neighbours inside loop {around.var.name}, bound to {around.thread}",
                hint="make nests of loops over threads, one for each stage",
            )
    if isinstance(s, For) and s.thread.startswith("threadIdx"):
        around = s
    for x in sub_statements(s):
        _refuse_beside_threads(x, around, name)


def _is_in_one_block(func: PrimFunc, b: Buffer) -> bool:
    """Whether all users of a buffer are part of a launch of one block: the whole function if no loop is bound to blockIdx, else a statement of its
    top level."""
    tops = func.body.stmts if isinstance(func.body, Seq) and _has_blocks(func.body) else (func.body,)
    using = [x for x in tops if any(a.buffer is b for block in blocks_under(x) for a in accesses(block))]
    return len(using) == 1 and not _has_blocks(using[0])


def _has_blocks(s: Stmt) -> bool:
    return any(isinstance(x, For) and x.thread.startswith("blockIdx") for x in walk_statements(s))


def _common_loops(func: PrimFunc, b: Buffer) -> set[Var]:
    """The loops that hold all uses of a buffer."""
    users = [x for x in func.blocks.values() if any(a.buffer is b for a in accesses(x))]
    nests = [{s.var for s in loops_around(func, x)} for x in users]
    return set.intersection(*nests) if nests else set()


def _scope(b: Buffer, by_thread: bool, by_block: bool) -> str:
    if b.scope == "shared" and not by_block:
        raise UnsupportedError(
            f"buffer {b.name} cannot be shared", why="blocks of threads, or several launches, use it",
            hint="compute it inside the loop that is bound to blockIdx (compute_at)",
        )  # fmt: skip
    if b.scope == "warp" and not (by_thread or by_block):
        raise UnsupportedError(
            f"buffer {b.name} cannot be a warp's", why="blocks of threads, or several launches, use it",
            hint="compute it inside the loop that is bound to blockIdx (compute_at)",
        )  # fmt: skip
    if b.scope == "local":
        return "local" if by_thread or by_block else "global"
    if b.scope == "global" and (
        by_thread or by_block
    ):  # each iteration has its own, which may differ from its neighbours'
        return "local" if by_thread else "shared"
    return b.scope


def _may_enter(scope: str, thread: str) -> bool:
    """Whether a buffer may live inside of a loop: nothing that threads share lives in one of them."""
    if scope in OWN:
        return True
    return scope == "shared" and not thread.startswith("threadIdx")


# registers


@dataclass(frozen=True)
class _Use:
    """An access to a buffer: the node, the loops bound to threads around it, the ranges there."""

    node: Load | Store
    threads: tuple[For, ...]
    env: Env


def distribute_registers(func: PrimFunc) -> PrimFunc:
    """Give each thread its own part of local buffers that loops over threads share:

        C = alloc local (64, 64)
        for t in threadIdx.x: range(16): for i in range(4): C[t * 4 + i, 0] = 0
        for t in threadIdx.x: range(16): for i in range(4): C[t * 4 + i, 0] = C[t * 4 + i, 0] + A[i]

    keeps 4 rows in each thread. All loops over threads must agree which thread has which element: those at `far * s * n + t * s + near`, for
    thread t of n and near < s.

    Raises:
        UnsupportedError: they do not.
    """

    def visit(s: Stmt, env: Env, inside: bool) -> Stmt:
        if isinstance(s, (For, Let)):
            here = extend(env, s)
            is_inside = inside or (isinstance(s, For) and s.thread.startswith("threadIdx"))
            return map_statements(s, lambda x: visit(x, here, is_inside))
        if isinstance(s, Allocate) and s.buffer.scope in OWN and not inside:
            s = _distributed(s, env)
        return map_statements(s, lambda x: visit(x, env, inside))

    return with_fields(func, body=visit(func.body, dims_env(func.dims), False))


def _distributed(s: Allocate, env: Env) -> Stmt:
    uses = list(_uses(s.body, s.buffer, (), env))
    if not any(u.threads for u in uses):
        return s
    names: dict[str, Var] = {}
    bound = {tuple(sorted((t.thread, as_int(t.extent, 0)) for t in u.threads)) for u in uses}
    found = {id(u.node): [part_of(i, u.threads, u.env, names) for i in u.node.indices] for u in uses}
    parts = {node: [p for p in own if p is not None] for node, own in found.items()}
    owners = {tuple(p.whose for p in own) for own in parts.values()}
    is_known = all(p is not None and bool(p.whose) == (p.extent is not None) for own in found.values() for p in own)
    if len(bound) != 1 or len(owners) != 1 or not is_known:
        raise UnsupportedError(
            f"the threads of a block cannot keep {s.buffer.name} in registers",
            why="its users do not agree which thread has which element",
            hint="split and bind the loops of all of them alike, or set_scope it to shared",
        )
    whole = [max((p.extent or 0 for p in axis), default=0) for axis in zip(*parts.values())]
    shape = tuple(const(own) if own else extent for own, extent in zip(whole, s.buffer.shape))
    new = with_fields(s.buffer, shape=shape)

    def moved(x: Any) -> Any:
        own = parts.get(id(x))
        return x if own is None else with_fields(x, buffer=new, indices=tuple(p.index for p in own))

    return Allocate(new, _rewrite_uses(s.body, moved))


def _rewrite_uses(s: Stmt, moved: Callable[[Any], Any]) -> Stmt:
    """A statement with stores and loads exchanged; those inside of indices are exchanged with them."""

    def expression(e: Expr) -> Expr:
        def pre(x: object) -> object | None:
            new = moved(x)
            return None if new is x else new

        return rewrite(e, lambda x: x, pre)

    def visit(x: Stmt) -> Stmt:
        match x:
            case Store():
                new = moved(x)
                indices = new.indices if new is not x else tuple(map(expression, x.indices))
                return with_fields(new, value=expression(x.value), indices=indices)
            case If():
                return map_statements(with_fields(x, cond=expression(x.cond)), visit)
            case Let():
                return map_statements(with_fields(x, value=expression(x.value)), visit)
            case _:
                return map_statements(x, visit)

    return visit(s)


def _uses(s: Stmt, buffer: Buffer, threads: tuple[For, ...], env: Env) -> Iterator[_Use]:
    """The accesses to a buffer under a statement."""
    if isinstance(s, (For, Let)):
        inner = extend(env, s)
        roots = [s.value] if isinstance(s, Let) else []
        around = (*threads, s) if isinstance(s, For) and s.thread.startswith("threadIdx") else threads
    else:
        inner, around = env, threads
        roots = [*s.indices, s.value] if isinstance(s, Store) else [s.cond] if isinstance(s, If) else []
    if isinstance(s, Store) and s.buffer is buffer:
        yield _Use(s, threads, env)
    for e in roots:
        for x in walk(e):
            if isinstance(x, Load) and x.buffer is buffer:
                yield _Use(x, threads, env)
    for x in sub_statements(s):
        yield from _uses(x, buffer, around, inner)


STEPS: Sequence[Callable[[PrimFunc], PrimFunc]] = (
    lower_cross_threads,
    choose_scopes,
    place_syncs,
    place_on_gpu,
    pipeline_copies,
    simplify_func,
    distribute_registers,
    split_open_tiles,
    flatten_buffers,
    place_intrinsics,
    apply_pragmas,
    vectorize_loops,
)
"""In place of those of CPUs. The compiler of CUDA C unrolls loops; a second version of a loop would take shared memory of its own."""
