"""Statements: loops, blocks and stores. Each is equal to itself alone, so a statement is also a place in a program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from .expr import Buffer, Expr, Var
from .node import Node, atom, identity_node, node, substitute, with_fields

LoopKind = Literal["serial", "parallel", "vectorized", "unrolled", "bound"]
IterKind = Literal["spatial", "reduce"]


@node
class Attrs(Node, Mapping):
    """An immutable mapping of names to plain values."""

    items_: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def of(mapping: Mapping[str, Any] | None = None, **more: Any) -> Attrs:
        return Attrs(tuple(sorted({**(mapping or {}), **more}.items())))

    def __getitem__(self, key: str) -> Any:
        for k, v in self.items_:
            if k == key:
                return v
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (k for k, _ in self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    def with_(self, **changes: Any) -> Attrs:
        return Attrs.of(self, **changes)


class Stmt(Node):
    """Base of all statements."""

    __slots__ = ()


@identity_node
class Store(Stmt):
    """buffer[indices] = value; with a mask, only in the lanes where it holds."""

    buffer: Buffer = atom()
    indices: tuple[Expr, ...]
    value: Expr
    mask: Expr | None = None


@identity_node
class Seq(Stmt):
    """Statements one after another."""

    stmts: tuple[Stmt, ...]


@identity_node
class If(Stmt):
    """Runs `then` where the condition holds."""

    cond: Expr
    then: Stmt
    orelse: Stmt | None = None


@identity_node
class Let(Stmt):
    """Names a value within the body."""

    var: Var = atom()
    value: Expr
    body: Stmt


@identity_node
class Allocate(Stmt):
    """A buffer that lives while the body runs. Made by lowering; before that, `PrimFunc.allocs` lists the buffers."""

    buffer: Buffer = atom()
    body: Stmt


@identity_node
class Sync(Stmt):
    """All threads wait until each has come here, and see what the others have written. Made by lowering; where loops run one after
    another, it does nothing.

    Attributes:
        scope: who waits: "shared", the threads of a block; "global", all blocks.
    """

    scope: str


@identity_node
class Prefetch(Stmt):
    """Bring an element's cache line near; the element need not exist. Made by lowering.

    Attributes:
        level: the nearest cache that it is to reach.
    """

    buffer: Buffer = atom()
    indices: tuple[Expr, ...]
    level: int = 1


@identity_node
class For(Stmt):
    """A loop of `var` over 0, 1, ..., extent - 1. The variable is the loop's handle.

    Attributes:
        kind: "serial"; "parallel" (iterations are independent and may run in any thread); "vectorized" (independent,
            run in lanes); "unrolled"; "bound" (the iteration is an index of the hardware, `thread`).
        thread: "blockIdx.x", "threadIdx.x", "vthread.x"... (or .y, .z) of a bound loop, else "".
    """

    var: Var = atom()
    extent: Expr
    body: Stmt
    kind: LoopKind = "serial"
    annotations: Attrs = Attrs()
    thread: str = ""


@identity_node
class IterVar(Node):
    """A block iterator: a point of the block's domain is a value of each iterator.

    Attributes:
        extent: the domain is 0 <= var < extent.
        kind: "spatial" (every value writes elements of its own) or "reduce" (values combine in any order).
        binding: its value, an expression of the loops around the block.
    """

    var: Var = atom()
    extent: Expr
    kind: IterKind
    binding: Expr


@identity_node
class Block(Stmt):
    """A unit of computation with a unique name: what schedule primitives name.

    What the block reads and writes is derived from its body (`analysis.regions`), so that it cannot disagree with it.

    Attributes:
        iters: the iterators; the body is written in terms of these alone.
        body: runs once for each point of the domain; it may hold loops of its own, but no blocks.
        init: runs before the body where all reduce iterators are 0.
        where: the points at which the block runs, a condition on the loops around it; None means all.
    """

    name: str
    iters: tuple[IterVar, ...]
    body: Stmt
    init: Stmt | None = None
    where: Expr | None = None
    annotations: Attrs = Attrs()

    @property
    def spatial(self) -> tuple[IterVar, ...]:
        """The iterators whose values lead to elements of their own."""
        return tuple(it for it in self.iters if it.kind == "spatial")

    @property
    def reduce(self) -> tuple[IterVar, ...]:
        """The iterators that a reduction runs over."""
        return tuple(it for it in self.iters if it.kind == "reduce")

    @property
    def is_reduction(self) -> bool:
        return any(it.kind == "reduce" for it in self.iters)

    def bindings(self) -> dict[Var, Expr]:
        return {it.var: it.binding for it in self.iters}


def seq(stmts: Iterable[Stmt]) -> Stmt:
    """The statements in order, without needless nesting."""
    flat: list[Stmt] = []
    for s in stmts:
        flat.extend(s.stmts) if isinstance(s, Seq) else flat.append(s)
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))


def sub_statements(s: Stmt) -> tuple[Stmt, ...]:
    """The statements directly inside one (a block's init and body included)."""
    match s:
        case Seq():
            return s.stmts
        case For() | Let() | Allocate():
            return (s.body,)
        case If():
            return (s.then,) if s.orelse is None else (s.then, s.orelse)
        case Block():
            return (s.body,) if s.init is None else (s.init, s.body)
        case _:
            return ()


def walk_statements(s: Stmt) -> Iterator[Stmt]:
    """Every statement of a tree, parents first, in program order; expressions are not entered."""
    stack = [s]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(sub_statements(current)))


def nest_depth(root: Stmt) -> int:
    """How many loops stand one inside another, at most."""
    deepest, stack = 0, [(root, 0)]
    while stack:
        s, depth = stack.pop()
        deepest = max(deepest, depth)
        stack += [(x, depth + isinstance(s, For)) for x in sub_statements(s)]
    return deepest


def map_statements(s: Stmt, f: Any) -> Stmt:
    """The statement with `f` applied to each statement directly inside it; the same object where nothing changed."""
    match s:
        case Seq(stmts):
            new = tuple(f(x) for x in stmts)
            if all(a is b for a, b in zip(new, stmts)):
                return s
            return seq(x for x in new if not (isinstance(x, Seq) and not x.stmts))
        case For() | Let() | Allocate():
            body = f(s.body)
            return s if body is s.body else with_fields(s, body=body)
        case If():
            then, orelse = f(s.then), f(s.orelse) if s.orelse is not None else None
            return s if then is s.then and orelse is s.orelse else with_fields(s, then=then, orelse=orelse)
        case Block():
            init, body = f(s.init) if s.init is not None else None, f(s.body)
            return s if init is s.init and body is s.body else with_fields(s, init=init, body=body)
        case _:
            return s


def replace_statements(root: Stmt, mapping: Mapping[Stmt, Stmt]) -> Stmt:
    """Replace statements by identity; a replacement is not entered."""

    def visit(s: Stmt) -> Stmt:
        return mapping[s] if s in mapping else map_statements(s, visit)

    return visit(root)


def own_binders(body: Stmt) -> Stmt:
    """A copy of a statement that binds variables and allocates buffers of its own."""
    fresh: dict[Var | Buffer, Expr | Buffer] = {}

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, (For, Let)):
            fresh[s.var] = Var(s.var.name, s.var.dtype)
            s = with_fields(s, var=fresh[s.var])
        elif isinstance(s, Allocate):
            fresh[s.buffer] = with_fields(s.buffer)
        return map_statements(s, visit)

    new = visit(body)
    return substitute(new, fresh) if fresh else body


EMPTY = Seq(())
"""The statement that does nothing."""


def without_block(root: Stmt, block: Block) -> Stmt:
    """A statement without a block, and without the loops that this leaves empty."""

    def visit(s: Stmt) -> Stmt:
        if s is block:
            return EMPTY
        new = map_statements(s, visit)
        return EMPTY if isinstance(new, For) and isinstance(new.body, Seq) and not new.body.stmts else new

    return visit(root)
