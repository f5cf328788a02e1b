"""Decisions that a search may vary: sample_perfect_tile, sample_partitioned_tile, sample_categorical,
sample_compute_location.

A decision is part of the trace, so that a replay makes the same one; `draw` makes a new one. The kernel stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from random import Random
from typing import Any

from ...analysis.regions import consumers, loops_around, writes
from ...ir.arith import divisors
from ...ir.expr import Const, Var
from ...ir.primfunc import PrimFunc
from ...ir.query import as_int
from .base import BlockRef, Primitive, Refusal
from .placement import check_compute_at


class Sampled(int):
    """A number that a search decided. It is known by its place in the trace, so that steps that use it follow it."""

    token: object

    def __new__(cls, value: int) -> Sampled:
        self = super().__new__(cls, value)
        self.token = object()
        return self


MAX_FACTORS = 16


def _tile(func: PrimFunc, loop: Var, n: int, what: str) -> Refusal | int:
    s = func.loops[loop]
    if isinstance(n, bool) or not isinstance(n, int) or not 2 <= n <= MAX_FACTORS:
        return Refusal(
            what, f"a tiling has at least two factors and at most {MAX_FACTORS}, not {n!r}", {s: "this loop"}
        )
    if not isinstance(s.extent, Const):
        return Refusal(what, "its extent is symbolic", {s: "unknown extent"}, "split it by fixed factors")
    return int(s.extent.value)


def check_sample_perfect_tile(
    func: PrimFunc, loop: Var, n: int, max_innermost_factor: int, decision: Sequence[int]
) -> Refusal | None:
    what = f"cannot tile loop {loop.name} perfectly by {list(decision)}"
    extent = _tile(func, loop, n, what)
    if isinstance(extent, Refusal):
        return extent
    if len(decision) != n or prod(decision) != extent or min(decision) < 1:
        return Refusal(what, f"the {n} factors must multiply to {extent}", {func.loops[loop]: "this loop"})
    if decision[-1] > max_innermost_factor:
        return Refusal(what, f"the innermost factor is above {max_innermost_factor}", {func.loops[loop]: "this loop"})
    return None


def apply_sample_perfect_tile(
    func: PrimFunc, loop: Var, n: int, max_innermost_factor: int, decision: Sequence[int]
) -> tuple[PrimFunc, list[int]]:
    """Factors, outermost first, whose product is the loop's extent.

    >>> sch = add(24)
    >>> (i,) = sch.get_loops("B")
    >>> sch.sample_perfect_tile(i, 2, 16, decision=[3, 8])
    [3, 8]
    """
    return func, [Sampled(d) for d in decision]


def draw_perfect_tile(func: PrimFunc, rng: Random, loop: Var, n: int, max_innermost_factor: int) -> list[int]:
    """Random factors of a loop's extent."""
    rest = as_int(func.loops[loop].extent, 1)
    factors: list[int] = []
    if isinstance(n, bool) or not isinstance(n, int) or not 2 <= n <= MAX_FACTORS:
        return factors  # which the check refuses
    for place in range(n - 1):
        limit = max_innermost_factor if place == 0 else rest
        factors.insert(0, rng.choice([d for d in divisors(rest) if d <= limit]))
        rest //= factors[0]
    return [rest, *factors]


def check_sample_partitioned_tile(
    func: PrimFunc, loop: Var, n: int, partition_pos: int, innerpart_factor: int, decision: Sequence[int]
) -> Refusal | None:
    what = f"cannot tile loop {loop.name} by {list(decision)}"
    extent = _tile(func, loop, n, what)
    if isinstance(extent, Refusal):
        return extent
    mark = {func.loops[loop]: "this loop"}
    if not 0 < partition_pos < n or innerpart_factor < 1 or extent % innerpart_factor:
        return Refusal(what, f"{innerpart_factor} does not divide {extent}, or {partition_pos} is no place in it", mark)
    if len(decision) != n or prod(decision) != extent or min(decision) < 1:
        return Refusal(what, f"the {n} factors must multiply to {extent}", mark)
    if prod(decision[partition_pos:]) % innerpart_factor:
        why = f"the factors from {partition_pos} on must multiply to a multiple of {innerpart_factor}"
        return Refusal(what, why, mark)
    return None


def apply_sample_partitioned_tile(
    func: PrimFunc, loop: Var, n: int, partition_pos: int, innerpart_factor: int, decision: Sequence[int]
) -> tuple[PrimFunc, list[int]]:
    """Factors whose product is the loop's extent, those from `partition_pos` on a multiple of `innerpart_factor`.

    >>> sch = add(24)
    >>> (i,) = sch.get_loops("B")
    >>> sch.sample_partitioned_tile(i, 3, 1, 4, decision=[2, 3, 4])
    [2, 3, 4]
    """
    return func, [Sampled(d) for d in decision]


def draw_partitioned_tile(
    func: PrimFunc, rng: Random, loop: Var, n: int, partition_pos: int, innerpart_factor: int
) -> list[int]:
    """Random factors, the inner ones a multiple of a number."""
    extent = as_int(func.loops[loop].extent, 1)
    factors = [1] * n
    if extent % innerpart_factor or not 0 < partition_pos < n:
        return [extent, *factors[1:]]  # the check says what is wrong
    factors[rng.randrange(partition_pos, n)] = innerpart_factor
    rest = extent // innerpart_factor
    for place in rng.sample(range(n), n - 1):
        d = rng.choice(divisors(rest))
        factors[place] *= d
        rest //= d
    factors[0] *= rest
    return factors


def check_sample_categorical(
    func: PrimFunc, candidates: Sequence[int], probs: Sequence[float], decision: int
) -> Refusal | None:
    what = f"cannot choose number {decision} of {list(candidates)}"
    if any(isinstance(c, bool) or not isinstance(c, int) for c in candidates):
        return Refusal(what, "candidates are integers")
    if len(probs) != len(candidates) or not all(p >= 0 for p in probs) or not sum(probs) > 0:
        return Refusal(what, "there must be one weight, at least 0, for each candidate, and not all 0")
    if not isinstance(decision, int) or not 0 <= decision < len(candidates):
        return Refusal(what, f"the candidates are numbered 0 to {len(candidates) - 1}")
    return None


def apply_sample_categorical(
    func: PrimFunc, candidates: Sequence[int], probs: Sequence[float], decision: int
) -> tuple[PrimFunc, int]:
    """One of several numbers.

    >>> sch = add(24)
    >>> sch.sample_categorical([4, 8, 16], [0.2, 0.3, 0.5], decision=1)
    8
    """
    return func, Sampled(candidates[decision])


def draw_categorical(func: PrimFunc, rng: Random, candidates: Sequence[int], probs: Sequence[float]) -> int:
    """The place of a random candidate."""
    if len(probs) != len(candidates) or not candidates or not sum(probs) > 0:
        return 0
    return rng.choices(range(len(candidates)), probs)[0]


def compute_locations(func: PrimFunc, block: BlockRef) -> list[Var | None]:
    """Where a block may be computed: None (where it is), and every loop that compute_at takes."""
    users = [c for x in writes(func.blocks[block.name]) for c in consumers(func, x)]
    loops = dict.fromkeys(s.var for c in users for s in loops_around(func, c))
    return [None, *(v for v in loops if check_compute_at(func, block, v) is None)]


def check_sample_compute_location(func: PrimFunc, block: BlockRef, decision: int) -> Refusal | None:
    count = len(compute_locations(func, block))
    if isinstance(decision, int) and 0 <= decision < count:
        return None
    what = f"cannot choose place {decision} for block {block.name}"
    return Refusal(what, f"there are {count} places, numbered from 0", {func.blocks[block.name]: "this block"})


def apply_sample_compute_location(func: PrimFunc, block: BlockRef, decision: int) -> tuple[PrimFunc, Var | None]:
    """A loop at which the block may be computed (for compute_at), or None: leave it where it is.

    >>> sch = matmul(4, 6, 8)
    >>> sch.sample_compute_location("C", decision=1)
    Var(i)
    """
    return func, compute_locations(func, block)[decision]


def draw_compute_location(func: PrimFunc, rng: Random, block: BlockRef) -> int:
    """The number of a random place."""
    return rng.randrange(len(compute_locations(func, block)))


SAMPLE_PERFECT_TILE = Primitive("sample_perfect_tile", check_sample_perfect_tile, apply_sample_perfect_tile)
SAMPLE_PARTITIONED_TILE = Primitive(
    "sample_partitioned_tile", check_sample_partitioned_tile, apply_sample_partitioned_tile
)
SAMPLE_CATEGORICAL = Primitive("sample_categorical", check_sample_categorical, apply_sample_categorical)
SAMPLE_COMPUTE_LOCATION = Primitive(
    "sample_compute_location", check_sample_compute_location, apply_sample_compute_location
)

DRAW: dict[str, Callable[..., Any]] = {
    "sample_perfect_tile": draw_perfect_tile,
    "sample_partitioned_tile": draw_partitioned_tile,
    "sample_categorical": draw_categorical,
    "sample_compute_location": draw_compute_location,
}
"""How a decision is drawn: (func, rng, the primitive's arguments but the decision) -> decision."""
