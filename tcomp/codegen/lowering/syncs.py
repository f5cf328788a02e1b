"""Where threads wait for each other: between statements of which one reads or writes what another thread has written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...analysis.regions import accesses, blocks_under, resolve
from ...ir.expr import Buffer, Expr, Var
from ...ir.node import substitute, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import For, Seq, Stmt, Sync, map_statements, seq, walk_statements


@dataclass(frozen=True)
class _Touch:
    """An access by threads.

    Attributes:
        element: the indices in terms of the threads' own numbers; None where other variables take part.
        threads: which loops are bound, and how far they run.
    """

    buffer: Buffer
    is_write: bool
    element: tuple[Expr, ...] | None
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
    names: dict[str, Var] = {}
    body = _visit(func.body, "global" if _binds(func.body, "blockIdx") else "shared", names)
    return func if body is func.body else with_fields(func, body=body)


def _binds(s: Stmt, index: str) -> bool:
    return any(isinstance(x, For) and x.thread.startswith(index) for x in walk_statements(s))


def _visit(s: Stmt, scope: str, names: dict[str, Var]) -> Stmt:
    if isinstance(s, For):
        if s.thread.startswith("threadIdx"):
            return s
        inner = "shared" if s.thread.startswith("blockIdx") else scope
        body = _visit(s.body, inner, names)
        if s.kind == "serial":
            body = _again(body, inner, names)
        return s if body is s.body else with_fields(s, body=body)
    if not isinstance(s, Seq):
        return map_statements(s, lambda x: _visit(x, scope, names))
    parts: list[Stmt] = []
    since: list[_Touch] = []
    for x in (_visit(x, scope, names) for x in s.stmts):
        own = list(_touches(x, names))
        if _clash(since, own):
            parts.append(Sync(scope))
            since = []
        since = [*since, *own]
        parts.append(x)
    return s if len(parts) == len(s.stmts) and all(a is b for a, b in zip(parts, s.stmts)) else seq(parts)


def _again(body: Stmt, scope: str, names: dict[str, Var]) -> Stmt:
    """The body of a loop, with a `Sync` at its end where the next iteration begins with what this one's end touches."""
    parts = body.stmts if isinstance(body, Seq) else (body,)
    waits = [i for i, x in enumerate(parts) if isinstance(x, Sync)]
    first = [t for x in parts[: waits[0] if waits else len(parts)] for t in _touches(x, names)]
    last = [t for x in parts[waits[-1] if waits else 0 :] for t in _touches(x, names)]
    return seq([*parts, Sync(scope)]) if _clash(last, first) else body


def _clash(before: Sequence[_Touch], after: Sequence[_Touch]) -> bool:
    """Whether a thread may touch what another one writes."""
    return any(
        a.buffer is b.buffer
        and (a.is_write or b.is_write)
        and (a.threads != b.threads or a.element is None or a.element != b.element)
        for a in before
        for b in after
    )


def _touches(s: Stmt, names: dict[str, Var]) -> Iterator[_Touch]:
    """The accesses of a statement to memory that threads share."""
    for block in blocks_under(s):
        bound = [x for x in walk_statements(s) if isinstance(x, For) and x.thread.startswith("threadIdx")]
        around = [x for x in bound if any(b is block for b in blocks_under(x))]
        own: dict[Var, Expr] = {x.var: names.setdefault(x.thread, Var(x.thread)) for x in around}
        for a in accesses(block):
            if a.buffer.scope != "local":
                element = tuple(substitute(i, own) for i in resolve(block, a.indices))
                is_known = all(free_vars(i) <= set(names.values()) for i in element)
                threads = tuple(sorted(((x.thread, x.extent) for x in around), key=lambda t: t[0]))
                yield _Touch(a.buffer, a.is_write, element if is_known else None, threads)
