"""The default schedule of attention (`tcomp.ops.attention` says what it computes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from ....analysis.regions import writes
from ....ir.expr import Var
from ....ir.primfunc import PrimFunc
from ....ir.query import int_of
from ....target import CpuTarget
from ...library import (
    accumulate_tile,
    fuse_all,
    tile_write_back,
    unroll_and_vectorize,
    vectorize_innermost,
    vectorize_partial,
)
from ...schedule import Schedule
from ..plan import decision, yes_or_no
from ..roles import by_role, has_role, inline_into_output
from .common import Work
from .rows import Run, accumulators, factor
from .tiles import Tile, choose_tile, rows_within

NAME = "attention"

KEYS, PRODUCT, SCORES, TOP, WEIGHTS, TOTAL, MIXED, RESULT = (
    "attention_keys", "attention_product", "attention_scores", "attention_top", "attention_weights", "attention_total",
    "attention_mixed", "attention",
)  # fmt: skip
ROW_TILES = 8
"""Register tiles of queries that go together: they share what is loaded of keys and values."""
FEW_QUERIES = 4
"""Queries below which packed keys would not be used often enough."""


def applies(func: PrimFunc, target: CpuTarget) -> bool:
    return has_role(func, PRODUCT)


def panel_for(target: CpuTarget, scores: Sequence[int], queries: Sequence[int], itemsize: int) -> int:
    """Keys in a panel, packed inside the kernel; 0 where there are too few queries to use it, or too few keys.

    Args:
        scores: extents of the scores, (..., rows, keys); queries: of the queries, (..., rows, features).
    """
    (rows, keys), lanes = scores[-2:], target.lanes(itemsize)
    if rows < FEW_QUERIES or keys < lanes:
        return 0
    tile = _score_tile(target, rows, keys, queries[-1], itemsize, range(1, min(4, ceil(keys / lanes)) + 1))
    return lanes * tile.vectors


def _score_tile(target: CpuTarget, rows: int, keys: int, depth: int, itemsize: int, vectors: Sequence[int]) -> Tile:
    return choose_tile(
        [rows, keys], target.lanes(itemsize), target, vectors, rows_within(depth * itemsize, target), is_whole=True
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """The facts of a kernel.

    Attributes:
        stacks: matrices of queries, of `rows` each; depth: features of queries and keys; features: of values.
        panel: keys in a packed panel; 0 where keys lie as they came.
    """

    stacks: int
    rows: int
    keys: int
    depth: int
    features: int
    panel: int
    itemsize: int
    work: Work


def problem_of(func: PrimFunc) -> Problem:
    """The facts of an attention kernel."""

    def extents(block: str) -> list[int]:
        return [int_of(e) for e in writes(func.blocks[by_role(func, block)])[0].shape]

    *batch, rows, features = extents(RESULT)
    depth = next(int_of(it.extent) for it in func.blocks[by_role(func, PRODUCT)].iters if it.kind == "reduce")
    panel = extents(KEYS)[-1] if has_role(func, KEYS) else 0
    itemsize = writes(func.blocks[by_role(func, SCORES)])[0].dtype.itemsize
    return Problem(prod(batch), rows, extents(SCORES)[-1], depth, features, panel, itemsize, Work.of(func))


def _tile_rows(p: Problem, target: CpuTarget) -> Sequence[int]:
    return range(1, target.num_registers - 2)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How attention is tiled."""

    together: int = decision("queries whose scores are computed together", lambda p, t: range(1, p.rows + 1))
    score_rows: int = decision("queries of a register tile of scores", _tile_rows)
    score_vectors: int = decision(
        "vectors of keys in it; packed panels fixed them", lambda p, t: (max(1, p.panel // t.lanes(p.itemsize)),)
    )
    value_rows: int = decision("queries of a register tile of the weighted values", _tile_rows)
    value_vectors: int = decision("vectors of features in it", lambda p, t: range(1, 5))
    value_lanes: int = decision("features of a vector", lambda p, t: (min(t.lanes(p.itemsize), p.features),))
    lanes: int = decision("elements of other vectors", lambda p, t: (t.lanes(p.itemsize),))
    accumulators: int = decision("vectors of partial sums along the keys; 0 for none", lambda p, t: range(9))
    dots: int = decision("vectors of partial sums along the features of a score; 0 for none", lambda p, t: range(9))
    by_stack: bool = decision(
        "run stacks on all cores, not groups of queries; keys are packed a stack at a time", yes_or_no
    )
    parallel: bool = decision("use all cores", yes_or_no)


def plan(p: Problem, target: CpuTarget) -> AttentionPlan:
    """Some rows of queries at a time: their scores, the weights of these, and the weighted values, all in L2. Stacks of matrices run
    in parallel; groups of rows too, where there are few stacks."""
    lanes, parallel = target.lanes(p.itemsize), p.work.is_worth_threads(target)
    by_stack = not parallel or p.stacks >= 2 * target.num_cores
    vectors = max(1, p.panel // lanes)
    first = _score_tile(target, p.rows, p.keys, p.depth, p.itemsize, (vectors,))
    share = p.rows if by_stack else ceil(p.rows * p.stacks / (4 * target.num_cores))
    together = min(p.rows, _together(target, share, first.rows[-1], p.keys * p.itemsize))
    second = choose_tile([together, p.features], lanes, target, range(1, 5), is_whole=True)
    # a tile that leaves the group would ask for scores of the next one, which others compute at the same time
    value_rows = max(n for n in range(1, second.rows[-1] + 1) if together % n == 0 or together == p.rows)
    return AttentionPlan(
        together, first.rows[-1], vectors, value_rows, second.vectors, second.lanes, lanes,
        accumulators=accumulators(Run(p.keys), lanes, target), dots=accumulators(Run(p.depth), lanes, target),
        by_stack=by_stack, parallel=parallel,
    )  # fmt: skip


def _together(target: CpuTarget, rows: int, tile: int, bytes_per_row: int) -> int:
    """Rows of queries at a time: whole register tiles, whose scores and weights fill half of L2 at most; as many as leave little of
    the last group empty."""
    room = target.l2_bytes_per_core // 2 // (2 * bytes_per_row)
    most = max(1, min(ROW_TILES, room // tile, ceil(rows / tile)))
    filled = {tiles * tile: ceil(rows / (tiles * tile)) * tiles * tile for tiles in range(1, most + 1)}
    return max(n for n in filled if filled[n] <= target.costs.spare_rows * min(filled.values()))


def apply(sch: Schedule, plan: AttentionPlan) -> None:
    """Both products have register tiles, chosen as for any product; the scale and the mask join the write-back of the first, the
    division by the sum of the weights that of the second. Where keys are not packed each score is summed up in vectors along the
    features.
    """
    result = inline_into_output(sch, by_role(sch, RESULT))
    *outer, row, _ = sch.get_loops(result)
    group, _ = sch.split(row, [None, plan.together])
    stack = fuse_all(sch, outer)
    around = 1 if stack is None else 2
    sch.set_scope(by_role(sch, MIXED), 0, "local")
    second = Tile((plan.value_rows,), plan.value_vectors, plan.value_lanes)
    _product(sch, by_role(sch, MIXED), result, around, second, last_outside=False)
    _softmax(sch, group, around, plan)
    sch.compute_at(by_role(sch, SCORES), group)
    if has_role(sch.func, KEYS):
        sch.set_scope(by_role(sch, PRODUCT), 0, "local")
        first = Tile((plan.score_rows,), plan.score_vectors, plan.lanes)
        _product(sch, by_role(sch, PRODUCT), by_role(sch, SCORES), around, first, last_outside=True)
        _pack(sch, stack if plan.by_stack else None, plan)
    else:
        _dots(sch, plan)
    if plan.parallel:
        sch.parallel(group if stack is None else stack if plan.by_stack else sch.fuse(stack, group))


def _product(sch: Schedule, acc: str, write: str, around: int, tile: Tile, last_outside: bool) -> None:
    """A matrix product in register tiles, inside the loops around it."""
    outer, inner = tile_write_back(sch, write, tile.rows, tile.vectors, tile.lanes, around)
    if last_outside:
        outer = [outer[-1], *outer[:-1]]
        sch.reorder(*outer)
    sch.compute_at(acc, outer[-1])
    accumulate_tile(sch, acc, around + len(outer), tile.vectors, tile.lanes)
    unroll_and_vectorize(sch, inner)


def _dots(sch: Schedule, plan: AttentionPlan) -> None:
    """Each score by itself: vectors along the features, then across their lanes."""
    name, parts = factor(sch, by_role(sch, PRODUCT), plan.lanes, plan.dots)
    place = sch.get_loops(by_role(sch, SCORES))[-1]
    for block in (name, *reversed(parts)):
        sch.compute_at(block, place)
    for block in parts:
        vectorize_partial(sch, block)


def _softmax(sch: Schedule, group: Var, around: int, plan: AttentionPlan) -> None:
    """The weights of a row, its greatest score and the weights' sum one after another, while the row is in L1."""
    top, top_parts = factor(sch, by_role(sch, TOP), plan.lanes, plan.accumulators)
    total, total_parts = factor(sch, by_role(sch, TOTAL), plan.lanes, plan.accumulators)
    for name in (total, *reversed(total_parts), by_role(sch, WEIGHTS)):
        sch.compute_at(name, group)
    line = group
    if sch.get_loops(by_role(sch, WEIGHTS))[around:-1]:  # several rows, one after another
        line = sch.get_loops(by_role(sch, WEIGHTS))[around]
        for name in (*total_parts, total):
            line = sch.merge(line, sch.get_loops(name)[around])
    for name in (top, *reversed(top_parts)):
        sch.compute_at(name, line)
    for name in (*top_parts, *total_parts):
        vectorize_partial(sch, name)
    vectorize_innermost(sch, by_role(sch, WEIGHTS), plan.lanes, sch.get_loops(by_role(sch, WEIGHTS)).index(line) + 1)


def _pack(sch: Schedule, stack: Var | None, plan: AttentionPlan) -> None:
    """The keys' panels, for one stack at a time, or all of them beforehand."""
    if stack is not None:
        sch.compute_at(by_role(sch, KEYS), stack)
    else:
        panel = fuse_all(sch, sch.get_loops(by_role(sch, KEYS))[:-2])
        if plan.parallel and panel is not None:
            sch.parallel(panel)
    vectorize_innermost(sch, by_role(sch, KEYS), plan.lanes, 1)
