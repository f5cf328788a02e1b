"""Dependences between iterations: which loops carry one, and which reorderings keep all of them.

Two instances of blocks conflict when they touch the same element and at least one writes it. A loop carries a conflict
when the two instances differ in that loop while all loops outside it agree. The accumulator of a reduction conflicts with
itself along the reduce loops; such conflicts allow reordering (the combination is commutative) but not parallel execution.

Cheap structural checks decide first; what they leave open is decided exactly with integer sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.arith import Env, Linear, can_prove, dims_env, interval, linear, simplify
from ..ir.expr import Buffer, Expr, Var
from ..ir.primfunc import PrimFunc
from ..ir.query import conjuncts, free_vars
from ..ir.stmt import Block, For
from .maps import Digits, joined
from .regions import (
    Access,
    accesses,
    blocks_under,
    box_of,
    computes_places,
    is_dense,
    loop_env,
    loops_around,
    loops_inside,
    resolve,
    writes,
)
from .sets import NotAffineError, Space, isl, sample
from .unfuse import unfused


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two block instances that may not be exchanged.

    Attributes:
        text: the witness, in words.
    """

    source: Block
    sink: Block
    buffer: Buffer
    text: str


def private_buffers(func: PrimFunc, under: For) -> set[Buffer]:
    """Intermediate buffers of which each iteration of a loop has its own.

    Nothing outside the loop touches them, and no value flows from one iteration to another: each iteration writes, before
    it reads, at least the region that it reads, and no reduction into them runs along the loop.
    """
    inside = {b.name for b in blocks_under(under.body)}
    return {b for b, group in _touching(func).items() if _is_private(func, group, under, inside)}


def _touching(func: PrimFunc) -> dict[Buffer, list[Access]]:
    """The accesses to each intermediate buffer."""
    touched: dict[Buffer, list[Access]] = {b: [] for b in func.allocs}
    for block in func.blocks.values():
        for a in accesses(block):
            if a.buffer in touched:
                touched[a.buffer].append(a)
    return touched


def _is_private(func: PrimFunc, group: Sequence[Access], loop: For, inside: set[str]) -> bool:
    return all(a.block.name in inside for a in group) and _flows_stay_inside(func, group, loop)


def _flows_stay_inside(func: PrimFunc, group: Sequence[Access], loop: For) -> bool:
    if not group:
        return True
    first = group[0].block
    writers = {a.block.name: a.block for a in group if a.is_write}
    if first.name not in writers or (not first.is_reduction and any(not a.is_write for a in group if a.block is first)):
        return False
    if first.is_reduction and first.init is None:
        return False
    for block in writers.values():
        if computes_places(block):
            return False
        if any(it.kind == "reduce" and loop.var in free_vars(it.binding) for it in block.iters):
            return False
    around = [*loops_around(func, loop), loop]
    outer = {**dims_env(func.dims), **loop_env(around)}
    inner: dict[Var, tuple[Expr, Expr]] = {}
    for a in group:
        inner.update(loop_env(loops_inside(func, a, around)))
    if group[0].buffer.reused:
        return _reads_follow_writes(func, group, around)
    shape = group[0].buffer.shape
    written = box_of([resolve(a.block, a.indices) for a in group if a.is_write], inner, outer, shape)
    read = box_of([resolve(a.block, a.indices) for a in group if not a.is_write], inner, outer, shape)
    if all(a.is_write for a in group):
        return True
    solid = all(is_dense(resolve(a.block, a.indices), inner, outer) for a in group if a.is_write)
    covers = all(
        can_prove(wm <= rm, outer) and can_prove(rm + re <= wm + we, outer)
        for wm, we, rm, re in zip(written.mins, written.extents, read.mins, read.extents)
    )
    whole = all(_only_edges(func, block) for block in writers.values())
    return (solid and covers and whole) or _reads_are_written(func, group, around)


def _reads_follow_writes(func: PrimFunc, group: Sequence[Access], around: Sequence[For]) -> bool:
    """Whether in one iteration of the innermost loop every read comes after a write of the same element.

    For buffers whose elements take one value after another: there it is not enough that the iteration writes the element.
    """
    order = list(func.blocks)
    try:
        for x in (a for a in group if not a.is_write):
            if x.block.init is not None and x.buffer in writes(x.block):
                continue  # its own accumulator: the init comes first
            xs = loops_inside(func, x, around)
            alone = _instances(func, [(x, xs)], around)[0]
            reached = None
            for y in (a for a in group if a.is_write and a.block is not x.block):
                ys = loops_inside(func, y, around)
                points, space, (at_x, at_y) = _instances(func, [(x, xs), (y, ys)], around)
                for i, j in zip(resolve(x.block, x.indices), resolve(y.block, y.indices)):
                    points = points.intersect(space.affine(i, at_x).eq_set(space.affine(j, at_y)))
                shared = [s for s in xs if s in ys]
                earlier = space.universe() if order.index(y.block.name) < order.index(x.block.name) else None
                for s in shared:
                    same = space.dim(at_x[s.var]).eq_set(space.dim(at_y[s.var]))
                    earlier = None if earlier is None else earlier.intersect(same)
                before = _before(space, shared, at_y, at_x) if shared else None
                both = [part for part in (earlier, before) if part is not None]
                for part in both:
                    found = points.intersect(part).project_out(isl.dim_type.set, len(xs), len(ys))
                    reached = found if reached is None else reached.union(found)
            if reached is None or not alone.is_subset(reached):
                return False
    except NotAffineError:
        return False
    return True


def _instances(
    func: PrimFunc, groups: Sequence[tuple[Access, Sequence[For]]], around: Sequence[For]
) -> tuple[Any, Space, list[dict[Var, int]]]:
    """The instances of some accesses, side by side, while the loops around them stand still."""
    space = Space([*func.dims, *(s.var for s in around)], sum(len(loops) for _, loops in groups))
    points = space.ranged(loop_env(around), {})
    places: list[dict[Var, int]] = []
    start = 0
    for a, loops in groups:
        at = {s.var: start + i for i, s in enumerate(loops)}
        start += len(loops)
        points = points.intersect(space.ranged(loop_env(loops), at))
        if a.block.where is not None:
            points = points.intersect(space.condition(a.block.where, at))
        places.append(at)
    return points, space, places


def _only_edges(func: PrimFunc, block: Block) -> bool:
    """Whether a block's conditions do no more than keep its iterators inside their domain."""
    if block.where is None:
        return True
    env = {**dims_env(func.dims), **loop_env(loops_around(func, block))}
    edges = {simplify(c, env) for it in block.iters for c in (it.binding < it.extent, it.binding >= 0)}
    return all(simplify(c, env) in edges for c in conjuncts(block.where))


def _reads_are_written(func: PrimFunc, group: Sequence[Access], around: Sequence[For]) -> bool:
    """Whether one iteration of the innermost loop writes every element that it reads: exactly, with integer sets."""
    try:
        written = [_elements(func, a, around) for a in group if a.is_write]
        read = [_elements(func, a, around) for a in group if not a.is_write]
    except NotAffineError:
        return False
    whole = written[0]
    for s in written[1:]:
        whole = whole.union(s)
    return all(s.is_subset(whole) for s in read)


def _elements(func: PrimFunc, a: Access, around: Sequence[For]) -> Any:
    """The elements of an access while the loops inside `around` run, for fixed values of the loops around."""
    inner = loops_inside(func, a, around)
    indices = resolve(a.block, a.indices)
    space = Space([*func.dims, *(s.var for s in around)], len(inner) + len(indices))
    at = {s.var: i for i, s in enumerate(inner)}
    points = space.ranged(loop_env([*inner, *around]), at)
    if a.block.where is not None:
        points = points.intersect(space.condition(a.block.where, at))
    for d, index in enumerate(indices):
        points = points.intersect(space.dim(len(inner) + d).eq_set(space.affine(index, at)))
    return points.project_out(isl.dim_type.set, 0, len(inner))


def private_loops(func: PrimFunc) -> dict[Buffer, set[Var]]:
    """For each intermediate buffer, the loops inside which it may be allocated: each iteration has a buffer of its own."""
    loops = [(s, {b.name for b in blocks_under(s.body)}) for s in func.loops.values()]
    touching = _touching(func)
    return {b: {s.var for s, inside in loops if _is_private(func, g, s, inside)} for b, g in touching.items()}


def _shared_accesses(func: PrimFunc, loop: For) -> dict[Buffer, list[Access]]:
    """Accesses under a loop to the buffers that are written there and outlive an iteration."""
    found = [a for b in blocks_under(loop.body) for a in accesses(b)]
    private = private_buffers(func, loop)
    written = {a.buffer for a in found if a.is_write} - private
    table: dict[Buffer, list[Access]] = {}
    for a in found:
        if a.buffer in written:
            table.setdefault(a.buffer, []).append(a)
    return table


def carried(func: PrimFunc, loop: For) -> Conflict | None:
    """A conflict that the loop carries, or None: then its iterations are independent."""
    pair = unfused(func, loop)
    if pair is not None and all(carried(pair.func, s) is None for s in (pair.outer, pair.inner)):
        return None
    outer = loops_around(func, loop)
    for group in _shared_accesses(func, loop).values():
        if not _separated(func, group, loop, outer):
            conflict = _first_conflict(func, group, loop, outer)
            if conflict is not None:
                return conflict
    return None


def _separated(func: PrimFunc, group: Sequence[Access], loop: For, outer: Sequence[For]) -> bool:
    """Whether one dimension of the index already keeps the loop's iterations apart."""
    outer_vars = {s.var for s in outer} | set(func.dims)
    shapes: list[set[tuple]] = []
    for a in group:
        loops = loops_inside(func, a, ())
        env = {**dims_env(func.dims), **loop_env(loops)}
        keys: set[tuple] = set()
        for digits, index in _coordinates(resolve(a.block, a.indices), env):
            form = linear(index, env)
            c = form.terms.get(loop.var, 0)
            if not c or any(loop.var in free_vars(t) for t in form.terms if t is not loop.var):
                continue
            fixed = {t: k for t, k in form.terms.items() if t is not loop.var and free_vars(t) <= outer_vars}
            inner = {t: k for t, k in form.terms.items() if t is not loop.var and t not in fixed}
            low, high = interval(Linear(inner).expr(), env)
            if low is not None and high is not None and high - low < abs(c):
                base = (form.constant + low) // abs(c)
                if base == (form.constant + high) // abs(c):
                    keys.add((digits, c, frozenset(fixed.items()), base))
        shapes.append(keys)
    return bool(set.intersection(*shapes)) if shapes else True


def _coordinates(indices: Sequence[Expr], env: Env) -> list[tuple[Digits, Expr]]:
    """The dimensions of an index, and what several of them determine together. Accesses to one element agree in those that are made
    of the same digits of the same dimensions."""
    whole: list[tuple[Digits, Expr]] = [(((d, 1, None),), i) for d, i in enumerate(indices)]
    return whole + [(d, x) for d, x in joined([simplify(i, env) for i in indices]) if len(d) > 1]


def _first_conflict(func: PrimFunc, group: Sequence[Access], loop: For, outer: Sequence[For]) -> Conflict | None:
    for x in group:
        for y in group:
            if x.is_write or y.is_write:
                found = _pair(func, x, y, outer, [loop], None)
                if found is not None:
                    return found
    return None


def _pair(
    func: PrimFunc, x: Access, y: Access, outer: Sequence[For], old: Sequence[For], new: Sequence[For] | None
) -> Conflict | None:
    """Instances p of x and q of y that touch one element, with p before q in the old order of some loops.

    With `new` None they differ in the first of `old`; else the new order runs q before p.
    """

    def order(space: Space, at_x: dict[Var, int], at_y: dict[Var, int]) -> Any:
        points = _before(space, old, at_x, at_y)
        return points if new is None else points.intersect(_before(space, new, at_y, at_x))

    return _conflict(func, x, y, outer, order, old, old)


_Order = Callable[[Space, dict[Var, int], dict[Var, int]], Any]


def _conflict(
    func: PrimFunc, x: Access, y: Access, outer: Sequence[For], order: _Order, of_x: Sequence[For], of_y: Sequence[For]
) -> Conflict | None:
    """Instances of two accesses that touch one element, among those that `order` admits.

    Args:
        of_x, of_y: the loops whose values make the witness.
    """
    params = [*func.dims, *(s.var for s in outer)]
    xs, ys = loops_inside(func, x, outer), loops_inside(func, y, outer)
    space = Space(params, len(xs) + len(ys))
    at_x = {s.var: i for i, s in enumerate(xs)}
    at_y = {s.var: len(xs) + i for i, s in enumerate(ys)}
    try:
        points = space.universe()
        for loops, at, block in ((xs, at_x, x.block), (ys, at_y, y.block)):
            points = points.intersect(space.ranged(loop_env(loops), at))
            if block.where is not None:
                points = points.intersect(space.condition(block.where, at))
        for i, j in zip(resolve(x.block, x.indices), resolve(y.block, y.indices)):
            points = points.intersect(space.affine(i, at_x).eq_set(space.affine(j, at_y)))
        points = points.intersect(order(space, at_x, at_y))
    except NotAffineError as error:
        text = f"the index of {x.buffer.name} is not affine ({error}), so nothing can be proved about it"
        return Conflict(x.block, y.block, x.buffer, text)
    if points.is_empty():
        return None
    where = sample(points, len(xs) + len(ys))
    shown = [", ".join(f"{s.var.name}={where[at[s.var]]}" for s in of) for of, at in ((of_x, at_x), (of_y, at_y))]
    verbs = ["writes" if a.is_write else "reads" for a in (x, y)]
    text = (
        f"block {x.block.name} at {shown[0]} {verbs[0]} and block {y.block.name} at {shown[1]} {verbs[1]} "
        f"the same element of {x.buffer.name}"
    )
    return Conflict(x.block, y.block, x.buffer, text)


def crossed(func: PrimFunc, first: For, second: For) -> Conflict | None:
    """A conflict between an iteration of one loop and an earlier iteration of a loop behind it.

    Without one the two loops may run side by side, iteration by iteration.
    """
    outer = loops_around(func, first)

    def later(space: Space, at_x: dict[Var, int], at_y: dict[Var, int]) -> Any:
        return space.dim(at_x[first.var]).gt_set(space.dim(at_y[second.var]))

    for x in (a for b in blocks_under(first.body) for a in accesses(b)):
        for y in (a for b in blocks_under(second.body) for a in accesses(b)):
            if x.buffer is y.buffer and (x.is_write or y.is_write):
                found = _conflict(func, x, y, outer, later, [first], [second])
                if found is not None:
                    return found
    return None


def _before(space: Space, loops: Sequence[For], first: dict[Var, int], second: dict[Var, int]) -> object:
    """The points at which `first` comes before `second` in the lexicographic order of the loops."""
    result = None
    equal = space.universe()
    for s in loops:
        a, b = space.dim(first[s.var]), space.dim(second[s.var])
        part = equal.intersect(a.lt_set(b))
        result = part if result is None else result.union(part)
        equal = equal.intersect(a.eq_set(b))
    return result


def _order_lost(block: Block, old: Sequence[For], new: Sequence[For]) -> Conflict | None:
    """A conflict where a block that changes elements at computed places would run its points in another order."""
    if not computes_places(block):
        return None
    used = [it.binding for it in block.reduce]
    before, after = ([s.var for s in loops if any(s.var in free_vars(e) for e in used)] for loops in (old, new))
    if before == after:
        return None
    buffer = next(a.buffer for a in accesses(block) if a.is_write)
    text = f"block {block.name} changes elements of {buffer.name} at computed places: one that several points name is changed in their order"
    return Conflict(block, block, buffer, text)


def reversed_by(func: PrimFunc, old: Sequence[For], new: Sequence[For]) -> Conflict | None:
    """A conflict whose two instances change places when a chain of loops runs in another order.

    Args:
        old: the chain, outermost first; new: the same loops in the wanted order.
    """
    body = old[-1].body
    blocks = blocks_under(body)
    if len(blocks) == 1:
        return _order_lost(blocks[0], old, new)  # its points are independent but for its reduction, which commutes
    outer = loops_around(func, old[0])
    group_by_buffer: dict[Buffer, list[Access]] = {}
    for b in blocks:
        for a in accesses(b):
            group_by_buffer.setdefault(a.buffer, []).append(a)
    private = private_buffers(func, old[-1])
    for buffer, group in group_by_buffer.items():
        if buffer in private or not any(a.is_write for a in group):
            continue
        for x in group:
            for y in group:
                reduction = x.block is y.block and x.block.is_reduction
                if (x.is_write or y.is_write) and not reduction:
                    found = _pair(func, x, y, outer, old, new)
                    if found is not None:
                        return found
    return None
