"""Where threads wait for each other: between statements of which one reads or writes what another thread has written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...analysis.dependence import carried, private_buffers
from ...analysis.regions import accesses, blocks_under, loop_env, resolve
from ...ir.expr import Buffer, Expr, Var
from ...ir.node import with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import as_int, free_vars, is_const
from ...ir.stmt import For, Seq, Stmt, Sync, map_statements, seq, walk_statements
from .owners import part_of


@dataclass(frozen=True)
class _Touch:
    """An access by threads.

    Attributes:
        whose: which thread touches an element, for each dimension; None where that is unknown, or where a thread writes for others, too.
        threads: which loops are bound, and how far they run.
    """

    buffer: Buffer
    is_write: bool
    whose: tuple[frozenset[tuple[Expr, int]], ...] | None
    threads: tuple[tuple[str, Expr], ...]


def place_syncs(func: PrimFunc) -> PrimFunc:
    """Put a `Sync` between statements of which each is run by threads of its own loops, where one touches what the other writes:

        for t in threadIdx.x: range(64): S[t] = A[t]
        sync shared
        for t in threadIdx.x: range(64): B[t] = S[63 - t]

    Inside of a bound loop none is needed: schedules keep its iterations independent. Where a loop runs such statements again and again,
    there is one behind the last of them, too, if the first touches what the last ones do. None stands between statements in which each
    thread touches what it wrote itself. Inside of loops bound to blockIdx the threads of a block wait, scope "shared", elsewhere all
    blocks, scope "global". Without bound loops nothing changes.
    """
    if not any(s.kind == "bound" for s in func.loops.values()):
        return func
    scope = "global" if _binds(func.body, "blockIdx") else "shared"
    body = _Placer(func).visit(func.body, scope)
    return func if body is func.body else with_fields(func, body=body)


def _binds(s: Stmt, index: str) -> bool:
    return any(isinstance(x, For) and x.thread.startswith(index) for x in walk_statements(s))


class _Placer:
    """Walks through a function.

    Attributes:
        names: a variable that stands for each index of a thread.
    """

    def __init__(self, func: PrimFunc) -> None:
        self.func = func
        self.names: dict[str, Var] = {}

    def visit(self, s: Stmt, scope: str) -> Stmt:
        if isinstance(s, For):
            if s.thread.startswith("threadIdx"):
                return s
            inner = "shared" if s.thread.startswith("blockIdx") else scope
            body = self.visit(s.body, inner)
            if s.kind != "bound" or s.thread.startswith("vthread"):
                body = self.again(s, body, inner)
            return s if body is s.body else with_fields(s, body=body)
        if not isinstance(s, Seq):
            return map_statements(s, lambda x: self.visit(x, scope))
        parts: list[Stmt] = []
        since: list[_Touch] = []
        for x in (self.visit(x, scope) for x in s.stmts):
            first, _ = self.edge(x, False, scope)
            last, waits = self.edge(x, True, scope)
            if _clash(since, first):
                parts.append(Sync(scope))
                since = []
            since = last if waits else [*since, *last]
            parts.append(x)
        return s if len(parts) == len(s.stmts) and all(a is b for a, b in zip(parts, s.stmts)) else seq(parts)

    def again(self, loop: For, body: Stmt, scope: str) -> Stmt:
        """The body of a loop, with a `Sync` at its end where the next iteration begins with what this one's end touches.

        What each iteration has of its own lies at one place for all of them; of other buffers independent iterations touch other elements.
        """
        (first, _), (last, _) = self.edge(body, False, scope), self.edge(body, True, scope)
        if is_const(loop.extent, 1) or not _clash(last, first):
            return body
        if carried(self.func, self.func.loops[loop.var]) is None:
            own = private_buffers(self.func, self.func.loops[loop.var])
            if not _clash([t for t in last if t.buffer in own], [t for t in first if t.buffer in own]):
                return body
        return seq([body, Sync(scope)])

    def edge(self, s: Stmt, at_end: bool, scope: str) -> tuple[list[_Touch], bool]:
        """What a statement touches before its first `Sync`, or after its last one, and whether it surely has one."""
        match s:
            case Sync():
                return [], True
            case Seq(stmts):
                found: list[_Touch] = []
                for x in reversed(stmts) if at_end else stmts:
                    own, waits = self.edge(x, at_end, scope)
                    found += own
                    if waits:
                        return found, True
                return found, False
            case For() if not s.thread.startswith("threadIdx") and as_int(s.extent, 0) > 0:
                return self.edge(s.body, at_end, scope)
            case _:
                return list(_touches(s, self.names, scope)), False


def _clash(before: Sequence[_Touch], after: Sequence[_Touch]) -> bool:
    """Whether a thread may touch what another one writes."""
    return any(
        a.buffer is b.buffer
        and (a.is_write or b.is_write)
        and (a.threads != b.threads or a.whose is None or a.whose != b.whose)
        for a in before
        for b in after
    )


def _touches(s: Stmt, names: dict[str, Var], scope: str) -> Iterator[_Touch]:
    """The accesses of a statement to memory that those who wait share."""
    for block in blocks_under(s):
        loops = [x for x in walk_statements(s) if isinstance(x, For) and any(b is block for b in blocks_under(x))]
        around = [x for x in loops if x.thread.startswith("threadIdx")]
        env = loop_env(loops)
        threads = tuple(sorted(((x.thread, x.extent) for x in around), key=lambda t: t[0]))
        for a in accesses(block):
            if a.buffer.scope not in ("local", "warp"):
                parts = [part_of(i, around, env, names) for i in resolve(block, a.indices)]
                whose = tuple(p.whose for p in parts if p is not None)
                used = {v for part in whose for term, _ in part for v in free_vars(term)}
                is_known = None not in parts and (not a.is_write or {names[x.thread] for x in around} <= used)
                yield _Touch(a.buffer, a.is_write, whose if is_known and scope == "shared" else None, threads)
