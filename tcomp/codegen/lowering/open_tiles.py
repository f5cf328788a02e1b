"""Tiles at the edge of extents that are known only when the kernel runs: two versions of a loop's body, as `partition_loops` makes them
where numbers tell how many tiles are whole."""

from __future__ import annotations

from collections.abc import Iterator

from ...analysis.unfuse import digits_of
from ...ir.arith import dims_env, linear, loop_range, simplify
from ...ir.expr import LE, LT, Const, Expr, FloorDiv, FloorMod, Load, Max, Min, Var, const
from ...ir.node import rewrite, substitute, walk, with_fields
from ...ir.primfunc import PrimFunc
from ...ir.query import all_of, conjuncts, free_vars
from ...ir.stmt import Allocate, For, If, Let, Stmt, Store, map_statements, own_binders, sub_statements, walk_statements
from .common import Env, extend, simplify_statements

MAX_VERSIONS = 2
TRUE = const(True)


def split_open_tiles(func: PrimFunc) -> PrimFunc:
    """Hoist conditions such as `io * 8 + ii < n` for a symbolic n, where `ii` is unrolled or vectorized inside `io`:

        if io * 8 + 7 < n: body without the condition
        else: body

    In the edge version of an unrolled tile that is kept in private memory, rows behind the last one compute what that one does, and
    nobody stores it: that costs less than a branch for each row. Where at most half of the rows are left, or a single one, there is
    a version of so many.

    The digits of a loop fused of others, one of them of symbolic extent, get names first: `f // ((n + 7) // 8)` and the remainder.
    """
    if not func.dims:
        return func
    return with_fields(func, body=_visit(func.body, dims_env(func.dims), func.dims, 0))


def _visit(s: Stmt, env: Env, dims: tuple[Var, ...], versions: int) -> Stmt:
    if not isinstance(s, For):
        inner = extend(env, s) if isinstance(s, Let) else env
        return map_statements(s, lambda x: _visit(x, inner, dims, versions))
    inner = extend(env, s)
    if s.kind not in ("serial", "parallel"):
        return map_statements(s, lambda x: _visit(x, inner, dims, versions))
    names, body, inner = _named_digits(s, inner, dims)
    body = _below_allocations(body, inner, dims, versions, frozenset())
    for var, value in reversed(names):
        body = Let(var, value, body)
    return s if body is s.body else with_fields(s, body=body)


def _named_digits(s: For, env: Env, dims: tuple[Var, ...]) -> tuple[list[tuple[Var, Expr]], Stmt, Env]:
    """Names for the digits of a fused loop, and its body in terms of them."""
    names: list[tuple[Var, Expr]] = []
    var, extent, body = s.var, s.extent, s.body
    while True:
        found = digits_of(var, extent, body, dims)
        if found is None:
            return names, simplify_statements(body, env) if names else body, env
        rest: Expr = FloorDiv(var, found.m)
        if isinstance(found.count, Const):  # what follows learns the range from the text
            rest = Max(Min(rest, const(found.count.value - 1)), const(0))
        names += [(found.outer, rest), (found.inner, FloorMod(var, found.m))]
        env = {**env, found.outer: loop_range(found.count), found.inner: loop_range(found.m)}
        var, extent, body = found.outer, found.count, found.body


def _below_allocations(body: Stmt, env: Env, dims: tuple[Var, ...], versions: int, private: frozenset) -> Stmt:
    if isinstance(body, Allocate):
        inside = _below_allocations(body.body, env, dims, versions, private | {body.buffer})
        return body if inside is body.body else with_fields(body, body=inside)
    tiles = {x.var: x for x in walk_statements(body) if isinstance(x, For) and x.kind in ("unrolled", "vectorized")}
    hoisted = dict(_open_conditions(body, env, dims, tiles)) if versions < MAX_VERSIONS else {}
    if not hoisted:
        return _visit(body, env, dims, versions)
    test = all_of(list(dict.fromkeys(hoisted.values())))
    assert test is not None
    whole = simplify_statements(rewrite(body, lambda e: TRUE if _among(e, hoisted) else e), env)

    needed: dict[Expr, None] = {}

    def edge(rows: dict[Var, int]) -> Stmt:
        part = _clamped(own_binders(_first_rows(body, rows)), private, needed)
        return _visit(simplify_statements(part, env), env, dims, versions + 1)

    result = edge({})
    for few, is_enough in _fewer_rows(hoisted, tiles, env):
        result = If(is_enough, edge(few), result)
    has_rows = all_of([LT(const(0), e) for e in needed])
    if has_rows is not None:  # there is an element to read instead of those behind the end
        plain = _visit(simplify_statements(own_binders(body), env), env, dims, versions + 1)
        result = If(has_rows, result, plain)
    return If(test, _visit(whole, env, dims, versions + 1), result)


def _fewer_rows(hoisted: dict[Expr, Expr], tiles: dict[Var, For], env: Env) -> Iterator[tuple[dict[Var, int], Expr]]:
    """Smaller numbers of unrolled rows, the larger first, each with the condition under which they are enough."""
    rows = {c: next(iter(free_vars(c) & tiles.keys())) for c in hoisted if len(free_vars(c) & tiles.keys()) == 1}
    extents = {int(tiles[v].extent.value) for v in rows.values() if isinstance(tiles[v].extent, Const)}
    if len(rows) < len(hoisted) or len(extents) != 1 or any(tiles[v].kind != "unrolled" for v in rows.values()):
        return
    if not all(_grows(c, v) and _is_guarded(tiles[v].body, hoisted) for c, v in rows.items()):
        return
    count = extents.pop()
    for few in sorted({n for n in (1, count // 2) if 0 < n < count}, reverse=True):
        further = {simplify(substitute(c, {v: const(few)}), env) for c, v in rows.items()}
        if len(further) == 1:
            c = further.pop()
            if isinstance(c, (LT, LE)):
                yield dict.fromkeys(rows.values(), few), (LE if isinstance(c, LT) else LT)(c.b, c.a)


def _is_guarded(s: Stmt, hoisted: dict[Expr, Expr]) -> bool:
    """Whether all that a statement stores stands under hoisted conditions."""
    if isinstance(s, If) and s.orelse is None and any(c in hoisted for c in conjuncts(s.cond)):
        return True
    return not isinstance(s, Store) and all(_is_guarded(x, hoisted) for x in sub_statements(s))


def _grows(c: Expr, v: Var) -> bool:
    """Whether a comparison that fails for one value of a variable fails for all larger ones."""
    assert isinstance(c, (LT, LE))
    return linear(c.a - c.b, {}).terms.get(v, 0) > 0


def _first_rows(body: Stmt, rows: dict[Var, int]) -> Stmt:
    """The body with fewer iterations of some loops."""

    def visit(s: Stmt) -> Stmt:
        s = map_statements(s, visit)
        return with_fields(s, extent=const(rows[s.var])) if isinstance(s, For) and s.var in rows else s

    return visit(body) if rows else body


def _among(e: object, hoisted: dict[Expr, Expr]) -> bool:
    return isinstance(e, (LT, LE)) and e in hoisted


def _open_conditions(body: Stmt, env: Env, dims: tuple[Var, ...], tiles: dict[Var, For]) -> Iterator[tuple[Expr, Expr]]:
    """Comparisons with symbolic extents that the variables of tiles decide, besides what is known outside; each with the comparison
    that holds where it holds for the whole tile."""
    for x in walk_statements(body):
        conditions = [x.cond] if isinstance(x, If) else []
        if isinstance(x, (Store, Let)):
            conditions += [e.mask for e in walk(x.value) if isinstance(e, Load) and e.mask is not None]
        for c in (c for condition in conditions for c in conjuncts(condition)):
            used = free_vars(c)
            own = used & tiles.keys()
            if (
                not isinstance(c, (LT, LE))
                or not own
                or not used & set(dims)
                or not used <= own | env.keys() | set(dims)
            ):
                continue
            greatest = _greatest(c, {v: tiles[v] for v in own}, env)
            if greatest is not None:
                yield c, greatest


def _greatest(c: Expr, tiles: dict[Var, For], env: Env) -> Expr | None:
    """The comparison for the variables of a tile that fulfil it last; None where that is not known."""
    terms = linear(c.a - c.b, {}).terms
    if any(v in free_vars(t) for t in terms for v in tiles if t is not v):
        return None
    last: dict[Var, Expr] = {}
    for v, loop in tiles.items():
        last[v] = simplify(loop.extent - 1) if terms.get(v, 0) > 0 else const(0)
    return simplify(substitute(c, last), env)


def _clamped(body: Stmt, private: frozenset, needed: dict[Expr, None]) -> Stmt:
    """The edge of tiles that are kept in private memory, without conditions on unrolled rows there: each row behind the last has elements
    of its own. (Iterations of a reduction have not; they keep their conditions.)

    Args:
        needed: gets the extents that must not be 0 then.
    """
    rows = {x.var for x in walk_statements(body) if isinstance(x, For) and x.kind == "unrolled"}

    def visit(s: Stmt) -> Stmt:
        if not isinstance(s, If) or s.orelse is not None:
            return map_statements(s, visit)
        stores = [x for x in walk_statements(s.then) if isinstance(x, Store)]
        own = free_vars(s.cond) & rows
        if (
            not own
            or any(x.buffer not in private or not own <= _varied(x) for x in stores)
            or any(isinstance(x, If) for x in walk_statements(s.then))
        ):
            return map_statements(s, visit)
        for c in conjuncts(s.cond):
            if (
                not isinstance(c, (LT, LE))
                or not all(_grows(c, v) for v in free_vars(c) & rows)
                or not free_vars(c) & rows
            ):
                return map_statements(s, visit)
        return rewrite(s.then, lambda e: _inside(e, own, private, needed))

    return visit(body)


def _varied(s: Store) -> set[Var]:
    """The variables that decide which element is stored."""
    return {v for i in s.indices for v in free_vars(i)}


def _inside(e: object, rows: set[Var], private: frozenset, needed: dict[Expr, None]) -> object:
    """A load with the indices that rows decide kept inside its buffer."""
    if not isinstance(e, Load) or e.buffer in private:
        return e
    indices = []
    for i, extent in zip(e.indices, e.buffer.shape):
        if free_vars(i) & rows:
            i = Max(Min(i, simplify(extent - 1)), const(0))
            if not isinstance(extent, Const):
                needed[extent] = None
        indices.append(i)
    return with_fields(e, indices=tuple(indices))
