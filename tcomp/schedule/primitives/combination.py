"""How a block of a reduction combines: what rfactor needs to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ...dtype import DType
from ...ir.expr import Buffer, Const, Expr, Load, Select, Var, const
from ...ir.interp import run
from ...ir.node import substitute, walk
from ...ir.primfunc import PrimFunc
from ...ir.query import free_vars
from ...ir.stmt import Block, For, IterVar, Let, Seq, Stmt, Store, seq
from .patterns import neutral, parts

SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Combination:
    """One step of a reduction: each accumulator has an element, and all of them make the new accumulators.

    Attributes:
        targets: the buffers of the accumulators, all used at `index`.
        first: the values that the accumulators begin with, which change nothing.
        named: parts of the elements that have names, each of which may use those before it.
        held, new: stand for the accumulators and the elements in `results`, which uses nothing else.
        is_plain: a single store of target[index] = op(target[index], element), with op one of +, *, min, max.
    """

    targets: tuple[Buffer, ...]
    index: tuple[Expr, ...]
    first: tuple[Expr, ...]
    named: tuple[tuple[Var, Expr], ...]
    elements: tuple[Expr, ...]
    held: tuple[Var, ...]
    new: tuple[Var, ...]
    results: tuple[Expr, ...]
    is_plain: bool

    def step(self, targets: Sequence[Buffer], index: tuple[Expr, ...]) -> Stmt:
        """targets[index] = results of targets[index] and the elements"""
        return self._store(targets, index, [Load(t, index) for t in targets])

    def begin(self, targets: Sequence[Buffer], index: tuple[Expr, ...]) -> Stmt:
        """targets[index] = results of the first values and the elements"""
        return self._store(targets, index, self.first)

    def clear(self, targets: Sequence[Buffer], index: tuple[Expr, ...]) -> Stmt:
        """targets[index] = first values"""
        return seq([Store(t, index, e) for t, e in zip(targets, self.first)])

    def at(self, values: Mapping[Var, Expr]) -> Combination:
        """The combination of the elements at other values of the iterators."""
        fresh = {v: Var(v.name, v.dtype) for v, _ in self.named}
        values = {**values, **fresh}
        named = tuple((fresh[v], substitute(e, values)) for v, e in self.named)
        return dataclasses.replace(self, named=named, elements=tuple(substitute(e, values) for e in self.elements))

    def only_where(self, condition: Expr) -> Combination:
        """The combination whose elements are the first values where a condition fails; nothing is read there."""
        named = tuple((v, Select(condition, e, const(0, e.dtype))) for v, e in self.named)
        elements = tuple(Select(condition, e, f) for e, f in zip(self.elements, self.first))
        return dataclasses.replace(self, named=named, elements=elements)

    def joining(self, elements: Sequence[Expr]) -> Combination:
        """The combination of accumulators with others."""
        return dataclasses.replace(self, named=(), elements=tuple(elements))

    def _store(self, targets: Sequence[Buffer], index: tuple[Expr, ...], held: Sequence[Expr]) -> Stmt:
        if self.is_plain:
            values = {self.held[0]: held[0], self.new[0]: self.elements[0]}
            return Store(targets[0], index, substitute(self.results[0], values))
        # every result is made of the old accumulators: all are computed before one is stored
        held_as = [Var(v.name, v.dtype) for v in self.held]
        new_as = [Var(v.name, v.dtype) for v in self.new]
        renamed = dict(zip((*self.held, *self.new), (*held_as, *new_as)))
        results = [substitute(e, renamed) for e in self.results]
        made = [Var(f"acc{i}", e.dtype) for i, e in enumerate(results)] if len(results) > 1 else []
        body = seq([Store(t, index, e) for t, e in zip(targets, made or results)])
        steps = [*zip(held_as, held), *self.named, *zip(new_as, self.elements), *zip(made, results)]
        for v, e in reversed(steps):
            body = Let(v, e, body)
        return body


def combination(b: Block) -> Combination | None:
    """What a block combines; None where its form tells not."""
    form = parts(b)
    if form is not None:
        held, new = Var("held", form.target.dtype), Var("new", form.target.dtype)
        first = (neutral(form.op, form.target.dtype),)
        return Combination(
            (form.target,), form.index, first, (), (form.element,), (held,), (new,), (form.op(held, new),), True
        )
    if b.init is None:
        return None
    lets, stores = _steps(b.body)
    inits = b.init.stmts if isinstance(b.init, Seq) else (b.init,)
    if stores is None or not all(isinstance(s, Store) and isinstance(s.value, Const) for s in inits):
        return None
    index = stores[0].indices
    starts = {s.buffer: s.value for s in inits if isinstance(s, Store) and s.indices == index}
    targets = tuple(s.buffer for s in stores)
    if starts.keys() != set(targets) or len(inits) != len(targets) or any(s.indices != index for s in stores):
        return None
    return _read(lets, stores, targets, index, tuple(starts[t] for t in targets))


def _steps(body: Stmt) -> tuple[list[tuple[Var, Expr]], list[Store] | None]:
    """The values that a body names and the stores behind them; no stores where there is more than that."""
    lets: list[tuple[Var, Expr]] = []
    while isinstance(body, Let):
        lets.append((body.var, body.value))
        body = body.body
    stores = [s for s in (body.stmts if isinstance(body, Seq) else (body,)) if isinstance(s, Store) and s.mask is None]
    is_all = len(stores) == (len(body.stmts) if isinstance(body, Seq) else 1)
    return lets, stores if is_all and stores else None


def _read(
    lets: list[tuple[Var, Expr]],
    stores: list[Store],
    targets: tuple[Buffer, ...],
    index: tuple[Expr, ...],
    first: tuple[Expr, ...],
) -> Combination | None:
    """Tell accumulators, elements and results apart by what each value uses."""
    held: dict[Buffer, Var] = {}
    named: dict[Var, Expr] = {}  # uses no accumulator
    derived: dict[Var, Expr] = {}  # uses accumulators
    for v, e in lets:
        if isinstance(e, Load) and e.buffer in targets and e.buffer not in held and e.indices == index:
            held[e.buffer] = v
            continue
        loads = {x.buffer for x in walk(e) if isinstance(x, Load)}
        if loads & set(targets):
            return None
        is_derived = free_vars(e) & (derived.keys() | set(held.values()))
        (derived if is_derived else named)[v] = substitute(e, derived) if is_derived else e
    results = tuple(substitute(s.value, derived) for s in stores)
    used = {v for e in results for v in free_vars(e)} - set(held.values())
    new = tuple(v for v in named if v in used)
    closed = not any(isinstance(x, Load) for e in results for x in walk(e)) and used <= named.keys()
    if not closed or held.keys() != set(targets) or [v.dtype for v in new] != [t.dtype for t in targets]:
        return None
    if any(free_vars(e) & set(new) for e in named.values()):
        return None
    shared = tuple((v, e) for v, e in named.items() if v not in new)
    elements = tuple(named[v] for v in new)
    return Combination(targets, index, first, shared, elements, tuple(held[t] for t in targets), new, results, False)


def broken_law(c: Combination, joins_empty: bool) -> str | None:
    """Why a reduction must not be computed in parts, by samples: its combination is not commutative, not associative, or its
    first values change what they are combined with. None where no sample shows it.

    Args:
        joins_empty: parts without elements will be combined with each other.
    """
    if c.is_plain:
        return None
    rng = np.random.default_rng(0)
    f = _function(c)
    x, y, z = ([_draw(rng, t.dtype) for t in c.targets] for _ in range(3))
    first = [
        np.full(SAMPLES, e.value).astype(t.dtype.numpy) for e, t in zip(c.first, c.targets) if isinstance(e, Const)
    ]
    laws = [
        ("it is not commutative", [x, y], f(x, y), f(y, x)),
        ("it is not associative", [x, y, z], f(f(x, y), z), f(x, f(y, z))),
        ("the first value changes what it is combined with", [x], f(first, x), x),
        ("the first value changes what it is combined with", [x], f(x, first), x),
    ]
    if joins_empty:
        laws.append(("two first values do not make one", [first], f(first, first), first))
    for law, of, left, right in laws:
        for one, other, t in zip(left, right, c.targets):
            bad = np.flatnonzero(~_is_close(one, other, t.dtype))
            if bad.size:
                at = bad[0]
                shown = " and ".join(_text(values, at) for values in of)
                return f"{law}: of {shown} it makes {_text(left, at)} or {_text(right, at)}"
    return None


def _text(values: Sequence[np.ndarray], at: int) -> str:
    shown = ", ".join(f"{float(v[at]):.6g}" for v in values)
    return shown if len(values) == 1 else f"({shown})"


def _draw(rng: np.random.Generator, d: DType) -> np.ndarray:
    """Values of moderate size, so that rounding does not look like a broken law."""
    if d.is_float:
        return rng.uniform(0.5, 2, SAMPLES).astype(d.numpy)
    return rng.integers(0, 2 if d.is_bool else 8, SAMPLES).astype(d.numpy)


def _is_close(a: np.ndarray, b: np.ndarray, d: DType) -> np.ndarray:
    if not d.is_float:
        return np.equal(a, b)
    wide = a.astype(np.float64), b.astype(np.float64)
    return np.isclose(*wide, rtol=16 * float(ml_dtypes.finfo(d.numpy).eps), atol=0, equal_nan=True)


def _function(c: Combination) -> Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]:
    """The combination of arrays of samples, run by the interpreter."""
    given = [[Buffer(f"{n}{i}", (const(SAMPLES),), t.dtype) for i, t in enumerate(c.targets)] for n in ("a", "b", "c")]
    loop, at = Var("i"), Var("vi")
    a, b, made = given
    values = {v: Load(x, (at,)) for v, x in zip((*c.held, *c.new), (*a, *b))}
    body = seq([Store(m, (at,), substitute(e, values)) for m, e in zip(made, c.results)])
    nest = For(loop, const(SAMPLES), Block("samples", (IterVar(at, const(SAMPLES), "spatial", loop),), body))
    func = PrimFunc("combination", (*a, *b, *made), nest, len(made))

    return lambda x, y: run(func, [*x, *y])
