"""Who reads and writes what: accesses of blocks, and the boxes that they cover."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..ir.arith import Env, Linear, interval, known_ranges, linear, loop_range, simplify
from ..ir.expr import Buffer, Const, Expr, Load, Max, Min, Var, const
from ..ir.node import substitute, walk
from ..ir.primfunc import PrimFunc
from ..ir.query import free_vars
from ..ir.stmt import Block, For, If, Let, Stmt, Store, sub_statements, walk_statements


@dataclass(frozen=True, slots=True)
class Access:
    """One place where a block touches a buffer.

    Attributes:
        indices: in terms of the block's iterators and of the loops inside the block.
        inner: the loops inside the block, around the access.
    """

    block: Block
    buffer: Buffer
    indices: tuple[Expr, ...]
    is_write: bool
    inner: tuple[For, ...] = ()


@lru_cache(maxsize=256)  # the checks of a schedule step ask for these again and again
def accesses(block: Block) -> tuple[Access, ...]:
    """The accesses of a block, its init included; equal ones once."""
    found: list[Access] = []

    def visit(s: Stmt, inner: tuple[For, ...]) -> None:
        values: tuple[Expr, ...] = ()
        if isinstance(s, Store):
            found.append(Access(block, s.buffer, s.indices, True, inner))
            values = (*s.indices, s.value)
        elif isinstance(s, Let):
            values = (s.value,)
        elif isinstance(s, If):
            values = (s.cond,)
        for value in values:
            found.extend(Access(block, x.buffer, x.indices, False, inner) for x in walk(value) if isinstance(x, Load))
        deeper = (*inner, s) if isinstance(s, For) else inner
        for x in sub_statements(s):
            visit(x, deeper)

    visit(block, ())
    return tuple(dict.fromkeys(found))


def loops_inside(func: PrimFunc, a: Access, around: Sequence[For]) -> list[For]:
    """The loops around an access, those of its block's body included, but for some outer ones."""
    return [*(s for s in loops_around(func, a.block) if s not in around), *a.inner]


def reads(block: Block) -> list[Buffer]:
    """The buffers that a block reads, but for the accumulators of its own reduction."""
    return list(_touched(block)[0])


def writes(block: Block) -> list[Buffer]:
    """The buffers that a block writes."""
    return list(_touched(block)[1])


@lru_cache(maxsize=256)
def _touched(block: Block) -> tuple[tuple[Buffer, ...], tuple[Buffer, ...]]:
    """What a block reads, and what it writes."""
    written = dict.fromkeys(a.buffer for a in accesses(block) if a.is_write)
    keep = (a.buffer for a in accesses(block) if not a.is_write and not (block.is_reduction and a.buffer in written))
    return tuple(dict.fromkeys(keep)), tuple(written)


@lru_cache(maxsize=256)
def computes_places(block: Block) -> bool:
    """Whether a block stores at places that it reads from memory."""
    return any(a.is_write and any(isinstance(x, Load) for i in a.indices for x in walk(i)) for a in accesses(block))


def producers(func: PrimFunc, buffer: Buffer) -> list[Block]:
    """The blocks that write a buffer, in program order."""
    return list(_users(func.body)[1].get(buffer, ()))


def consumers(func: PrimFunc, buffer: Buffer) -> list[Block]:
    """The blocks that read a buffer, in program order."""
    return list(_users(func.body)[0].get(buffer, ()))


@lru_cache(maxsize=32)
def _users(body: Stmt) -> tuple[dict[Buffer, list[Block]], dict[Buffer, list[Block]]]:
    """The blocks that read each buffer, and those that write it, in program order."""
    users: tuple[dict[Buffer, list[Block]], dict[Buffer, list[Block]]] = ({}, {})
    for b in walk_statements(body):
        if isinstance(b, Block):
            for known, touched in zip(users, _touched(b)):
                for buffer in touched:
                    known.setdefault(buffer, []).append(b)
    return users


def path_to(root: Stmt, target: Stmt) -> list[Stmt]:
    """The statements from the root down to one, both included."""
    parents, path = _parents(root), [target]
    while path[-1] is not root:
        path.append(parents[path[-1]])
    return path[::-1]


@lru_cache(maxsize=16)
def _parents(root: Stmt) -> dict[Stmt, Stmt]:
    return {x: s for s in walk_statements(root) for x in sub_statements(s)}


def loops_around(func: PrimFunc, target: Stmt) -> list[For]:
    """The loops around a statement, outermost first."""
    return [s for s in path_to(func.body, target)[:-1] if isinstance(s, For)]


def blocks_under(s: Stmt) -> list[Block]:
    """The blocks in a subtree, in program order."""
    return [x for x in walk_statements(s) if isinstance(x, Block)]


def loop_env(loops: Iterable[For]) -> dict[Var, tuple[Expr, Expr]]:
    """The ranges of loop variables."""
    return {s.var: loop_range(s.extent) for s in loops}


def resolve(block: Block, indices: Iterable[Expr]) -> tuple[Expr, ...]:
    """Indices in terms of the loops around the block."""
    bindings = block.bindings()
    return tuple(substitute(i, bindings) for i in indices)


@dataclass(frozen=True, slots=True)
class Box:
    """A product of intervals: for each dimension the least index and the number of indices."""

    mins: tuple[Expr, ...]
    extents: tuple[Expr, ...]


def index_span(e: Expr, inner: Mapping[Var, tuple[Expr, Expr]], env: Env) -> tuple[Expr, Expr] | None:
    """The least and greatest value of an index while the inner variables run, in terms of the others.

    None where a value from memory decides, or a non-linear term depends on an inner variable and has no constant bounds.
    """
    form = linear(e, {**env, **inner})
    low, high = Linear(None, form.constant), Linear(None, form.constant)
    for term, c in form.terms.items():
        if any(isinstance(x, Load) for x in walk(term)):
            return None  # known only when the program runs
        if not free_vars(term) & inner.keys():
            low, high = low.add(Linear({term: c})), high.add(Linear({term: c}))
            continue
        ends = _term_span(term, inner, env)
        if ends is None:
            return None
        first, last = ends if c > 0 else (ends[1], ends[0])
        low, high = low.add(linear(first), c), high.add(linear(last), c)
    return low.expr(), high.expr()


def _term_span(term: Expr, inner: Mapping[Var, tuple[Expr, Expr]], env: Env) -> tuple[Expr, Expr] | None:
    if isinstance(term, Var):
        return inner[term]
    both = {**env, **inner}
    if type(term).__name__ in ("FloorDiv", "FloorMod") and isinstance(term.b, Const) and term.b.value > 0:
        span = index_span(term.a, inner, env)
        if span is not None and type(term).__name__ == "FloorDiv":
            return simplify(span[0] // term.b, both), simplify(span[1] // term.b, both)
        if span is not None:
            # a remainder is monotonous while the quotient stays the same
            first, last = simplify(span[0] // term.b, both), simplify(span[1] // term.b, both)
            if first == last:
                return simplify(span[0] % term.b, both), simplify(span[1] % term.b, both)
    low, high = interval(term, known_ranges(both))
    return None if low is None or high is None else (const(low), const(high))


_Ends = dict[frozenset[tuple[Expr, int]], Linear]
"""Ends of spans; of those that differ by a constant only the outermost is kept, so that few are left to compare."""


def _note_end(ends: _Ends, form: Linear, outer: Callable[[int, int], int]) -> None:
    key = frozenset(form.terms.items())
    known = ends.get(key)
    ends[key] = form if known is None else Linear(form.terms, outer(known.constant, form.constant))


def _outermost(ends: _Ends, kind: type[Min] | type[Max]) -> Expr:
    first, *rest = (form.expr() for form in ends.values())
    for e in rest:
        first = kind(first, e)
    return first


def box_of(
    points: Iterable[tuple[Expr, ...]],
    inner: Mapping[Var, tuple[Expr, Expr]],
    env: Env,
    shape: tuple[Expr, ...],
    may_exceed: bool = False,
) -> Box:
    """A box around all of some index tuples while the inner variables run; a dimension without bounds is taken whole.

    Args:
        may_exceed: indices may lie beyond the shape; such a dimension is made as long as the others ask.
    """
    lows: list[_Ends] = [{} for _ in shape]
    highs: list[_Ends] = [{} for _ in shape]
    whole = [False] * len(shape)
    for indices in points:
        for d, index in enumerate(indices):
            span = index_span(index, inner, env)
            if span is None:
                whole[d] = True
            else:
                _note_end(lows[d], linear(span[0], env), min)
                _note_end(highs[d], linear(span[1], env), max)
    mins, extents = [], []
    for d, extent in enumerate(shape):
        span = (_outermost(lows[d], Min), _outermost(highs[d], Max)) if lows[d] else None
        if span is None or (whole[d] and not may_exceed):
            low, size = const(0), extent
        else:
            low = const(0) if whole[d] else simplify(span[0], env)
            size = simplify(Max(extent, span[1] + 1) if whole[d] else span[1] - span[0] + 1, env)
            if free_vars(size) & env.keys() - free_vars(extent):
                bound = interval(size, known_ranges(env))[1]
                size = const(bound) if bound is not None else extent
                low = low if bound is not None else const(0)
        mins.append(low)
        extents.append(size)
    return Box(tuple(mins), tuple(extents))


def is_dense(indices: tuple[Expr, ...], inner: Env, env: Env) -> bool:
    """Whether the inner variables run through a box without gaps: mixed radix digits in each dimension."""
    used: set[Var] = set()
    for index in indices:
        form = linear(index, {**env, **inner})
        digits: list[tuple[int, Expr]] = []
        for term, c in form.terms.items():
            if not free_vars(term) & inner.keys():
                continue
            if not isinstance(term, Var) or term in used:
                return False
            used.add(term)
            digits.append((c, inner[term][1]))
        stride = 1
        for number, (c, last) in enumerate(sorted(digits, key=lambda x: x[0]), 1):
            if c != stride:
                return False
            if isinstance(last, Const):
                stride *= last.value + 1
            elif number < len(digits):
                return False  # where the next digit begins is not known
    return True
