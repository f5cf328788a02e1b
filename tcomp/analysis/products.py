"""Proofs about products of what is known only when a kernel runs, which integer sets do not hold.

A condition is refuted: with its negation, facts that are not negative are multiplied with each other, each product of variables counts
as a variable of its own, and what follows linearly is left to integer sets (H. Sherali and W. Adams, A Hierarchy of Relaxations, 1990,
the reformulation-linearization technique).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from math import prod

from ..ir.expr import (
    EQ,
    LE,
    LT,
    Add,
    And,
    Const,
    Expr,
    FloorDiv,
    FloorMod,
    Max,
    Min,
    Mul,
    Not,
    Sub,
    Var,
)
from ..lazy import lazy_module

isl = lazy_module("islpy")

MAX_CASES = 81
MAX_DEGREE = 3
"""Of products; one of more is unknown."""
MAX_FACTS = 200

Monomial = tuple[int, ...]
"""Places of its variables, in order; () for the constant."""
Poly = dict[Monomial, int]
Case = tuple[list[Poly], list[Poly]]
"""Polynomials that are not negative, and that are zero."""


def follows(wanted: Sequence[Expr], ranges: Mapping[Var, tuple[Expr, Expr]], facts: Sequence[Expr]) -> bool:
    """Whether conditions (a < b, a <= b) are proved to hold wherever the variables lie in their ranges and the facts hold."""
    system = _System()
    for v, (low, high) in ranges.items():
        system.know(LE(low, v))
        system.know(LE(v, high))
    for c in facts:
        system.know(c)
    return all(system.refutes(low, high) for c in wanted for low, high in [_sides(c)])


def _sides(c: Expr) -> tuple[Expr, Expr]:
    """(low, high) of a condition low <= high."""
    assert isinstance(c, (LT, LE))
    return (c.a + 1, c.b) if isinstance(c, LT) else (c.a, c.b)


class _System:
    """Facts as polynomials that are not negative, or are zero."""

    def __init__(self) -> None:
        self.places: dict[Expr, int] = {}
        self.positive: list[Poly] = []
        self.zero: list[Poly] = []
        self.choices: list[list[Case]] = []  # of each, one case holds
        self.quotients: dict[tuple[Expr, Expr], tuple[Poly, Poly]] = {}

    def know(self, c: Expr) -> None:
        match c:
            case And():
                self.know(c.a)
                self.know(c.b)
            case LT() | LE() if c.a.dtype.kind == "int":
                low, high = _sides(c)
                self.positive.append(_sum(self.poly(high), self.poly(low), -1))
            case EQ() if c.a.dtype.kind == "int":
                self.zero.append(_sum(self.poly(c.a), self.poly(c.b), -1))
            case Not() if isinstance(c.a, LT):
                self.know(LE(c.a.b, c.a.a))
            case Not() if isinstance(c.a, LE):
                self.know(LT(c.a.b, c.a.a))

    def poly(self, e: Expr) -> Poly:
        """An index or an extent, whose values are far from what int32 and int64 hold."""
        match e:
            case Const():
                return {(): int(e.value)} if e.value else {}
            case Add():
                return _sum(self.poly(e.a), self.poly(e.b))
            case Sub():
                return _sum(self.poly(e.a), self.poly(e.b), -1)
            case Mul() if (a := self.poly(e.a), b := self.poly(e.b)) and _degree(a) + _degree(b) <= MAX_DEGREE:
                return _times(a, b)
            case FloorDiv() | FloorMod():
                return self.divided(e.a, e.b)[isinstance(e, FloorMod)]
        is_new = e not in self.places
        value: Poly = {(self.places.setdefault(e, len(self.places)),): 1}
        if is_new and isinstance(e, (Min, Max)):
            a, b = self.poly(e.a), self.poly(e.b)
            low, high = (a, b) if isinstance(e, Min) else (b, a)
            self.choices.append(
                [([_sum(high, low, -1)], [_sum(value, a, -1)]), ([_sum(low, high, -1)], [_sum(value, b, -1)])]
            )
        return value

    def divided(self, a: Expr, b: Expr) -> tuple[Poly, Poly]:
        if (a, b) not in self.quotients:
            key = FloorDiv(a, b)
            quotient, remainder = ({(self.places.setdefault(k, len(self.places)),): 1} for k in (key, FloorMod(a, b)))
            self.quotients[a, b] = quotient, remainder
            self.choices.append(list(_division(self.poly(a), self.poly(b), quotient, remainder)))
        return self.quotients[a, b]

    def refutes(self, low: Expr, high: Expr) -> bool:
        """Whether low > high contradicts what is known."""
        opposite = _sum(_sum(self.poly(low), self.poly(high), -1), {(): 1}, -1)
        if prod(map(len, self.choices)) > MAX_CASES:
            return False
        return all(self._contradicts(opposite, case) for case in product(*self.choices))

    def _contradicts(self, opposite: Poly, case: Sequence[Case]) -> bool:
        zero = [*self.zero, *(p for _, more in case for p in more)]
        positive = [opposite, *self.positive, *(p for more, _ in case for p in more)]
        (opposite, *known), zero = _eliminated(positive, zero)
        if any(_is_constant(p) and p[()] < 0 for p in known) or any(map(_is_constant, zero)):
            return True
        known = [p for p in _distinct(known) if p and not _is_constant(p)]
        degree = min(MAX_DEGREE, max(map(_degree, (opposite, *known, *zero))))
        factors = [p for p in known if _is_factor(p, (opposite, *known, *zero))]
        grown = [*factors, *(_times(p, q) for p, q in combinations(factors, 2))]
        levels = [
            [opposite],
            _with(opposite, known, degree),
            [q for f in grown for q in _with(f, [opposite, *known], degree)],
            [q for p in known for q in _with(p, known, degree)],
        ]
        asked = list(known)
        for level in levels:
            more = _distinct([*asked, *level])
            if len(asked) < len(more) <= MAX_FACTS:
                asked = more
                if _is_empty(asked, zero):
                    return True
        return False


def _eliminated(positive: Sequence[Poly], zero: Sequence[Poly]) -> tuple[list[Poly], list[Poly]]:
    """Replace variables that equations tell."""
    positive, zero = list(positive), list(zero)
    for _ in range(len(zero)):
        found = next(((p, m[0], k) for p in zero for m, k in p.items() if _tells(p, m, k)), None)
        if found is None:
            break
        p, place, k = found
        value = {m: -k * c for m, c in p.items() if m != (place,)}
        zero = [q for q in (_replaced(q, place, value) for q in zero if q is not p) if q]
        positive = [_replaced(q, place, value) for q in positive]
    return positive, zero


def _tells(p: Poly, m: Monomial, k: int) -> bool:
    return len(m) == 1 and abs(k) == 1 and not any(m[0] in other for other in p if other != m)


def _replaced(p: Poly, place: int, value: Poly) -> Poly:
    total: Poly = {}
    for m, k in p.items():
        term: Poly = {tuple(v for v in m if v != place): k}
        for _ in range(m.count(place)):
            term = _times(term, value)
        total = _sum(total, term)
    return total


def _division(a: Poly, b: Poly, quotient: Poly, remainder: Poly) -> Iterator[Case]:
    """a = b * quotient + remainder, for a divisor that is positive, zero or negative: by zero, quotient and remainder are 0."""
    one: Poly = {(): 1}
    exact = _sum(_sum(a, _times(b, quotient), -1), remainder, -1)
    yield [_sum(b, one, -1), remainder, _sum(_sum(b, remainder, -1), one, -1)], [exact]
    yield [], [b, quotient, remainder]
    yield [_sum(_sum({}, b, -1), one, -1), _sum({}, remainder, -1), _sum(_sum(remainder, b, -1), one, -1)], [exact]


def _sum(a: Poly, b: Poly, scale: int = 1) -> Poly:
    total = dict(a)
    for m, k in b.items():
        total[m] = total.get(m, 0) + scale * k
    return {m: k for m, k in total.items() if k}


def _times(a: Poly, b: Poly) -> Poly:
    total: Poly = {}
    for (m, k), (n, l) in product(a.items(), b.items()):
        key = tuple(sorted((*m, *n)))
        total[key] = total.get(key, 0) + k * l
    return {m: k for m, k in total.items() if k}


def _distinct(polys: Sequence[Poly]) -> list[Poly]:
    return list({frozenset(p.items()): p for p in polys}.values())


def _is_constant(p: Poly) -> bool:
    return p.keys() == {()}


def _degree(p: Poly) -> int:
    return max(map(len, p), default=0)


def _with(p: Poly, others: Sequence[Poly], degree: int) -> list[Poly]:
    return [_times(p, q) for q in others if _degree(p) + _degree(q) <= degree]


def _is_factor(p: Poly, system: Sequence[Poly]) -> bool:
    """Whether a fact says that a variable is not negative which multiplies others."""
    (m, k), *more = p.items()
    return not more and k > 0 and len(m) == 1 and any(m[0] in other and len(other) > 1 for q in system for other in q)


def _is_empty(positive: Sequence[Poly], zero: Sequence[Poly]) -> bool:
    """Whether no numbers, one for each monomial, satisfy everything.

    The constant counts as a monomial that is 1 or more: with one solution, all its multiples are solutions, integers among them.
    """
    names: dict[Monomial, str] = {(): "one"}

    def text(p: Poly) -> str:
        return " + ".join(f"{k} {names.setdefault(m, f'x{len(names)}')}" for m, k in p.items()) or "0"

    wanted = list(dict.fromkeys([*(f"{text(p)} >= 0" for p in positive), *(f"{text(p)} = 0" for p in zero)]))
    points = isl.BasicSet(f"{{ [{', '.join(names.values())}] : one >= 1 and {' and '.join(wanted)} }}")
    # the maximum of nothing is no number: a linear programme, where is_empty would look for an integer point
    return points.max_val(isl.Aff.zero_on_domain(points.get_local_space())).is_nan()
