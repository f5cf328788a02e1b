"""Two versions of a loop body: one for whole tiles, without conditions, and one for the edge."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

from ...ir.arith import TRUE, can_prove, dims_env, linear
from ...ir.expr import LE, LT, And, Const, Expr, FloorDiv, FloorMod, Load, Var, const
from ...ir.node import rewrite, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import conjuncts, free_vars
from ...ir.stmt import Allocate, For, If, Let, Seq, Stmt, Store, map_statements, own_binders, seq, walk_statements
from .common import Env, extend, simplify_statements

MAX_VERSIONS = 3


def partition_loops(func: PrimFunc) -> PrimFunc:
    """Hoist tile conditions.

    A condition (of a branch or of a masked load) such as `io * 16 + ii < n`, where `ii` runs inside `io`, holds for all of `ii`
    in every iteration of `io` but the last. Where the inner loops are vectorized or unrolled, the body of `io` becomes

        if io < whole: body without the condition
        else: body

    and of several statements only those come in two versions that hold conditions, or stand between such.

    Where loops were fused, so that the condition is about a digit of a loop's variable, as in `f % 10 * 16 + ii < n`, the digit
    gets a name and takes the part of `io`.

    A condition of masked loads that no inner loop decides, such as whether a row of a padded image is one of the image, becomes a
    branch around the loop's body, without it on one side. So does one that loops around this one decide, too, where it holds for all
    copies and lanes when it holds for the last: `group * 42 + io * 6 + ii < n` does if `group * 42 + io * 6 + 5 < n`.
    """
    return with_fields(func, body=_visit(func.body, dims_env(func.dims), 0))


def _visit(s: Stmt, env: Env, versions: int) -> Stmt:
    if not isinstance(s, (For, Let)):
        return map_statements(s, lambda x: _visit(x, env, versions))
    inner = extend(env, s)
    if versions < MAX_VERSIONS and _may_split(s, inner):
        bound = _whole_tiles(s.body, s.var, inner)
        if bound is not None and 0 < bound <= inner[s.var][1].value:
            return with_fields(s, body=_two_versions(s.body, s.var, bound, inner, versions))
        for digit in _digits(s, inner):
            s = with_fields(s, body=_named(digit, s.body))
        if decided := _decided(s, inner):
            return with_fields(s, body=_switched(s.body, decided, inner, versions))
    return map_statements(s, lambda x: _visit(x, inner, versions))


def _decided(s: For | Let, env: Env) -> dict[Expr, Expr]:
    """The conditions inside a loop that its variable decides, and those around it, and what must hold for them to hold in all copies and
    lanes; no other variable inside takes part in them. One that is the same for all of these counts only beside such that are not."""
    tiles = _tiles(s.body)
    inside = {x.var for x in walk_statements(s.body) if isinstance(x, (For, Let))} - tiles
    found: dict[Expr, Expr] = {}
    pays = False
    for c, inner, is_mask in _comparisons(s.body, env):
        used = free_vars(c)
        if s.var in used and not used & inside and not any(isinstance(e, Load) for e in walk(c)):
            last = _at_last(c, used & tiles, inner)
            if last is not None:
                found[c] = last
                pays |= is_mask or bool(used & tiles)
    return found if pays else {}


def _at_last(c: LT | LE, tiles: set[Var], env: Env) -> Expr | None:
    """A comparison where it is hardest to meet for the variables of tiles; None where that is not at one of their ends."""
    terms = linear(c.a - c.b, {}).terms
    ends = {}
    for var in tiles:
        others = [t for t in terms if t is not var and var in free_vars(t)]
        low, high = env[var]
        end = high if terms.get(var, 0) > 0 else low
        if others or not isinstance(end, Const):
            return None
        ends[var] = end
    return substitute(c, ends)


def _switched(body: Stmt, decided: dict[Expr, Expr], env: Env, versions: int) -> Stmt:
    """The body where all conditions hold, without them; and as it is."""
    free = simplify_statements(rewrite(body, lambda x: TRUE if x in decided else x), env)
    whole, edge = (_visit(x, env, versions + 1) for x in (free, own_binders(body)))
    return If(reduce(And, dict.fromkeys(decided.values())), whole, edge)


def _two_versions(body: Stmt, var: Var, bound: int, env: Env, versions: int, known: Env | None = None) -> Stmt:
    """The statements that hold hoistable conditions, and those between them, for values of the variable below the bound and for
    the others; what stands before or after them, also in a loop inside, stays as it is.

    Args:
        known: the ranges around the variable's own body.
    """
    known = env if known is None else known
    if isinstance(body, Allocate):
        return map_statements(body, lambda x: _two_versions(x, var, bound, env, versions, known))
    before, within, after = _around_conditions(body, var, known)
    if before or after:
        parts = [_visit(x, env, versions) for x in before]
        parts.append(_two_versions(seq(within), var, bound, env, versions, known))
        return seq([*parts, *(_visit(x, env, versions) for x in after)])
    if isinstance(body, For) and body.kind == "serial":
        inside = body.body
        while isinstance(inside, Allocate):
            inside = inside.body
        if any(_around_conditions(inside, var, known)[::2]):
            env = extend(env, body)
            return with_fields(body, body=_two_versions(body.body, var, bound, env, versions, known))
    whole_env = {**env, var: (const(0), const(bound - 1))}
    edge_env = {**env, var: (const(bound), env[var][1])}
    whole = _visit(simplify_statements(body, whole_env), whole_env, versions + 1)
    edge = _visit(simplify_statements(own_binders(body), edge_env), edge_env, versions + 1)
    return If(var < bound, whole, edge)


def _around_conditions(body: Stmt, var: Var, env: Env) -> tuple[list[Stmt], list[Stmt], list[Stmt]]:
    """The statements of a sequence before the first that holds a hoistable condition, from there to the last, and after it."""
    if not isinstance(body, Seq):
        return [], [body], []
    holds = [_whole_tiles(x, var, env) is not None for x in body.stmts]
    if not any(holds):
        return [], list(body.stmts), []
    first, end = holds.index(True), len(holds) - holds[::-1].index(True)
    return list(body.stmts[:first]), list(body.stmts[first:end]), list(body.stmts[end:])


def _may_split(s: For | Let, inner: Env) -> bool:
    """Whether the variable counts from 0 to a constant around vectorized or unrolled loops."""
    if isinstance(s, For) and s.kind not in ("serial", "parallel"):
        return False
    low, high = inner.get(s.var, (None, None))
    if low != const(0) or not isinstance(high, Const):
        return False
    return bool(_tiles(s.body))


def _tiles(body: Stmt) -> set[Var]:
    """The variables of the loops inside that become copies or lanes."""
    return {x.var for x in walk_statements(body) if isinstance(x, For) and x.kind in ("vectorized", "unrolled")}


def _hoistable(body: Stmt, var: Var, env: Env) -> Iterator[tuple[LT | LE, Env]]:
    """Comparisons in a loop's body of which its variable, and those of loops inside of it, decide; with their ranges."""
    outer, tiles = set(env) - {var}, _tiles(body)
    for c, inner, _ in _comparisons(body, env):
        used = free_vars(c)
        if var in used and used & tiles and not used & outer:
            yield c, inner


def _comparisons(body: Stmt, env: Env) -> Iterator[tuple[LT | LE, Env, bool]]:
    """Those that branches and masked loads ask for, with the ranges of the variables around them, and whether they are of a load."""
    inner = env
    for x in walk_statements(body):
        conditions: list[Expr] = []
        if isinstance(x, (For, Let)):
            inner = extend(inner, x)
        if isinstance(x, If):
            conditions = [x.cond]
        elif isinstance(x, (Store, Let)):
            masks = [e.mask for e in walk(x.value) if isinstance(e, Load) and e.mask is not None]
            conditions = list(dict.fromkeys(masks))
        for c in (c for condition in conditions for c in conjuncts(condition)):
            if isinstance(c, (LT, LE)):
                yield c, inner, not isinstance(x, If)


def _whole_tiles(body: Stmt, var: Var, env: Env) -> int | None:
    """How many first values of the variable satisfy every hoistable condition in the body; None where there is none."""
    bounds = []
    for c, inner in _hoistable(body, var, env):
        if linear(c.a - c.b, {}).terms.get(var, 0) <= 0:
            continue
        low, high = 0, inner[var][1].value + 1
        while low < high:
            middle = (low + high + 1) // 2
            if can_prove(c, {**inner, var: (const(0), const(middle - 1))}):
                low = middle
            else:
                high = middle - 1
        bounds.append(low)
    return min(bounds) if bounds else None


def _digits(s: For | Let, env: Env) -> list[Expr]:
    """Digits of the variable, such as `f // 7 % 10`, that hoistable conditions of unrolled and vectorized loops are about."""
    found: dict[Expr, None] = {}
    tiles = _tiles(s.body)
    for c, _ in _hoistable(s.body, s.var, env):
        if not free_vars(c) - {s.var} <= tiles:
            continue
        for term, factor in linear(c.a - c.b, {}).terms.items():
            if factor > 0 and isinstance(term, (FloorDiv, FloorMod)) and free_vars(term) == {s.var}:
                found[term] = None
    return list(found)


def _named(value: Expr, body: Stmt) -> Let:
    name = Var("digit", value.dtype)
    return Let(name, value, rewrite(body, lambda x: name if x == value else x))
