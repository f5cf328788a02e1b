"""Questions about maps between index spaces: are they one to one, what is their inverse (islpy)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ir.arith import dims_env, linear, simplify
from ..ir.expr import Const, Expr, FloorDiv, FloorMod, Max, Var, binary, const
from ..ir.query import as_int, free_vars
from ..ir.stmt import Block, For
from .regions import index_span, loop_env
from .sets import NotAffineError, Space, isl

Env = Mapping[Var, tuple[Expr, Expr]]


def _pairs(domain: Env, dims: Sequence[Var]) -> tuple[Space, Any, dict[Var, int], dict[Var, int]]:
    """Pairs of points of a box."""
    space, first, second = _twice(list(domain), dims)
    points = space.ranged(dims_env(dims), {}).intersect(space.ranged(domain, first))
    return space, points.intersect(space.ranged(domain, second)), first, second


def _twice(variables: Sequence[Var], dims: Sequence[Var]) -> tuple[Space, dict[Var, int], dict[Var, int]]:
    """A space that has each variable twice, and where."""
    count = len(variables)
    first = {v: i for i, v in enumerate(variables)}
    return Space(list(dims), 2 * count), first, {v: count + i for v, i in first.items()}


def is_injective(exprs: Sequence[Expr], domain: Env, dims: Sequence[Var] = ()) -> bool:
    """Whether different points of a box have different images.

    Raises:
        NotAffineError: nothing can be proved about the map.
    """
    return determines(exprs, list(domain), domain, dims)


def determines(given: Sequence[Expr], wanted: Sequence[Expr], domain: Env, dims: Sequence[Var] = ()) -> bool:
    """Whether points of a box that agree in some expressions agree in others.

    Raises:
        NotAffineError: an expression is not affine.
    """
    if all(isinstance(e, Var) for e in given) and set().union(*map(free_vars, wanted)) <= set(given) | set(dims):
        return True
    space, points, first, second = _pairs(domain, dims)
    for e in given:
        points = points.intersect(space.affine(e, first).eq_set(space.affine(e, second)))
    return all(points.is_subset(space.affine(e, first).eq_set(space.affine(e, second))) for e in wanted)


def visits_once(block: Block, loops: Sequence[For], outer: Sequence[Var]) -> bool:
    """Whether each point of a block's iterators is visited at most once while some loops around it run.

    Args:
        loops: these loops; outer: the variables of the loops around them, and the function's own, which stand still.
    """
    bindings = [simplify(it.binding) for it in block.iters]
    whole = [x for _, x in joined(bindings)]
    if _is_mixed_radix(whole, loops):
        return True
    domain = loop_env(loops)
    known = [*bindings, *whole]
    space, first, second = _twice(list(domain), outer)
    points = space.universe()
    for at in (first, second):
        for v, bounds in domain.items():
            points = _narrowed(points, lambda at=at, v=v, bounds=bounds: space.ranged({v: bounds}, at))
        if block.where is not None:
            points = _narrowed(points, lambda at=at: space.condition(block.where, at))
    for e in known:
        points = _narrowed(points, lambda e=e: space.affine(e, first).eq_set(space.affine(e, second)))
    return all(points.is_subset(space.dim(first[v]).eq_set(space.dim(second[v]))) for v in domain)


def _narrowed(points: Any, limit: Callable[[], Any]) -> Any:
    """Fewer points, where the limit can be told at all."""
    try:
        return points.intersect(limit())
    except NotAffineError:
        return points


Digits = tuple[tuple[int, int | Expr, int | Expr | None], ...]
"""(number of the expression, s, m) for each digit x // s % m of a number x, lowest first; of the highest, m is None: x // s."""


def joined(exprs: Sequence[Expr]) -> list[tuple[Digits, Expr]]:
    """What some expressions determine: numbers of which they are all the digits, and each of the others by itself."""
    parts: list[tuple[Digits, Expr]] = [(((n, *_digit(e)[1:]),), _digit(e)[0]) for n, e in enumerate(exprs)]
    while True:
        pair = next(((a, b) for a in parts for b in parts if a[1] == b[1] and _follow(a[0], b[0])), None)
        if pair is None:
            break
        (low, x), (high, _) = pair
        parts = [p for p in parts if p is not pair[0] and p is not pair[1]] + [((*low, *high), x)]
    found: list[tuple[Digits, Expr]] = []
    for digits, x in parts:
        is_whole = digits[0][1] == 1 and digits[-1][2] is None
        found += [(digits, x)] if is_whole else [(((n, 1, None),), exprs[n]) for n, _, _ in digits]
    return found


def _digit(e: Expr) -> tuple[Expr, int | Expr, int | Expr | None]:
    """(x, s, m) of an expression x // s % m."""
    m = None
    if isinstance(e, FloorMod):
        e, m = e.a, _number(e.b)
    return (e.a, _number(e.b), m) if isinstance(e, FloorDiv) else (e, 1, m)


def _number(e: Expr) -> int | Expr:
    return int(e.value) if isinstance(e, Const) else e


def _follow(low: Digits, high: Digits) -> bool:
    """Whether digits begin where others end."""
    _, s, m = low[-1]
    if isinstance(s, int) and isinstance(m, int):
        return m > 0 and high[0][1] == s * m
    return s == 1 and m is not None and high[0][1] == m


def _is_mixed_radix(exprs: Sequence[Expr], loops: Sequence[For]) -> bool:
    """Whether expressions write each loop into digits of their own: 12 * i + 3 * j + k for k < 3 and j < 4."""
    extents = {s.var: as_int(s.extent) for s in loops}
    seen: set[Var] = set()
    for e in exprs:
        digits = sorted(((abs(c), v) for v, c in linear(e).terms.items() if v in extents), key=lambda digit: digit[0])
        if any(free_vars(v) & extents.keys() for v in linear(e).terms if v not in extents):
            return False
        reach = 0
        for n, (step, v) in enumerate(digits):
            if v in seen or step <= reach or (extents[v] is None and n + 1 < len(digits)):
                return False
            seen.add(v)
            reach += step * ((extents[v] or 1) - 1)
    return seen >= {v for v, extent in extents.items() if extent != 1}


def image_extents(exprs: Sequence[Expr], domain: Env, env: Env) -> tuple[Expr, ...] | None:
    """The extents of the least box at 0 around an image; None where an end cannot be told or is negative."""
    extents = []
    for e in exprs:
        span = index_span(e, domain, env)
        if span is None or not isinstance(simplify(span[0], env), Const) or simplify(span[0], env).value < 0:
            return None
        extents.append(simplify(binary(Max, span[1] + 1, 0), env))  # an empty axis may end before it begins
    return tuple(extents)


def covers(exprs: Sequence[Expr], domain: Env, extents: Sequence[Expr], dims: Sequence[Var] = ()) -> bool:
    """Whether the image of a box is certainly all of another box at 0: not where an expression or an extent is not affine."""
    try:
        image, whole = _image(exprs, domain, extents, dims)
    except NotAffineError:
        return False
    return bool(whole.is_subset(image))


def _image(exprs: Sequence[Expr], domain: Env, extents: Sequence[Expr], dims: Sequence[Var]) -> tuple[Any, Any]:
    n, m = len(domain), len(exprs)
    space = Space(list(dims), n + m)
    at = {v: i for i, v in enumerate(domain)}
    graph = space.ranged(dims_env(dims), {}).intersect(space.ranged(domain, at))
    for d, e in enumerate(exprs):
        graph = graph.intersect(space.dim(n + d).eq_set(space.affine(e, at)))
    box = Space(list(dims), m)
    whole = box.ranged(dims_env(dims), {})
    for d, extent in enumerate(extents):
        whole = whole.intersect(box.dim(d).ge_set(box.constant(0))).intersect(box.dim(d).lt_set(box.affine(extent, {})))
    return graph.project_out(isl.dim_type.set, 0, n), whole


def inverse(exprs: Sequence[Expr], domain: Env, results: Sequence[Var]) -> dict[Var, Expr] | None:
    """The source's variables in terms of the image's; None where one expression does not do for all points.

    Args:
        exprs: an injective map of the box `domain` (constant bounds); results: variables for its values.

    Raises:
        NotAffineError: an expression is not affine.
    """
    variables = list(domain)
    n, m = len(variables), len(exprs)
    space = Space([], n + m)
    at = {v: i for i, v in enumerate(variables)}
    graph = space.ranged(domain, at)
    for d, e in enumerate(exprs):
        graph = graph.intersect(space.dim(n + d).eq_set(space.affine(e, at)))
    pairs = isl.Map.from_domain(graph).move_dims(isl.dim_type.out, 0, isl.dim_type.in_, 0, n)
    pieces: list[Any] = []
    pairs.as_pw_multi_aff().coalesce().foreach_piece(lambda _, affs: pieces.append(affs))
    if len(pieces) != 1:
        return None
    found = {}
    for i, v in enumerate(variables):
        e = _expr_of(pieces[0].get_at(i), results)
        found[v] = simplify(e, {r: (const(0), const(2**31)) for r in results})
    assert len(results) == m
    return found


def _expr_of(aff: Any, variables: Sequence[Var]) -> Expr:
    """An isl affine function as an expression."""
    scale = aff.get_denominator_val().to_python()
    aff = aff.scale_val(isl.Val.int_from_si(isl.DEFAULT_CONTEXT, scale))
    total: Expr = const(aff.get_constant_val().to_python())
    for d, v in enumerate(variables):
        c = aff.get_coefficient_val(isl.dim_type.in_, d).to_python()
        total = total + v * c if c else total
    for d in range(aff.dim(isl.dim_type.div)):
        c = aff.get_coefficient_val(isl.dim_type.div, d).to_python()
        if c:
            inner = _expr_of(aff.get_div(d), variables)
            total = total + inner * c
    return total if scale == 1 else total // scale
