"""Simplification and bounds of integer expressions.

An int64 expression is brought to *linear form*: a sum of integer coefficients times terms, plus a constant. A term is a
variable or an expression that is not linear (a quotient, a remainder, a minimum...), itself simplified. Bounds come from
the linear form by replacing each term by the end of its range that the sign of its coefficient asks for, so what cancels
has cancelled before any range is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd, isqrt
from typing import Any

from .. import dtype as dt
from .expr import (
    EQ,
    LE,
    LT,
    NE,
    Add,
    And,
    BinaryExpr,
    Broadcast,
    Call,
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
)
from .node import map_children, with_fields
from .query import is_const

Env = Mapping[Var, tuple[Expr, Expr]]
"""The inclusive range of each variable; the ends may mention other variables."""

TRUE, FALSE = Const(True, dt.bool_), Const(False, dt.bool_)
_MAX_DEPTH = 24
_LARGE = const(2**31)


class Linear:
    """coefficients . terms + constant."""

    __slots__ = ("constant", "terms")

    def __init__(self, terms: dict[Expr, int] | None = None, constant: int = 0) -> None:
        self.terms = terms or {}
        self.constant = constant

    def add(self, other: Linear, scale: int = 1) -> Linear:
        terms = dict(self.terms)
        for t, c in other.terms.items():
            new = terms.get(t, 0) + c * scale
            if new:
                terms[t] = new
            else:
                terms.pop(t, None)
        return Linear(terms, self.constant + other.constant * scale)

    def scale(self, k: int) -> Linear:
        return Linear({t: c * k for t, c in self.terms.items()} if k else {}, self.constant * k)

    def without(self, term: Expr) -> Linear:
        return Linear({t: c for t, c in self.terms.items() if t is not term and t != term}, self.constant)

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def expr(self) -> Expr:
        """The expression, positive terms first so that it reads well."""
        result: Expr | None = None
        for term, c in sorted(self.terms.items(), key=lambda item: item[1] < 0):
            if result is None:
                result = term if c == 1 else Mul(term, const(c))
            elif c < 0:
                result = Sub(result, term if c == -1 else Mul(term, const(-c)))
            else:
                result = Add(result, term if c == 1 else Mul(term, const(c)))
        if result is None:
            return const(self.constant)
        if self.constant > 0:
            return Add(result, const(self.constant))
        return Sub(result, const(-self.constant)) if self.constant < 0 else result


def linear(e: Expr, env: Env | None = None) -> Linear:
    """The linear form of an int64 expression."""
    return _linear(e, env or {}, 0)


def _linear(e: Expr, env: Env, depth: int) -> Linear:
    if type(e) is Const:
        return Linear(None, int(e.value))
    if type(e) in _SUMS:
        terms: dict[Expr, int] = {}
        return Linear(terms, _gather(e, 1, terms, env, depth))
    if type(e) is FloorDiv or type(e) is FloorMod:
        return _divide(type(e), _linear(e.a, env, depth), _linear(e.b, env, depth), env, depth)
    if type(e) is Min or type(e) is Max:
        return _extremum(type(e), _linear(e.a, env, depth), _linear(e.b, env, depth), env, depth)
    if type(e) is Call and e.op == "neg":
        return _linear(e.args[0], env, depth).scale(-1)
    return Linear({map_children(e, lambda x: simplify(x, env)): 1})


_SUMS = (Var, Add, Sub, Mul)


def _gather(e: Expr, scale: int, terms: dict[Expr, int], env: Env, depth: int) -> int:
    """Add `scale` times an expression to terms. The constant that is left."""
    if type(e) is Const:
        return int(e.value) * scale
    if type(e) is Var:
        bounds = env.get(e)
        if bounds is not None and type(bounds[0]) is Const and bounds[0] == bounds[1]:
            return int(bounds[0].value) * scale
        _count(e, scale, terms)
        return 0
    if type(e) is Add:
        return _gather(e.a, scale, terms, env, depth) + _gather(e.b, scale, terms, env, depth)
    if type(e) is Sub:
        return _gather(e.a, scale, terms, env, depth) + _gather(e.b, -scale, terms, env, depth)
    if type(e) is Mul and type(e.b) is Const:
        k = scale * int(e.b.value)
        return _gather(e.a, k, terms, env, depth) if k else 0
    form = _product(e.a, e.b, env, depth) if type(e) is Mul else _linear(e, env, depth)
    for t, c in form.terms.items():
        _count(t, c * scale, terms)
    return form.constant * scale


def _count(term: Expr, count: int, terms: dict[Expr, int]) -> None:
    new = terms.get(term, 0) + count
    if new:
        terms[term] = new
    else:
        terms.pop(term, None)


def _product(x: Expr, y: Expr, env: Env, depth: int) -> Linear:
    a, b = _linear(x, env, depth), _linear(y, env, depth)
    if b.is_constant:
        return a.scale(b.constant)
    if a.is_constant:
        return b.scale(a.constant)
    return Linear({Mul(*sorted((a.expr(), b.expr()), key=_order)): 1})


def _order(e: Expr) -> str:
    return f"{type(e).__name__}{getattr(e, 'name', '')}{id(e) if isinstance(e, Var) else ''}"


def _divide(kind: type, a: Linear, b: Linear, env: Env, depth: int) -> Linear:
    if not b.is_constant or b.constant == 0:
        if len(a.terms) == 1 and not a.constant and not b.is_constant and a.terms == b.terms:
            return Linear(None, 1 if kind is FloorDiv else 0)
        low, high = _range(a, env, depth + 1)
        if low is not None and low >= 0 and _minimum(b.add(a, -1).add(Linear(None, -1)), env, depth + 1, 0) is not None:
            return Linear() if kind is FloorDiv else a
        return Linear({kind(a.expr(), b.expr()): 1})
    c = b.constant
    if c < 0:
        return Linear({kind(a.expr(), const(c)): 1})
    if c == 1:
        return a if kind is FloorDiv else Linear()
    # whole multiples of c leave the quotient; what remains is reduced to coefficients in [0, c)
    whole = Linear({t: q * c for t, k in a.terms.items() if (q := k // c)}, a.constant // c * c)
    rest = a.add(whole, -1)
    low, high = _range(rest, env, depth + 1)
    if low is None or low < 0 or high is None or high >= c:
        # the other split keeps negative coefficients: i*8 - j with j in [0, 8) reads better as it stands
        trimmed = Linear({t: (k // c if k >= 0 else -(-k // c)) * c for t, k in a.terms.items()}, a.constant // c * c)
        whole = Linear({t: k for t, k in trimmed.terms.items() if k}, trimmed.constant)
        rest = a.add(whole, -1)
        low, high = _range(rest, env, depth + 1)
    quotient = Linear({t: k // c for t, k in whole.terms.items()}, whole.constant // c)
    if low is not None and high is not None and low // c == high // c:
        q = low // c
        return quotient.add(Linear(None, q)) if kind is FloorDiv else rest.add(Linear(None, -q * c))
    if len(rest.terms) == 1 and rest.constant == 0:
        (term, k), *_ = rest.terms.items()
        if type(term) is FloorDiv and k == 1 and is_const(term.b) and term.b.value > 0 and kind is FloorDiv:
            return quotient.add(_linear(FloorDiv(term.a, const(term.b.value * c)), env, depth + 1))
        if type(term) is FloorMod and k == 1 and is_const(term.b) and term.b.value % c == 0 and kind is FloorMod:
            return _linear(FloorMod(term.a, const(c)), env, depth + 1)
    common = gcd(c, *rest.terms.values())
    if common > 1:
        # rest = common * inner + r with 0 <= r < common, and common divides c: r cannot reach the next multiple
        inner = Linear({t: k // common for t, k in rest.terms.items()}, rest.constant // common)
        r = rest.constant % common
        if kind is FloorDiv:
            return quotient.add(_divide(kind, inner, Linear(None, c // common), env, depth + 1))
        return _divide(kind, inner, Linear(None, c // common), env, depth + 1).scale(common).add(Linear(None, r))
    parts = _in_steps(rest, c, env, depth)
    if parts is not None:
        step, inner, within = parts
        found = _divide(kind, inner, Linear(None, c // step), env, depth + 1)
        return quotient.add(found) if kind is FloorDiv else found.scale(step).add(within)
    return (quotient if kind is FloorDiv else Linear()).add(Linear({kind(rest.expr(), const(c)): 1}))


def _in_steps(form: Linear, c: int, env: Env, depth: int) -> tuple[int, Linear, Linear] | None:
    """A form as step * inner + within, where step divides c and 0 <= within < step: a division by c sees only the steps. None where it
    cannot be written so."""
    for step in sorted({gcd(c, k) for k in form.terms.values()} - {1}, reverse=True):
        within = Linear({t: k for t, k in form.terms.items() if k % step}, form.constant % step)
        low, high = _range(within, env, depth + 1)
        if low is not None and low >= 0 and high is not None and high < step:
            rest = form.add(within, -1)
            return step, Linear({t: k // step for t, k in rest.terms.items()}, rest.constant // step), within
    return None


def _extremum(kind: type, a: Linear, b: Linear, env: Env, depth: int) -> Linear:
    difference = _merge_quotients(a.add(b, -1), env)
    if depth < _MAX_DEPTH:
        if _minimum(difference, env, depth + 1, 0) is not None:
            return b if kind is Min else a
        if _minimum(difference.scale(-1), env, depth + 1, 0) is not None:
            return a if kind is Min else b
    return Linear({kind(a.expr(), b.expr()): 1})


def _merge_quotients(form: Linear, env: Env) -> Linear:
    """(x // c) * c + x % c is x."""
    for term, k in form.terms.items():
        if type(term) is FloorMod and is_const(term.b):
            c = term.b.value
            partner = FloorDiv(term.a, term.b)
            if type(term.a) is FloorDiv and is_const(term.a.b):  # quotients of quotients are kept as one
                partner = FloorDiv(term.a.a, const(term.a.b.value * c))
            if form.terms.get(partner) == k * c:
                rest = form.without(term).without(partner)
                return _merge_quotients(_linear(term.a, env, 0).scale(k).add(rest), env)
    return form


def _range(form: Linear, env: Env, depth: int = 0) -> tuple[int | None, int | None]:
    low = _minimum(form, env, depth)
    high = _minimum(form.scale(-1), env, depth)
    return low, None if high is None else -high


def _minimum(form: Linear, env: Env, depth: int, at_least: int | None = None) -> int | None:
    """A lower bound, or None; with `at_least`, None unless the bound reaches it."""
    bound = _lower(form, env, depth)
    return None if bound is None or (at_least is not None and bound < at_least) else bound


def _lower(form: Linear, env: Env, depth: int) -> int | None:
    if form.is_constant:
        return form.constant
    if depth > _MAX_DEPTH:
        return None
    total = form.constant
    for term, c in form.terms.items():
        bound = _term_bound(term, c > 0, env, depth)
        if bound is None:
            break
        total += c * bound
    else:
        return total
    # some term is bounded only by other variables: put its bound in its place, so that these may cancel
    ends = [(t, c, _symbolic_bound(t, c > 0, env)) for t, c in form.terms.items()]
    for term, c, end in sorted(ends, key=lambda item: isinstance(item[2], Const)):
        if end is not None:
            result = _lower(form.without(term).add(_linear(end, {}, depth + 1), c), env, depth + 1)
            if result is not None:
                return result
    return None


def _term_bound(term: Expr, lower: bool, env: Env, depth: int) -> int | None:
    """The constant lower (or upper) end of a term's range."""
    if isinstance(term, Var):
        ends = env.get(term)
        end = None if ends is None else ends[0 if lower else 1]
        return int(end.value) if isinstance(end, Const) else None
    if depth > _MAX_DEPTH:
        return None
    if isinstance(term, FloorMod) and is_const(term.b) and term.b.value > 0:
        if lower:
            return 0
        divisor, (low, high) = int(term.b.value), _range(_linear(term.a, env, depth), env, depth + 1)
        inside = low is not None and low >= 0 and high is not None and high < divisor
        return high if inside else divisor - 1
    if isinstance(term, FloorDiv) and is_const(term.b) and term.b.value > 0:
        edge = _range(_linear(term.a, env, depth), env, depth + 1)[0 if lower else 1]
        return None if edge is None else edge // int(term.b.value)
    if isinstance(term, (Min, Max)):
        ends_ = [_range(_linear(x, env, depth), env, depth + 1)[0 if lower else 1] for x in (term.a, term.b)]
        known = [x for x in ends_ if x is not None]
        is_min = isinstance(term, Min)
        pick = min if is_min else max
        if len(known) == 2:
            return pick(known)
        loose = is_min != lower
        return known[0] if known and loose else None
    if isinstance(term, Mul):
        ends_a, ends_b = (_range(_linear(x, env, depth), env, depth + 1) for x in (term.a, term.b))
        if ends_a[0] is not None and ends_b[0] is not None and ends_a[0] >= 0 and ends_b[0] >= 0:
            if lower:
                return ends_a[0] * ends_b[0]
            return None if ends_a[1] is None or ends_b[1] is None else ends_a[1] * ends_b[1]
    if isinstance(term, Select):
        sides = (_range(_linear(x, env, depth), env, depth + 1) for x in (term.then, term.orelse))
        both = [x for x in (side[0 if lower else 1] for side in sides) if x is not None]
        return (min if lower else max)(both) if len(both) == 2 else None
    return None


def _symbolic_bound(term: Expr, lower: bool, env: Env) -> Expr | None:
    if isinstance(term, Var):
        ends = env.get(term)
        if ends is None:
            return None
        return ends[0 if lower else 1]
    if isinstance(term, FloorMod) and not is_const(term.b):
        return const(0) if lower else Sub(term.b, const(1))
    if isinstance(term, (Min, Max)) and isinstance(term, Min) != lower:
        return term.a if not is_const(term.a) else term.b
    return None


def simplify(e: Expr, env: Env | None = None) -> Expr:
    """An equal expression, usually smaller. Integer index arithmetic is normalised; floating point is left alone."""
    env = env or {}
    kind = e.dtype
    if kind == dt.int64:
        if isinstance(e, (Const, Var)) and e not in env:
            return e
        result = _merge_quotients(_linear(e, env, 0), env)
        return result.expr()
    if kind.is_bool and kind.lanes == 1:
        return _simplify_condition(e, env)
    if isinstance(e, Select):
        known = simplify(e.cond, env)
        fixed = known.value if isinstance(known, Broadcast) else known
        if isinstance(fixed, Const):
            return simplify(e.then if fixed.value else e.orelse, env)
    new = map_children(e, lambda x: simplify(x, env) if isinstance(x, Expr) else x)
    if isinstance(new, Load):
        mask = new.mask.value if isinstance(new.mask, Broadcast) else new.mask
        if isinstance(mask, Const):
            return with_fields(new, mask=None) if mask.value else _zero(new.dtype)
    return new


def _zero(kind: dt.DType) -> Expr:
    zero = const(0, kind.element)
    return zero if kind.lanes == 1 else Broadcast(zero, kind.lanes)


def _simplify_condition(e: Expr, env: Env) -> Expr:
    match e:
        case And(a, b):
            a, b = simplify(a, env), simplify(b, env)
            if is_const(a) or is_const(b):
                fixed, other = (a, b) if is_const(a) else (b, a)
                return FALSE if is_const(fixed, False) else other
            return a if a == b else And(a, b)
        case Or(a, b):
            a, b = simplify(a, env), simplify(b, env)
            if is_const(a) or is_const(b):
                fixed, other = (a, b) if is_const(a) else (b, a)
                return other if is_const(fixed, False) else TRUE
            return a if a == b else Or(a, b)
        case Not(a):
            a = simplify(a, env)
            return Const(not a.value, dt.bool_) if is_const(a) else Not(a)
        case LT() | LE() | EQ() | NE() if e.a.dtype == dt.int64:
            return _simplify_comparison(e, env)
        case _:
            return map_children(e, lambda x: simplify(x, env) if isinstance(x, Expr) else x)


def _simplify_comparison(e: BinaryExpr, env: Env) -> Expr:
    a, b = simplify(e.a, env), simplify(e.b, env)
    form = _merge_quotients(_linear(b, env, 0).add(_linear(a, env, 0), -1), env)  # b - a
    low, high = _range(form, env)
    match e:
        case LT() | LE():
            edge = 1 if isinstance(e, LT) else 0
            if low is not None and low >= edge:
                return TRUE
            if high is not None and high < edge:
                return FALSE
        case _:
            apart = (low is not None and low > 0) or (high is not None and high < 0)
            if apart or (low == high == 0):
                return TRUE if apart == isinstance(e, NE) else FALSE
    if isinstance(e, (LT, LE)):
        undivided = _without_division(form, 1 if isinstance(e, LT) else 0, env)
        if undivided is not None:
            return undivided
    return e if a is e.a and b is e.b else type(e)(a, b)


def _without_division(form: Linear, least: int, env: Env) -> Expr | None:
    """The condition that a sum with one quotient by a constant is at least some number, said of the dividend."""
    found = [(t, c) for t, c in form.terms.items() if isinstance(t, FloorDiv)]
    if len(found) != 1 or found[0][1] not in (1, -1):
        return None
    ((term, c),) = found
    if not isinstance(term.b, Const) or term.b.value <= 0:
        return None
    k = int(term.b.value)
    rest = form.without(term)
    if c == 1:  # x // k + rest >= least  where  x >= (least - rest) k
        low, x = rest.scale(-k).add(Linear(None, least * k)), _linear(term.a, env, 0)
    else:  # rest - x // k >= least  where  (rest - least + 1) k > x
        low, x = _linear(term.a, env, 0).add(Linear(None, 1)), rest.scale(k).add(Linear(None, (1 - least) * k))
    return _at_least(x.add(low, -1))


def _at_least(form: Linear) -> Expr:
    """form >= 0, with what is subtracted on the left."""
    left = Linear({t: -c for t, c in form.terms.items() if c < 0}, max(-form.constant, 0))
    right = Linear({t: c for t, c in form.terms.items() if c > 0}, max(form.constant, 0))
    if left.terms and left.constant:
        return LT(left.add(Linear(None, -1)).expr(), right.expr())
    return LE(left.expr(), right.expr())


def interval(e: Expr, env: Env | None = None) -> tuple[int | None, int | None]:
    """Constant inclusive bounds of an int64 expression; None where there is none."""
    env = env or {}
    return _range(_merge_quotients(_linear(e, env, 0), env), env)


def can_prove(condition: Expr, env: Env | None = None) -> bool:
    """Whether a condition certainly holds for all values in the ranges."""
    return is_const(simplify(condition, env), True)


def divisors(n: int, most: int | None = None) -> list[int]:
    """The divisors of a positive number, ascending; only those up to `most` where it is given.

    Trial division ends at 2^20: an extent so large that a factor beyond it is not found is not divided by that, nor by what goes with it.
    """
    small = [d for d in range(1, min(isqrt(n), 1 << 20) + 1) if n % d == 0]
    found = [*small, *(n // d for d in reversed(small) if d * d != n)]
    return found if most is None else [d for d in found if d <= most]


def loop_range(extent: Expr) -> tuple[Expr, Expr]:
    """The range of a loop variable of that extent."""
    return const(0), simplify(extent - 1)


def dims_env(variables: Any) -> dict[Var, tuple[Expr, Expr]]:
    """Symbolic extents are at least 0 (and below 2**31)."""
    return {v: (const(0), _LARGE) for v in variables}


def known_ranges(env: Env) -> Env:
    """The ranges without those of symbolic extents: bounds from these say something about the program."""
    return {v: r for v, r in env.items() if r[1] is not _LARGE}
